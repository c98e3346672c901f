"""One suite of what POSIX promises readers, over a local folder and over a real GCS server, each really mounted."""

import contextlib
import ctypes
import errno
import hashlib
import json
import mmap
import os
import random
import socket
import stat
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mount.conftest import SourceMaker
from mount.trees import (
    KIB,
    MIB,
    CloudSource,
    DirectoryStream,
    File,
    LocalSource,
    Served,
    digest,
    id_of,
    run,
    some_bytes,
    walk,
)

from support.drivers import over_each_driver
from support.mounting import mounted

pytestmark = over_each_driver

LARGE = "large.bin"
SPACED = " a name with spaces .txt "
NFC, NFD = (unicodedata.normalize(form, "Zähler.txt") for form in ("NFC", "NFD"))
LONGEST_NAMES = ("n" * 255, "ä" * 127 + "x", "風" * 85)
ODD_NAMES = [
    *(SPACED, "tab\tin it", "back\\slash", 'quote\'s "and" `$(x)`', "-rf", "*?[a]{b,c}", "100%25", "~", "#", ".hidden"),
    *("風力.csv", NFC, NFD, "\U0001f32c.txt", "bell\x07 and \x7f", *LONGEST_NAMES),
]
SIZES = [0, 1, *(size + more for size in (4 * KIB, 128 * KIB, 512 * KIB, MIB) for more in (-1, 0, 1))]
DEEP = "/".join(["deep"] * 100)

FILES = {
    LARGE: File(some_bytes(3 * MIB + 17), ["a"]),
    "table.csv": File(b"time,power\n1,2\n", ["a", "b"], {"cluster": 1}, "2024-05-06T07:08:09"),
    "other.csv": File(b"time,power\n3,4\n"),
    "inner/table.csv": File(b"time,power\n5,6\n", ["a"], {"cluster": 2}),
    "inner/most/table.csv": File(b"time,power\n7,8\n", ["b"]),
    f"{DEEP}/file": File(b"deep down", ["a"]),
    **{f"sizes/{size}": File(some_bytes(size)) for size in SIZES},
    **{f"names/{name}": File(f"content of {name}".encode(), ["odd"]) for name in ODD_NAMES},
    **{f"names/in folders/{name}/{name}": File(f"content in {name}".encode()) for name in ODD_NAMES},
}


@pytest.fixture(scope="module", params=["local", "cloud"])
def served(request: pytest.FixtureRequest, new_source: SourceMaker, driver: str) -> Iterator[Served]:
    """The files of `FILES`, mounted."""
    with new_source(request.param) as source:
        source.fill(FILES)
        with mounted(source.url, environment=source.environment) as root:
            yield Served(root, source, FILES)


@pytest.fixture(scope="module")
def served_read_only(served: Served) -> Iterator[Served]:
    """The same source, mounted a second time at the same time."""
    with mounted(served.source.url, "--read-only", environment=served.source.environment) as root:
        yield Served(root, served.source, served.files)


LOCAL_ONLY = {
    "bytes \udcff\udc80 that are no text": b"not UTF-8",
    "new\nline": b"newline",
    "carriage\rreturn": b"return",
    "folder \udcfe/file \udcfd": b"not UTF-8 either",
    "target": b"what the links lead to",
}


@pytest.fixture(scope="module")
def local(new_source: SourceMaker, driver: str) -> Iterator[Served]:
    """What only a disk can hold."""
    files = {path: File(data, ["a"]) for path, data in LOCAL_ONLY.items()}
    with new_source("local") as source:
        assert isinstance(source, LocalSource)
        source.fill(files)
        top = source.folder
        (top / "target").chmod(0o4751)
        os.utime(top / "target", ns=(1_111_111_111_123_456_789, 1_222_222_222_987_654_321))
        os.utime(top / "folder \udcfe", ns=(0, 1_000_000_000_000_000_001))
        os.link(top / "target", top / "hard link")
        os.link(top / "target", top / "folder \udcfe" / "hard link")
        for link, target in {
            "link": "target",
            "link to folder": "folder \udcfe",
            "folder \udcfe/link up": "../target",
            "dangling": "nowhere/at all",
            "absolute": "/etc/hostname",
            "circle": "circle",
            "long": "x" * 4000,
        }.items():
            (top / link).symlink_to(target)
        os.mkfifo(top / "fifo", 0o640)
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(top):
            listener.bind("socket")
        (top / "empty folder").mkdir(mode=0o711)
        with (top / "sparse").open("wb") as sparse:
            sparse.truncate(64 * MIB)
            sparse.seek(32 * MIB + 5)
            sparse.write(b"an island")
        with mounted(top) as root:
            yield Served(root, source, files)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait, within reason, for what must become true."""
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["through the page cache", "past the page cache"])
def large(request: pytest.FixtureRequest, served: Served) -> Iterator[int]:
    """A descriptor of the large file; past the cache (O_DIRECT) each read reaches the daemon as it is asked."""
    with opened(served.root / LARGE, os.O_DIRECT if request.param == "past the page cache" else 0) as fd:
        yield fd


@pytest.mark.parametrize("boundary", [0, 4 * KIB, 128 * KIB, 512 * KIB, MIB, 2 * MIB, 3 * MIB])
def test_reads_around_a_boundary_give_exactly_the_bytes_there(large: int, boundary: int) -> None:
    data = FILES[LARGE].data
    for offset in {max(0, boundary + more) for more in (-131_073, -4097, -7, -1, 0, 1, 13)}:
        for size in (1, 2, 15, 4095, 4097, 131_071, 131_073, 524_289, MIB + 3):
            # The kernel may give less than asked for to a direct read, but never at another place.
            assert read_fully(large, offset, size) == data[offset : offset + size], (offset, size)


def read_fully(fd: int, offset: int, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := os.pread(fd, size - len(found), offset + len(found))):
        found += more
    return found


def test_a_read_beyond_the_end_gives_what_there_is(large: int) -> None:
    data = FILES[LARGE].data
    assert os.pread(large, 100, len(data)) == b""
    assert os.pread(large, 100, len(data) + MIB) == b""
    assert os.pread(large, 100, 1 << 40) == b""
    assert os.pread(large, 100, len(data) - 5) == data[-5:]
    assert os.lseek(large, -5, os.SEEK_END) == len(data) - 5
    assert os.read(large, 4096) == data[-5:]
    assert os.read(large, 4096) == b""


def test_reads_in_random_order_give_the_bytes_of_their_places(large: int) -> None:
    data = FILES[LARGE].data
    dice = random.Random(1)
    for _ in range(200):
        offset, size = dice.randrange(len(data)), dice.randrange(1, 200_000)
        assert read_fully(large, offset, size) == data[offset : offset + size], (offset, size)


def test_threads_that_read_one_descriptor_at_once_each_get_their_own_bytes(large: int) -> None:
    data = FILES[LARGE].data

    def read_some(seed: int) -> list[tuple[int, int]]:
        dice = random.Random(seed)
        places = [(dice.randrange(len(data)), dice.randrange(1, 150_000)) for _ in range(40)]
        return [(at, size) for at, size in places if read_fully(large, at, size) != data[at : at + size]]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read_some, range(8))) == [[]] * 8


def test_descriptors_of_one_file_keep_their_own_positions(served: Served) -> None:
    data = FILES[LARGE].data
    with opened(served.root / LARGE) as one, opened(served.root / LARGE) as two:
        os.lseek(two, MIB, os.SEEK_SET)
        for step in range(5):
            assert os.read(one, 1001) == data[1001 * step : 1001 * (step + 1)]
            assert os.read(two, 77) == data[MIB + 77 * step : MIB + 77 * (step + 1)]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_read_whole(served: Served, size: int) -> None:
    path = served.root / "sizes" / str(size)
    assert path.stat().st_size == size
    assert path.read_bytes() == FILES[f"sizes/{size}"].data
    with opened(path, os.O_DIRECT) as fd:
        assert read_fully(fd, 0, size + 1) == FILES[f"sizes/{size}"].data


def test_vectored_reads_fill_all_buffers(served: Served) -> None:
    data = FILES[LARGE].data
    buffers = [bytearray(size) for size in (1, 4095, 130_000, 3)]
    with opened(served.root / LARGE) as fd:
        assert os.preadv(fd, buffers, 524_281) == sum(map(len, buffers))
    assert b"".join(buffers) == data[524_281:][: sum(map(len, buffers))]


def test_noatime_and_other_harmless_flags_do_no_harm(served: Served) -> None:
    for flags in (os.O_NOATIME, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_SYNC, os.O_CLOEXEC, os.O_CREAT, os.O_APPEND):
        with opened(served.root / "table.csv", os.O_RDONLY | flags) as fd:
            assert os.read(fd, 1000) == FILES["table.csv"].data, flags


def test_sendfile_carries_the_bytes_out(served: Served, tmp_path: Path) -> None:
    data = FILES[LARGE].data
    with opened(served.root / LARGE) as source, opened(tmp_path / "out", os.O_CREAT | os.O_WRONLY) as out:
        done = 0
        while more := os.sendfile(out, source, done, len(data)):
            done += more
    assert (tmp_path / "out").read_bytes() == data


MAPPING = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.{flags}, prot=mmap.{prot}) as mapping:
    parts = [mapping[at:at + 5000] for at in (3_000_000, 1_048_570, 524_280, 131_070, 0)]
    {change}
    print(hashlib.sha256(b"".join(parts)).hexdigest(), hashlib.sha256(mapping).hexdigest())
"""


def test_a_mapped_file_shows_its_bytes(served: Served) -> None:
    data = FILES[LARGE].data
    parts = b"".join(data[at : at + 5000] for at in (3_000_000, 1_048_570, 524_280, 131_070, 0))
    expected = [hashlib.sha256(part).hexdigest() for part in (parts, data)]
    for flags in ("MAP_SHARED", "MAP_PRIVATE"):
        program = MAPPING.format(flags=flags, prot="PROT_READ", change="")
        assert run(sys.executable, "-c", program, served.root / LARGE).decode().split() == expected, flags


def test_a_private_mapping_can_be_changed_and_the_file_stays(served: Served) -> None:
    data = FILES[LARGE].data
    program = MAPPING.format(flags="MAP_PRIVATE", prot="PROT_READ | mmap.PROT_WRITE", change="mapping[1:4] = b'own'")
    said = run(sys.executable, "-c", program, served.root / LARGE).decode().split()
    assert said[1] == hashlib.sha256(data[:1] + b"own" + data[4:]).hexdigest()
    assert (served.root / LARGE).read_bytes() == data


# --- a large file ----------------------------------------------------------------------------------------------------

HUGE_BLOCKS = 300


def huge_block(number: int, base: bytes = some_bytes(MIB - 8)) -> bytes:
    return number.to_bytes(8, "big") + base


@pytest.fixture(scope="module", params=["local", "cloud"])
def huge(request: pytest.FixtureRequest, new_source: SourceMaker, driver: str) -> Iterator[Path]:
    """A file of 300 MiB in a mount."""
    with new_source(request.param) as source:
        source.fill({"small.txt": File(b"small")})
        if isinstance(source, LocalSource):
            with (source.folder / "huge.bin").open("wb") as file:
                file.writelines(map(huge_block, range(HUGE_BLOCKS)))
        else:
            source.bucket.put(f"{source.prefix}/huge.bin", b"".join(map(huge_block, range(HUGE_BLOCKS))))
        with mounted(source.url, environment=source.environment) as root:
            yield root / "huge.bin"


def test_300_mib_are_read_byte_for_byte(huge: Path) -> None:
    expected = hashlib.sha256()
    for number in range(HUGE_BLOCKS):
        expected.update(huge_block(number))
    assert huge.stat().st_size == HUGE_BLOCKS * MIB
    assert digest(huge) == expected.hexdigest()


def test_places_all_over_300_mib_are_read_at_once(huge: Path) -> None:
    numbers = random.Random(2).sample(range(HUGE_BLOCKS - 1), 40)
    with opened(huge, os.O_DIRECT) as fd, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: read_fully(fd, (number + 1) * MIB - 9, 20), numbers))
    expected = [(huge_block(number)[-9:] + huge_block(number + 1))[:20] for number in numbers]
    assert found == expected


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_odd_name_is_listed_once_and_read_by_that_name(served: Served) -> None:
    assert Counter(os.listdir(served.root / "names")) == Counter([*ODD_NAMES, ".octue", "in folders"])
    for name in ODD_NAMES:
        assert (served.root / "names" / name).read_bytes() == f"content of {name}".encode(), name
        assert os.listdir(served.root / "names" / "in folders" / name) == [name]
        assert (served.root / "names" / "in folders" / name / name).read_bytes() == f"content in {name}".encode(), name


def test_every_odd_name_is_reached_through_views_too(served: Served) -> None:
    for view in ("by-label/odd", "filter/labels__contains=odd", "not/by-label/a,b/by-label/odd"):
        assert Counter(os.listdir(served.root / view / "names")) == Counter([*ODD_NAMES, ".octue"]), view
        for name in ODD_NAMES:
            found = (served.root / view / "names" / name).read_bytes()
            assert found == f"content of {name}".encode(), (view, name)


def test_an_ordered_view_lists_and_opens_the_longest_names(served: Served) -> None:
    view = served.root / "names" / "order-by" / "name"
    names = [name for name in os.listdir(view) if name != ".octue"]
    assert Counter(name.partition("_")[2] for name in names) == Counter(ODD_NAMES * 2)
    for name in names:
        shown = name.partition("_")[2]
        assert (view / name).read_bytes() in (f"content of {shown}".encode(), f"content in {shown}".encode()), name


def test_composed_and_decomposed_letters_are_two_names(served: Served) -> None:
    one, two = served.root / "names" / NFC, served.root / "names" / NFD
    assert one.read_bytes() != two.read_bytes() or NFC == NFD
    assert one.stat().st_ino != two.stat().st_ino


def test_deep_folders_are_walked_and_read(served: Served) -> None:
    assert (served.root / DEEP / "file").read_bytes() == b"deep down"
    assert (served.root / "by-label" / "a" / DEEP / "file").read_bytes() == b"deep down"
    assert (served.root / DEEP / "by-label" / "a" / "file").read_bytes() == b"deep down"
    depth = 0
    for folder, folders, _ in os.walk(served.root / "deep"):
        depth += 1
        assert folders == ["deep"] or folder.endswith(DEEP)
    assert depth == 100


def test_bytes_that_are_no_text_and_line_ends_can_be_in_names(local: Served) -> None:
    for path, data in LOCAL_ONLY.items():
        assert (local.root / path).read_bytes() == data, path
        assert (local.root / "by-label" / "a" / path).read_bytes() == data, path
    assert sorted(os.listdir(os.fsencode(local.root))) == sorted(os.listdir(os.fsencode(local.folder)))


def test_a_path_of_nearly_path_max_is_read(new_source: SourceMaker) -> None:
    with new_source("local") as source:
        source.fill({"small.txt": File(b"small")})
        deepest = "/".join(["f" * 200] * 19)
        place = f"{deepest}/{'g' * (4095 - len(source.url) - len(deepest) - 2)}"
        assert len(f"{source.url}/{place}") == 4095
        (source.folder / deepest).mkdir(parents=True)
        (source.folder / place).write_bytes(b"at the end of a long way")
        with mounted(source.url) as root:
            assert (root / place).read_bytes() == b"at the end of a long way"
            found = run("find", ".", "-type", "f", "-printf", "%P\n", cwd=root)
            assert sorted(found.decode().split()) == sorted([place, "small.txt", ".octue"])


# --- large folders ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["local", "cloud"])
def crowded(request: pytest.FixtureRequest, new_source: SourceMaker, driver: str) -> Iterator[Served]:
    """A folder of many files: 10,000 on a disk, 1,000 in a bucket."""
    number = 10_000 if request.param == "local" else 1_000
    files = {f"many/file-{n:05}.txt": File(b"%d" % n) for n in range(number)}
    with new_source(request.param) as source:
        source.fill(files)
        with mounted(source.url, environment=source.environment) as root:
            yield Served(root, source, files)


def test_a_crowded_folder_lists_each_name_once_with_its_inode_and_type(crowded: Served) -> None:
    with DirectoryStream(crowded.root / "many") as stream:
        entries = list(stream)
    names = Counter(os.fsdecode(entry.name) for entry in entries)
    assert names == Counter([*(path.removeprefix("many/") for path in crowded.files), ".", ".."])
    for entry in entries:
        if entry.name not in (b".", b".."):
            assert entry.type == stat.S_IFREG >> 12
    for entry in random.Random(3).sample(entries, 300):
        if entry.name != b"..":
            assert entry.inode == os.lstat(crowded.root / "many" / os.fsdecode(entry.name)).st_ino, entry
    assert len({entry.inode for entry in entries if entry.name not in (b".", b"..")}) == len(crowded.files)


def test_a_position_in_a_crowded_folder_leads_back_to_the_same_entry(crowded: Served) -> None:
    with DirectoryStream(crowded.root / "many") as stream:
        places, entries = [], []
        while True:
            place = stream.tell()
            entry = stream.read()
            if entry is None:
                break
            places.append(place)
            entries.append(entry)
        for at in random.Random(4).sample(range(len(entries)), 100):
            stream.seek(places[at])
            assert stream.read() == entries[at]
            assert at + 1 == len(entries) or stream.read() == entries[at + 1]
        stream.rewind()
        assert list(stream) == entries


def test_a_half_read_listing_goes_on_while_others_read(crowded: Served) -> None:
    folder = crowded.root / "many"
    with os.scandir(folder) as half_read:
        names = [next(half_read).name for _ in range(len(crowded.files) // 2)]
        assert len(os.listdir(folder)) == len(crowded.files)
        for name in names[:50]:
            assert (folder / name).read_bytes() == crowded.files[f"many/{name}"].data
        names += [entry.name for entry in half_read]
    assert Counter(names) == Counter(os.listdir(folder))


def test_files_of_a_crowded_folder_are_read_by_many_threads(crowded: Served) -> None:
    some = random.Random(5).sample(sorted(crowded.files), 400)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda path: (crowded.root / path).read_bytes(), some)) == [
            crowded.files[path].data for path in some
        ]


# --- listings --------------------------------------------------------------------------------------------------------

VIEWS = [
    "",
    "by-label/a",
    "by-ext/csv",
    "filter/size_bytes__gt=0",
    "not/by-label/b",
    "inner/by-ext/csv",
    "order-by/name",
]


@pytest.mark.parametrize("view", VIEWS)
def test_each_entry_of_a_listing_tells_the_inode_and_type_that_stat_tells(served: Served, view: str) -> None:
    for folder, _, _ in os.walk(served.root / view):
        with DirectoryStream(Path(folder)) as stream:
            entries = list(stream)
        assert Counter(entry.name for entry in entries).most_common(1)[0][1] == 1
        assert {b".", b".."} <= {entry.name for entry in entries}
        for entry in entries:
            facts = os.lstat(os.path.join(os.fsencode(folder), entry.name))
            assert entry.type == stat.S_IFMT(facts.st_mode) >> 12, (folder, entry)
            if entry.name != b"..":  # which of a mount's root is outside of it
                assert entry.inode == facts.st_ino, (folder, entry)


@pytest.mark.parametrize(
    "index", ["by-label", "by-ext", "by-tag", "by-tag/cluster", "by-date", "by-date/2024", "by-id"]
)
def test_each_entry_of_an_index_folder_tells_the_inode_and_type_that_stat_tells(served: Served, index: str) -> None:
    with DirectoryStream(served.root / index) as stream:
        entries = [entry for entry in stream if entry.name not in (b".", b"..")]
    assert entries
    for entry in entries:
        facts = os.lstat(served.root / index / os.fsdecode(entry.name))
        assert (entry.type, entry.inode) == (stat.S_IFMT(facts.st_mode) >> 12, facts.st_ino), entry


def test_special_files_and_links_are_listed_with_their_types_and_inodes(local: Served) -> None:
    with DirectoryStream(local.root) as stream:
        shown = {entry.name: (entry.type, entry.inode) for entry in stream if entry.name not in (b".", b"..")}
    with DirectoryStream(local.folder) as stream:
        assert shown == {entry.name: (entry.type, entry.inode) for entry in stream if entry.name not in (b".", b"..")}


# --- attributes ------------------------------------------------------------------------------------------------------


def test_files_have_the_size_mode_owner_and_links_of_files(served: Served) -> None:
    for path, file in FILES.items():
        facts = (served.root / path).stat()
        assert stat.S_ISREG(facts.st_mode), path
        assert stat.S_IMODE(facts.st_mode) == 0o644, path
        assert facts.st_size == len(file.data), path
        assert (facts.st_uid, facts.st_gid, facts.st_nlink) == (os.getuid(), os.getgid(), 1), path
        assert facts.st_blksize >= 4096


def test_folders_are_folders_that_their_owner_may_enter(served: Served) -> None:
    for folder in ("", "inner", "inner/most", DEEP, "by-label", "by-label/a", "by-label/a/inner", "filter", "order-by"):
        facts = (served.root / folder).stat()
        assert stat.S_ISDIR(facts.st_mode), folder
        assert stat.S_IMODE(facts.st_mode) & 0o500 == 0o500, folder
        assert (facts.st_uid, facts.st_gid) == (os.getuid(), os.getgid()), folder


def test_an_object_tells_when_it_was_made_and_how_much_room_it_takes(new_source: SourceMaker) -> None:
    files = {
        "plain": File(b"x" * 1025, ["a"]),
        "dated": File(b"y", custom={"goog-reserved-file-mtime": "1222222222", "goog-reserved-posix-mode": "600"}),
    }
    with new_source("cloud") as source:
        assert isinstance(source, CloudSource)
        source.fill(files)
        with mounted(source.url, environment=source.environment) as root:
            plain, dated = (root / "plain").stat(), (root / "dated").stat()
        resource = source.bucket.stat(f"{source.prefix}/plain")
    assert plain.st_mtime_ns // 1000 == microseconds(resource["timeCreated"])
    assert plain.st_ctime_ns // 1000 == microseconds(resource["updated"])
    assert (plain.st_blocks, dated.st_blocks) == (3, 1)
    assert dated.st_mtime_ns == 1_222_222_222_000_000_000
    assert dated.st_mode == stat.S_IFREG | 0o600


def microseconds(text: str) -> int:
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def test_everything_on_a_disk_has_the_attributes_of_its_source(local: Served) -> None:
    for path in (os.fsencode(local.folder), *walk(local.folder)):
        place = os.path.relpath(path, os.fsencode(local.folder))
        there, here = os.lstat(path), os.lstat(os.path.join(os.fsencode(local.root), place))
        for name in ("mode", "ino", "nlink", "uid", "gid", "rdev", "size", "blocks", "mtime_ns", "ctime_ns"):
            assert getattr(here, f"st_{name}") == getattr(there, f"st_{name}"), (place, name)
    assert (local.root / "target").stat().st_mtime_ns == 1_222_222_222_987_654_321


def views_of(path: str) -> list[str]:
    """Some of the paths in the mount that lead to a file labelled `a`."""
    name = path.rpartition("/")[2]
    return [
        path,
        f"by-label/a/{path}",
        f"by-label/a,b/{path}",
        f"filter/name={name}/{path}",
        f"not/by-ext/_/{path}",
        f"by-ext/{name.rpartition('.')[2]}/by-label/a/{path}",
        f"by-id/{id_of(path)}",
        f"by-label/a/by-id/{id_of(path)}",
    ]


@pytest.mark.parametrize("path", [LARGE, "table.csv", "inner/table.csv"])
def test_a_file_is_the_same_file_in_every_view(served: Served, path: str) -> None:
    facts = [(served.root / view).stat() for view in views_of(path)]
    assert len({(at.st_dev, at.st_ino) for at in facts}) == 1
    assert len({(at.st_mode, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_blocks) for at in facts}) == 1


def test_different_files_have_different_inodes(served: Served) -> None:
    inodes = [(served.root / path).stat().st_ino for path in FILES]
    assert len(set(inodes)) == len(FILES)


def test_folders_have_inodes_of_their_own_in_each_view(served: Served) -> None:
    folders = [
        *("", "inner", "inner/most", "names", "deep", "deep/deep"),
        *("by-label", "by-label/a", "by-label/a/inner", "by-label/b", "by-label/b/inner", "by-label/a/by-label/b"),
        *("by-ext", "by-ext/csv", "by-ext/csv/inner", "inner/by-ext", "inner/by-ext/csv", "filter", "not", "order-by"),
        *("not/by-label", "not/by-label/a", "filter/size_bytes__gt=0", "order-by/name", ".octuefs"),
    ]
    inodes = Counter((served.root / folder).stat().st_ino for folder in folders)
    inodes.update((served.root / path).stat().st_ino for path in FILES)
    assert inodes.most_common(1)[0][1] == 1


def test_hard_links_of_the_source_are_hard_links_in_the_mount(local: Served) -> None:
    places = ["target", "hard link", "folder \udcfe/hard link", "by-label/a/target", "by-ext/_/hard link"]
    facts = [(local.root / place).stat() for place in places]
    assert {at.st_ino for at in facts} == {(local.folder / "target").stat().st_ino}
    assert {at.st_nlink for at in facts} == {3}


def test_the_file_system_tells_its_room_and_limits(served: Served, served_read_only: Served) -> None:
    for root in (served.root, served_read_only.root, served.root / "by-label" / "a"):
        facts = os.statvfs(root)
        assert facts.f_namemax == 255
        assert facts.f_bsize > 0
        assert facts.f_frsize > 0
        assert facts.f_blocks >= facts.f_bfree >= facts.f_bavail > 0
        assert facts.f_files >= facts.f_ffree > 0
        assert facts.f_flag & os.ST_NOSUID
        assert facts.f_flag & os.ST_NODEV
    assert os.statvfs(served_read_only.root).f_flag & os.ST_RDONLY
    if not served.in_cloud:
        there, here = os.statvfs(served.folder), os.statvfs(served.root)
        assert here.f_blocks * here.f_frsize == there.f_blocks * there.f_frsize


# --- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def refused(number: int, about: object = "") -> Iterator[None]:
    """What happens inside must fail with this errno."""
    failed = 0
    try:
        yield
    except OSError as error:
        failed = error.errno or 0
    assert errno.errorcode.get(failed, "success") == errno.errorcode[number], about


def test_what_is_not_there_is_not_found(served: Served) -> None:
    for path in (
        *("missing", "missing/below", "inner/missing", "by-label/missing", "by-label/missing/table.csv", ".octuefs/no"),
        *(
            "by-label/b/large.bin",
            "by-ext/csv/large.bin",
            "by-label/by-ext",
            "filter/nmae=x",
            "by-nothing",
            "inner/.octuefs",
        ),
        *("by-id/00000000-0000-4000-8000-000000000000", "order-by/nothing", "not/nothing", "names/\udcff", "Table.csv"),
    ):
        with refused(errno.ENOENT, path):
            os.stat(served.root / path)
        with refused(errno.ENOENT, path):
            os.open(served.root / path, os.O_RDONLY)


def test_a_name_beyond_255_bytes_is_too_long(served: Served) -> None:
    for name in ("x" * 256, "ä" * 128, f"inner/{'x' * 256}", f"by-label/a/{'x' * 256}"):
        with refused(errno.ENAMETOOLONG, name):
            os.stat(served.root / name)


def test_files_and_folders_are_not_taken_for_each_other(served: Served) -> None:
    for path in ("table.csv/x", "by-label/a/table.csv/x", "table.csv/.hash", "table.csv/by-label", ".hash/x"):
        with refused(errno.ENOTDIR, path):
            os.stat(served.root / path)
    for path in ("table.csv", "by-label/a/table.csv", ".hash"):
        with refused(errno.ENOTDIR, path):
            os.listdir(served.root / path)
        with refused(errno.ENOTDIR, path):
            os.open(served.root / path, os.O_RDONLY | os.O_DIRECTORY)
        with refused(errno.EINVAL, path):
            os.readlink(served.root / path)
    for path in ("", "inner", "by-label", "by-label/a", "by-label/a/inner"):
        with refused(errno.EISDIR, path), opened(served.root / path) as fd:
            os.read(fd, 1)
        with refused(errno.EISDIR, path):
            os.open(served.root / path, os.O_WRONLY)
        with refused(errno.EINVAL, path):
            os.readlink(served.root / path)


def test_attributes_that_are_not_set_or_cannot_be_say_so(served: Served) -> None:
    for path in ("other.csv", "inner", "by-label/a/inner", ""):
        for name in ("user.octue.nothing", "user.octue.tags.nothing", "user.octue.timestamp", "security.selinux"):
            with refused(errno.ENODATA, (path, name)):
                os.getxattr(served.root / path, name)
        with refused(errno.ENOTSUP, path):
            os.getxattr(served.root / path, "system.posix_acl_access")
        if served.in_cloud:
            with refused(errno.ENOTSUP, path):
                os.getxattr(served.root / path, "user.foreign")
    if not served.in_cloud:
        with refused(errno.ENODATA):
            os.getxattr(served.root / "table.csv", "user.foreign")
    with refused(errno.ENODATA):
        os.getxattr(served.root / "other.csv", "user.octue.labels")
    with refused(errno.ERANGE):
        _getxattr(served.root / "table.csv", b"user.octue.id", 5)


def _getxattr(path: Path, name: bytes, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getxattr(os.fsencode(path), name, ctypes.create_string_buffer(size), ctypes.c_size_t(size)) < 0:
        raise OSError(ctypes.get_errno(), "")


# --- nothing can be changed on a read-only mount ----------------------------------------------------------------------


def changes_of_a_file(file: Path) -> dict[str, Callable[[], object]]:
    """All that could change a file that is there."""
    return {
        "open for writing": lambda: os.open(file, os.O_WRONLY),
        "open for reading and writing": lambda: os.open(file, os.O_RDWR),
        "open to append": lambda: os.open(file, os.O_WRONLY | os.O_APPEND),
        "open to read and append": lambda: os.open(file, os.O_RDWR | os.O_APPEND),
        "open and truncate": lambda: os.open(file, os.O_WRONLY | os.O_TRUNC),
        "open to read and truncate": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "create over it": lambda: os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        "truncate": lambda: os.truncate(file, 3),
        "extend": lambda: os.truncate(file, 1 << 30),
        "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, f"{file}.new"),
        "chmod": lambda: os.chmod(file, 0o600),
        "chown": lambda: os.chown(file, os.getuid(), os.getgid()),
        "utimens": lambda: os.utime(file, ns=(1, 2)),
        "touch": lambda: os.utime(file),
        "set labels": lambda: os.setxattr(file, "user.octue.labels", b"changed"),
        "set a tag": lambda: os.setxattr(file, "user.octue.tags.cluster", b"3"),
        "set an attribute": lambda: os.setxattr(file, "user.foreign", b"x"),
        "remove labels": lambda: os.removexattr(file, "user.octue.labels"),
        "remove an attribute": lambda: os.removexattr(file, "user.foreign"),
        "fallocate": lambda: _fallocate(file),
        "link": lambda: os.link(file, f"{file}.link"),
    }


def _fallocate(file: Path) -> None:
    with opened(file, os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 10)


def changes_of_a_folder(folder: Path) -> dict[str, Callable[[], object]]:
    """All that could change a folder, or what is in it."""
    new = folder / "new"
    return {
        "create": lambda: os.open(new, os.O_WRONLY | os.O_CREAT, 0o644),
        "create anew": lambda: os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644),
        "create to read": lambda: os.open(new, os.O_RDONLY | os.O_CREAT, 0o644),
        "mkdir": lambda: new.mkdir(),
        "rmdir": lambda: folder.rmdir(),
        "symlink": lambda: new.symlink_to("table.csv"),
        "mkfifo": lambda: os.mkfifo(new),
        "mknod": lambda: os.mknod(new, stat.S_IFREG | 0o644),
        "rename": lambda: folder.rename(f"{folder}.new"),
        "chmod": lambda: folder.chmod(0o700),
        "chown": lambda: os.chown(folder, os.getuid(), os.getgid()),
        "utimens": lambda: os.utime(folder, ns=(1, 2)),
        "set an attribute": lambda: os.setxattr(folder, "user.octue.name", b"x"),
        "remove an attribute": lambda: os.removexattr(folder, "user.octue.name"),
    }


def assert_all_refused(changes: dict[str, Callable[[], object]]) -> None:
    for name, change in changes.items():
        with refused(errno.EROFS, name):
            change()


@pytest.mark.parametrize(
    "file",
    [
        *("table.csv", "inner/table.csv", ".octue", ".hash", ".hashes", ".octuefs/status", ".octuefs/errors"),
        *("by-label/a/table.csv", "by-tag/cluster/1/table.csv", "by-ext/csv/inner/table.csv", "by-label/a/.octue"),
        *("filter/size_bytes__gt=0/table.csv", "not/by-ext/_/table.csv", f"by-id/{id_of('table.csv')}"),
    ],
)
def test_no_call_changes_a_file(served_read_only: Served, file: str) -> None:
    before = served_read_only.source.state()
    assert_all_refused(changes_of_a_file(served_read_only.root / file))
    assert served_read_only.source.state() == before


@pytest.mark.parametrize(
    "folder",
    [
        *("inner", "inner/most", "by-label", "by-label/a", "by-label/a/inner", "by-tag/cluster", "by-tag/cluster/1"),
        *("by-ext/csv", "filter/size_bytes__gt=0", "order-by/name", "not/by-label/a", "by-id", ".octuefs"),
    ],
)
def test_no_call_changes_a_folder(served_read_only: Served, folder: str) -> None:
    before = served_read_only.source.state()
    assert_all_refused(changes_of_a_folder(served_read_only.root / folder))
    assert served_read_only.source.state() == before


def test_nothing_is_made_in_the_root_and_nothing_moves(served_read_only: Served) -> None:
    before = served_read_only.source.state()
    root = served_read_only.root
    changes = changes_of_a_folder(root)
    for of_the_root_itself in ("rmdir", "rename"):  # a mount point is busy, whatever is mounted there
        del changes[of_the_root_itself]
    assert_all_refused(changes)
    for source, target in (
        *(("table.csv", "other.csv"), ("table.csv", "inner/new.csv"), ("inner", "outer"), ("inner/most", "most")),
        *(
            ("by-label/a/table.csv", "by-label/b/table.csv"),
            ("by-label/a", "by-label/c"),
            ("table.csv", "by-label/a/new"),
        ),
    ):
        with refused(errno.EROFS, (source, target)):
            (root / source).rename(root / target)
    with refused(errno.EROFS):
        (root / "by-label" / "new").mkdir()
    assert served_read_only.source.state() == before


def test_room_is_not_allocated_and_no_shared_mapping_writes(served_read_only: Served) -> None:
    before = served_read_only.source.state()
    with opened(served_read_only.root / "table.csv") as fd:
        for change in (lambda: os.posix_fallocate(fd, 0, 10), lambda: os.write(fd, b"x")):
            with refused(errno.EBADF):
                change()
        with refused(errno.EINVAL):
            os.ftruncate(fd, 1)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        for change in (lambda: os.fchmod(fd, 0o600), lambda: os.utime(fd, ns=(1, 2))):
            with refused(errno.EROFS):
                change()
    assert served_read_only.source.state() == before


def test_what_is_impossible_anyway_says_why(served: Served, served_read_only: Served) -> None:
    for root in (served.root, served_read_only.root):
        with refused(errno.EEXIST):
            (root / "inner").mkdir()
        with refused(errno.EEXIST):
            os.open(root / "table.csv", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with refused(errno.ENOENT):
            os.truncate(root / "missing", 0)
    for change in (os.unlink, os.rmdir):  # which a kernel refuses before it looks, where the mount is read-only
        with refused(errno.ENOENT):
            change(served.root / "missing")


# --- two mounts ------------------------------------------------------------------------------------------------------


def test_two_mounts_of_one_source_show_the_same_at_once(served: Served, served_read_only: Served) -> None:
    with ThreadPoolExecutor(8) as threads:
        for one, two in zip(
            threads.map(lambda path: (served.root / path).read_bytes(), FILES),
            threads.map(lambda path: (served_read_only.root / path).read_bytes(), FILES),
            strict=True,
        ):
            assert one == two
    for path in FILES:
        assert (served.root / path).stat().st_ino == (served_read_only.root / path).stat().st_ino, path
    assert (served.root / ".hashes").read_bytes() == (served_read_only.root / ".hashes").read_bytes()
    assert (served.root / ".octue").read_bytes() == (served_read_only.root / ".octue").read_bytes()
    assert (served.root).stat().st_dev != (served_read_only.root).stat().st_dev


# --- what only a disk has --------------------------------------------------------------------------------------------


def test_a_sparse_file_is_read_with_its_holes(local: Served) -> None:
    path = local.root / "sparse"
    assert path.stat().st_blocks == (local.folder / "sparse").stat().st_blocks < 64 * MIB // 512
    with opened(path) as fd:
        assert os.pread(fd, 20, 32 * MIB) == b"\0\0\0\0\0an island\0\0\0\0\0\0"
        assert os.pread(fd, 100, 64 * MIB - 3) == b"\0\0\0"
    assert digest(path) == digest(local.folder / "sparse")


def test_links_fifos_and_sockets_are_shown_as_what_they_are(local: Served) -> None:
    for name, is_kind in {"fifo": stat.S_ISFIFO, "socket": stat.S_ISSOCK, "link": stat.S_ISLNK}.items():
        assert is_kind((local.root / name).lstat().st_mode), name
    links = [path for path in walk(local.folder) if os.path.islink(path)]
    assert len(links) == 7
    for link in links:
        place = os.path.join(os.fsencode(local.root), os.path.relpath(link, os.fsencode(local.folder)))
        assert os.readlink(place) == os.readlink(link)


def test_links_are_followed_inside_the_mount(local: Served) -> None:
    for link in ("link", "folder \udcfe/link up", "link to folder/link up"):
        assert (local.root / link).read_bytes() == b"what the links lead to", link
    assert sorted(os.listdir(local.root / "link to folder")) == sorted(os.listdir(local.folder / "folder \udcfe"))
    for link, number in {"dangling": errno.ENOENT, "circle": errno.ELOOP, "long": errno.ENAMETOOLONG}.items():
        with refused(number, link):
            os.stat(local.root / link)


def test_a_view_shows_a_link_to_a_file_as_that_file(local: Served) -> None:
    shown = local.root / "filter" / "name=link" / "link"
    assert stat.S_ISREG(shown.lstat().st_mode)
    assert shown.read_bytes() == b"what the links lead to"
    assert shown.stat().st_ino == (local.root / "target").stat().st_ino


# --- open files while the source changes -----------------------------------------------------------------------------


@pytest.fixture
def changing(new_source: SourceMaker) -> Iterator[Served]:
    """A local dataset that a test may change underneath."""
    files = {"file.bin": File(some_bytes(2 * MIB)), "other.bin": File(b"other")}
    with new_source("local") as source:
        source.fill(files)
        with mounted(source.url) as root:
            yield Served(root, source, files)


def test_an_open_file_is_read_to_its_end_after_the_source_file_was_removed(changing: Served) -> None:
    data = changing.files["file.bin"].data
    with opened(changing.root / "file.bin") as fd:
        assert os.read(fd, 1000) == data[:1000]
        (changing.folder / "file.bin").unlink()
        assert eventually(lambda: not (changing.root / "file.bin").exists())
        assert read_fully(fd, 1000, len(data)) == data[1000:]
    assert os.listdir(changing.root) == os.listdir(changing.folder)


# What libfuse 2 cannot do, for it knows files by path alone: each limit has its test, and stands in the README.


def test_an_open_file_that_was_removed_underneath_reads_on_and_but_for_libfuse_has_fstat(
    changing: Served, driver: str
) -> None:
    with opened(changing.root / "file.bin") as fd:
        (changing.folder / "file.bin").unlink()
        assert eventually(lambda: not (changing.root / "file.bin").exists())
        assert read_fully(fd, 0, 2 * MIB) == changing.files["file.bin"].data
        if driver == "libfuse":
            with pytest.raises(FileNotFoundError):
                os.fstat(fd)
        else:
            assert (os.fstat(fd).st_size, os.fstat(fd).st_nlink) == (2 * MIB, 0)


def test_a_shorter_replacement_never_mixes_into_an_open_file_and_over_libfuse_cuts_it_short(
    changing: Served, driver: str
) -> None:
    old, path = changing.files["file.bin"].data, changing.root / "file.bin"
    with opened(path) as fd:
        assert os.read(fd, 1000) == old[:1000]
        replace(changing, b"12345")
        rest = read_fully(fd, 1000, len(old))
        assert old[1000:].startswith(rest) if driver == "libfuse" else rest == old[1000:]
    assert path.read_bytes() == b"12345"


@pytest.mark.parametrize("new_size", [2 * MIB, 3 * MIB], ids=["as long", "longer"])
def test_an_open_file_keeps_its_content_after_the_source_file_was_replaced(changing: Served, new_size: int) -> None:
    old, new = changing.files["file.bin"].data, some_bytes(new_size, seed=9)
    with opened(changing.root / "file.bin") as fd:
        assert os.read(fd, 1000) == old[:1000]
        replace(changing, new)
        assert read_fully(fd, 1000, len(old)) == old[1000:]
    assert (changing.root / "file.bin").read_bytes() == new


def replace(changing: Served, new: bytes, mtime_ns: int | None = None) -> None:
    """Put another file in the place of `file.bin`, and wait until the mount shows that."""
    path = changing.folder.parent / "new"
    path.write_bytes(new)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    path.rename(changing.folder / "file.bin")
    inode = (changing.folder / "file.bin").stat().st_ino
    assert eventually(lambda: (changing.root / "file.bin").stat().st_ino == inode)


def test_a_file_opened_after_a_replacement_is_new_though_another_still_reads_the_old(changing: Served) -> None:
    old, new, path = changing.files["file.bin"].data, some_bytes(2 * MIB, seed=9), changing.root / "file.bin"
    with opened(path) as fd:
        assert os.read(fd, MIB) == old[:MIB]
        replace(changing, new)
        with opened(path) as newer:
            assert os.pread(newer, 100, 0) == new[:100]
            assert read_fully(fd, MIB, MIB) == old[MIB:]
            assert read_fully(fd, 0, 2 * MIB) == old
            assert read_fully(newer, 0, 2 * MIB) == new
        assert path.read_bytes() == new
    assert path.read_bytes() == new


def test_a_replacement_of_the_same_size_and_time_is_seen_at_the_next_open(changing: Served) -> None:
    new, path = some_bytes(2 * MIB, seed=9), changing.root / "file.bin"
    assert path.read_bytes() == changing.files["file.bin"].data
    replace(changing, new, path.stat().st_mtime_ns)
    assert path.read_bytes() == new
    assert path.read_bytes() == new


def test_an_opened_file_has_the_new_content_after_the_source_file_was_changed(changing: Served) -> None:
    for seed in range(3):
        data = some_bytes(MIB + seed, seed)
        (changing.folder / "file.bin").write_bytes(data)
        assert eventually(lambda data=data: (changing.root / "file.bin").stat().st_size == len(data))  # type: ignore[misc]
        assert (changing.root / "file.bin").read_bytes() == data


def test_the_control_panel_says_what_is_mounted(served: Served) -> None:
    status = json.loads((served.root / ".octuefs" / "status").read_text())
    assert status["source"] == served.source.url
    assert status["counts"]["files"] == len(FILES)
    assert status["counts"]["bytes"] == sum(len(file.data) for file in FILES.values())
