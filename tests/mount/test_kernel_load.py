"""Fifty threads at once, on files of their own and shared ones: each finds what it left, and all agrees at the end."""

import errno
import os
import random
import threading
import time
from pathlib import Path

from mount.datasets import crc32c
from mount.kernel_mounts import Native, by_each_transport, eventually, native

THREADS = 50
SECONDS = 60.0 if os.environ.get("OCTUEFS_SOAK") == "1" else 5.0
LABELS = ("red", "green", "blue")
MEANWHILE = {errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENODATA, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR}
"""What a thread may hear of a file that others move and remove."""


class Thread(threading.Thread):
    """One of the fifty. `failure` is what should not have happened to it."""

    def __init__(self, mount: Native, source: Path, number: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None
        self.turns = 0
        self._point = mount.root
        self._source = source
        self._number = number
        self._ended = ended
        self._random = random.Random(number)
        self._mine: dict[str, bytes] = {}
        """What its own files hold, by their paths in the mount."""

    def run(self) -> None:
        files = (self.make, self.add, self.overwrite, self.make, self.move, self.remove)
        acts = (*files, self.look, self.look, self.label)
        try:
            while not self._ended.is_set():
                self._random.choice(acts)()
                self.share()
                self.turns += 1
            for path in self._mine:
                self.check_bytes(path, self._point / path)
        except BaseException as error:
            self.failure = error

    # --- files of its own

    def check_bytes(self, path: str, file: Path) -> None:
        """See that a file of its own holds what it should, or say who has it otherwise."""
        data, found = self._mine[path], file.read_bytes()
        if found != data:
            stored, again = (self._source / path).read_bytes(), file.read_bytes()
            first = next((at for at, pair in enumerate(zip(found, data, strict=False)) if pair[0] != pair[1]), None)
            raise AssertionError(
                f"{file}: {len(found)} bytes of {len(data)}, other ones from {first} on; "
                f"right in the source: {stored == data}, when read again: {again == data}"
            )

    def any_of_mine(self) -> str:
        if not self._mine:
            self.make()
        return self._random.choice(list(self._mine))

    def make(self) -> None:
        path = f"d{self._number % 7}/{self._number}-{self.turns}-{self._random.randrange(10**6)}.csv"
        data = self._random.randbytes(self._random.randrange(20_000))
        (self._point / path).write_bytes(data)
        self._mine[path] = data

    def add(self) -> None:
        path, data = self.any_of_mine(), self._random.randbytes(100)
        with (self._point / path).open("ab", buffering=0) as file:
            file.write(data)
        self._mine[path] += data

    def overwrite(self) -> None:
        path, data = self.any_of_mine(), self._random.randbytes(50)
        with (self._point / path).open("r+b", buffering=0) as file:
            file.write(data)
        self._mine[path] = data + self._mine[path][50:]

    def look(self) -> None:
        path = self.any_of_mine()
        file, data = self._point / path, self._mine[path]
        assert file.stat().st_size == len(data), path
        self.check_bytes(path, file)
        assert os.getxattr(file, "user.octue.hash").decode() == crc32c(data), path
        assert file.name in os.listdir(file.parent), path
        in_view = self._point / "by-ext" / "csv" / path
        self.check_bytes(path, in_view)
        assert in_view.stat().st_ino == file.stat().st_ino, path

    def move(self) -> None:
        path = self.any_of_mine()
        target = f"d{self._random.randrange(7)}/{self._number}-moved-{self._random.randrange(10**6)}.csv"
        (self._point / path).rename(self._point / target)
        assert not (self._point / path).exists()
        self._mine[target] = self._mine.pop(path)

    def remove(self) -> None:
        path = self.any_of_mine()
        (self._point / path).unlink()
        del self._mine[path]
        assert not (self._point / path).exists()

    def label(self) -> None:
        path, label = self.any_of_mine(), self._random.choice(LABELS)
        os.setxattr(self._point / path, "user.octue.labels", label.encode())
        assert (self._point / "by-label" / label / path).stat().st_size == len(self._mine[path])

    # --- files of all

    def share(self) -> None:
        path = self._point / "shared" / f"{self._random.randrange(5)}"
        byte = bytes([self._random.randrange(256)])
        try:
            act = self._random.randrange(6)
            if act == 0:
                path.write_bytes(byte * 3000)
            elif act == 1:
                beside = path.with_name(f"beside-{self._number}")
                beside.write_bytes(byte * 3000)
                beside.replace(path)
            elif act == 2:
                path.unlink()
            elif act == 3:
                os.listdir(path.parent)
                os.listdir(self._point / "by-ext")
            elif act == 4:
                os.getxattr(path, "user.octue.hash")
            else:
                assert len(path.read_bytes()) <= 3000
        except OSError as error:
            if error.errno not in MEANWHILE:
                raise


@by_each_transport
def test_fifty_threads_at_once_find_what_they_left(tmp_path: Path, io_uring: str) -> None:
    source = tmp_path / "dataset"
    for name in (*(f"d{number}" for number in range(7)), "shared"):
        (source / name).mkdir(parents=True)
    with native(source, io_uring=io_uring) as mount:
        ended = threading.Event()
        threads = [Thread(mount, source, number, ended) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        ended.set()
        for thread in threads:
            thread.join(60)
        assert [thread for thread in threads if thread.is_alive()] == []
        assert [repr(thread.failure) for thread in threads if thread.failure] == []
        assert all(thread.turns for thread in threads)
        check(mount, source)
        eventually(lambda: mount.passed_through == 0)


def check(mount: Native, source: Path) -> None:
    """See that the source, the mount and the index agree on every file."""
    stored = {str(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()}
    stored = {path: file for path, file in stored.items() if file.name != ".octue"}
    contents = {path: file.read_bytes() for path, file in stored.items()}
    assert {path: (mount / path).read_bytes() for path in contents} == contents
    assert {path: (mount / path).stat().st_ino for path in stored} == {
        path: file.stat().st_ino for path, file in stored.items()
    }
    listed = {f"{crc32c(data)}  {path}" for path, data in contents.items()}
    assert set((mount / ".hashes").read_text().splitlines()) == listed
    seen = {str(path.relative_to(mount.root)) for path in mount.root.rglob("*") if path.is_file()}
    assert {path for path in seen if not path.startswith(".") and not path.endswith("/.octue")} == set(stored)
    tables = {path for path in stored if path.endswith(".csv")}
    view = mount / "by-ext" / "csv"
    assert {str(it.relative_to(view)) for it in view.rglob("*.csv")} == tables
