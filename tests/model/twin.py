"""A folder of a mount and a plain folder, to which the same is done: they must answer alike and look alike.

What a plain folder does not know (labels, tags, timestamps, views) is told by `Metadata`.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.metadata import NOTHING, Metadata, Record, join, name, new_id, parent
from model.mounts import get
from model.worlds import World

from support.mounting import current_driver

SETTLES_SECONDS = 6.0
"""What others change shows within a second (DESIGN 3.3); the rest is for a machine that is busy."""
KERNEL_SECONDS = 0.6
"""As long the kernel may know a name that went by another way (a view, another machine)."""
EARLIEST_NOW = 1_600_000_000.0
"""Times of files that were set by a test are before this."""

FILE_MODE = 0o644


class Differs(AssertionError):
    """The mount is not what it should be."""


@dataclass
class Handle:
    """A file that is open in both folders."""

    number: int
    plain: int
    mounted: int
    flags: int

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def inode(self) -> int:
        return os.fstat(self.plain).st_ino


def outcome(act: Callable[[], Any]) -> Any:
    """What a call returned, or the name of its errno."""
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, error)


class Twin:
    """One example: `top` is the name of its folder in the dataset."""

    def __init__(self, world: World, plain: Path, top: str) -> None:
        self.world = world
        self.top = top
        self.plain = plain
        self.mounted = world.mount.point / top
        self.metadata = Metadata(self._mounted_record)
        self.handles: list[Handle] = []
        self.history: list[str] = []
        """What was done, in words."""
        self._handle_number = 0
        self.consistent = True
        """False from the moment in which something was found to differ, or is under way."""
        plain.mkdir()
        self.mounted.mkdir()

    # --- what there is

    def files(self) -> list[str]:
        return sorted(self.metadata.files)

    def folders(self) -> list[str]:
        """All folders, the top ("") included."""
        return sorted(os.path.relpath(path, self.plain).lstrip(".") for path, _, _ in os.walk(self.plain))

    # --- doing the same to both

    def both(self, what: str, act: Callable[[Path], Any]) -> Any:
        """Do something in both folders, and return what came of it."""
        self._begin(what)
        expected = outcome(lambda: act(self.plain))
        found = outcome(lambda: act(self.mounted))
        self._same(what, expected, found)
        return expected

    def through(self, what: str, handle: Handle, act: Callable[[int], Any]) -> Any:
        """Do something with both descriptors of a handle."""
        self._begin(f"{what} (handle {handle.number})")
        expected = outcome(lambda: act(handle.plain))
        found = outcome(lambda: act(handle.mounted))
        self._same(what, expected, found)
        return expected

    def only_mounted(self, what: str, expected: Any, act: Callable[[Path], Any]) -> Any:
        """Do something in the mount that a plain folder does not know."""
        self._begin(what)
        found = outcome(lambda: act(self.mounted))
        self._same(what, expected, found)
        return found

    def _begin(self, what: str) -> None:
        self.consistent = False
        self.history.append(what)

    def _same(self, what: str, expected: Any, found: Any) -> None:
        if isinstance(expected, str):
            self.history[-1] += f" -> {expected}"
        if expected != found:
            raise Differs(f"{what}: {_short(found)} instead of {_short(expected)}; errors: {self._errors()}")

    def _errors(self) -> str:
        return outcome(lambda: self.world.mount.errors()[-1500:])

    def is_file(self, path: str) -> bool:
        return (self.plain / path).is_file()

    def is_folder(self, path: str) -> bool:
        return (self.plain / path).is_dir()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.plain / path)

    def is_open(self, path: str) -> bool:
        if not self.is_file(path):
            return False
        inode = (self.plain / path).stat().st_ino
        return any(handle.inode == inode for handle in self.handles)

    # --- files

    def open(self, path: str, flags: int, mode: int = FILE_MODE) -> Handle | None:
        """Open in both folders; None where that fails alike."""
        existed = self.exists(path)
        plain: list[int] = []

        def act(root: Path) -> str:
            descriptor = os.open(root / path, flags, mode)
            plain.append(descriptor)
            return "open"

        try:
            result = self.both(f"open {path} {_flag_names(flags)}", act)
        except Differs:
            for descriptor in plain:
                os.close(descriptor)
            raise
        if result != "open":
            return None
        if not existed:
            self.metadata.made(path)
        self._handle_number += 1
        self.history[-1] += f" -> handle {self._handle_number}"
        return Handle(self._handle_number, plain[0], plain[1], flags)

    def keep(self, handle: Handle) -> None:
        self.handles.append(handle)

    def close(self, handle: Handle) -> None:
        """close(2) of both, which succeeds."""
        if handle in self.handles:
            self.handles.remove(handle)
        self.through("close", handle, os.close)

    def close_all(self) -> None:
        for handle in list(self.handles):
            self.close(handle)

    def write_file(self, path: str, flags: int, offset: int, data: bytes, mode: int, *, keep: bool) -> None:
        """Open, write, and close or keep open."""
        handle = self.open(path, flags, mode)
        if handle is None:
            return
        if handle.writes:
            self.write(handle, offset, data)
        if keep and len(self.handles) < 4:
            self.keep(handle)
        else:
            self.close(handle)

    def write(self, handle: Handle, offset: int, data: bytes) -> None:
        if handle.flags & os.O_APPEND:
            self.through(f"append {len(data)}", handle, lambda descriptor: os.write(descriptor, data))
        else:
            self.through(
                f"write {len(data)} at {offset}", handle, lambda descriptor: os.pwrite(descriptor, data, offset)
            )

    def make_folder(self, path: str, mode: int) -> None:
        self.both(f"mkdir {path}", lambda root: os.mkdir(root / path, mode))

    def unlink(self, path: str) -> None:
        if self.both(f"unlink {path}", lambda root: os.unlink(root / path)) is None:
            self.metadata.removed(path)

    def rename(self, old: str, new: str) -> None:
        if self.is_folder(old) and self.is_folder(new) and old != new and self._waits_in(new):
            empty = not any((self.plain / new).iterdir())
            if empty and not new.startswith(f"{old}/"):
                self.only_mounted(
                    f"rename {old} over {new}, whose .octue waits for files",
                    "ENOTEMPTY",
                    lambda root: os.rename(root / old, root / new),
                )
                return
        is_folder = self.is_folder(old)
        if self.both(f"rename {old} to {new}", lambda root: os.rename(root / old, root / new)) is None and old != new:
            if is_folder:
                self.metadata.folder_renamed(old, new)
            else:
                self.metadata.renamed(old, new)

    def rmdir(self, path: str) -> None:
        if self.is_folder(path) and not any((self.plain / path).iterdir()) and self._waits_in(path):
            self.only_mounted(
                f"rmdir {path}, whose .octue waits for files", "ENOTEMPTY", lambda root: os.rmdir(root / path)
            )
            return
        self.both(f"rmdir {path}", lambda root: os.rmdir(root / path))

    def _waits_in(self, folder: str) -> bool:
        return any(parent(path) == folder for path in self.metadata.waiting)

    # --- metadata

    def set_xattr(self, path: str, attribute: str, text: str, changed: Callable[[Record], Record] | None) -> None:
        """setfattr; `changed` says what it means, None where the value is a bad one."""
        known = self.metadata.files.get(path)
        if known is None:
            expected = "EPERM" if self.is_folder(path) else self._missing(path)
        else:
            expected = None if changed is not None else "EINVAL"
        self.only_mounted(
            f"setfattr {attribute}={text} {path}",
            expected,
            lambda root: os.setxattr(root / path, f"user.octue.{attribute}", text.encode()),
        )
        if known is not None and changed is not None:
            self.metadata.files[path] = changed(known)

    def remove_xattr(self, path: str, field: str) -> None:
        known = self.metadata.files.get(path)
        if known is None:
            expected: Any = "EPERM" if self.is_folder(path) else self._missing(path)
        else:
            expected = None if getattr(known, field) else "ENODATA"
        self.only_mounted(
            f"setfattr -x {field} {path}",
            expected,
            lambda root: os.removexattr(root / path, f"user.octue.{field}"),
        )
        if known is not None:
            self.metadata.files[path] = replace(known, **{field: getattr(NOTHING, field)})

    def _missing(self, path: str) -> Any:
        """How the plain folder says that nothing is there."""
        return outcome(lambda: os.lstat(self.plain / path))

    def write_document(self, folder: str, records: Mapping[str, Record], *, by_rename: bool = False) -> None:
        """Write a folder's `.octue` through the mount."""
        text = json.dumps({"datafiles": {name: record.stored() for name, record in records.items()}})
        if not self.is_folder(folder):
            return

        def act(root: Path) -> None:
            if by_rename:
                (root / folder / "new").write_text(text)
                os.rename(root / folder / "new", root / folder / ".octue")
            else:
                (root / folder / ".octue").write_text(text)

        what = f"write {folder}/.octue { ({name: it.facts for name, it in records.items()}) }"
        self.only_mounted(what, None, act)
        self.metadata.document_written(folder, records)

    def remove_document(self, folder: str) -> None:
        """Remove a folder's `.octue` through the mount, where there is one."""
        if self.is_folder(folder) and self.metadata.in_folder(folder):
            self.only_mounted(f"unlink {folder}/.octue", None, lambda root: os.unlink(root / folder / ".octue"))
            self.metadata.document_written(folder, {})

    # --- views

    def labelled(self, folder: str, label: str) -> list[str]:
        """The files below a folder that have a label, relative to it."""
        start = f"{folder}/" if folder else ""
        return [
            path.removeprefix(start)
            for path, record in self.metadata.files.items()
            if path.startswith(start) and label in record.labels
        ]

    def _shows_folder(self, folder: str, label: str, place: str) -> bool:
        """Say whether a folder shows in a view."""
        members = self.labelled(folder, label)
        return bool(members) and (not place or any(member.startswith(f"{place}/") for member in members))

    def _stands(self, folder: str, label: str, path: str) -> str:
        """How the kernel sees a path of a view: "file", "folder", "nothing", or the errno on the way there."""
        members = self.labelled(folder, label)
        if not self.is_folder(folder) or not members:
            return str(outcome(lambda: os.lstat(self.plain / folder / "by-label")))
        above = parent(path)
        while above:
            if above in members:
                return "ENOTDIR"
            above = parent(above)
        if not self._shows_folder(folder, label, parent(path)):
            return "ENOENT"
        if path in members:
            return "file"
        return "folder" if self._shows_folder(folder, label, path) else "nothing"

    def forget_names(self) -> None:
        """Let the kernel forget names that went by another way, and the mount view folders that became empty."""
        self.world.mount.refresh()
        time.sleep(KERNEL_SECONDS)

    def write_in_view(self, folder: str, label: str, path: str, data: bytes) -> None:
        """Write a file by its name in `by-label/<label>/`."""
        real = join(folder, path)
        stands = self._stands(folder, label, path)
        if stands == "file":
            expected: Any = len(data)
        elif stands == "folder":
            expected = "EISDIR"
        elif stands == "nothing":
            expected = "EEXIST" if self.exists(real) else len(data)
        else:
            expected = stands
        before = self.exists(real)
        self.forget_names()
        self.only_mounted(
            f"write {real} in by-label/{label}",
            expected,
            lambda root: (root / folder / "by-label" / label / path).write_bytes(data),
        )
        if expected == len(data):
            (self.plain / real).write_bytes(data)
            if not before:
                self.metadata.made(real)
                self._relabel(real, lambda labels: labels | {label})
        self.settle_views()

    def remove_in_view(self, folder: str, label: str, path: str) -> None:
        """`rm by-label/<label>/f`: takes the label away, and never the data."""
        real = join(folder, path)
        stands = self._stands(folder, label, path)
        expected = {"file": None, "folder": "EISDIR", "nothing": "ENOENT"}.get(stands, stands)
        self.forget_names()
        self.only_mounted(
            f"rm {real} in by-label/{label}",
            expected,
            lambda root: os.unlink(root / folder / "by-label" / label / path),
        )
        if expected is None:
            self._relabel(real, lambda labels: labels - {label})
        self.settle_views()

    def move_in_view(self, folder: str, label: str, path: str, other: str, new: str) -> None:
        """`mv by-label/<label>/f by-label/<other>/g`."""
        real, real_new = join(folder, path), join(folder, new)
        stands, target = self._stands(folder, label, path), self._stands(folder, other, new)
        if stands != "file" or target not in ("file", "nothing"):
            return  # of the many errnos that could come first, none is promised
        hidden = target == "nothing" and self.exists(real_new) and real_new != real
        self.forget_names()
        self.only_mounted(
            f"mv {real} from by-label/{label} to {real_new} in by-label/{other}",
            "EEXIST" if hidden else None,
            lambda root: os.rename(root / folder / "by-label" / label / path, root / folder / "by-label" / other / new),
        )
        if hidden:
            return
        if real != real_new:
            os.rename(self.plain / real, self.plain / real_new)
            self.metadata.renamed(real, real_new)
        if real == real_new and target == "file" and current_driver() != "libfuse":
            return  # one file to the kernel, which changes nothing then (rename(2)); over libfuse they are two
        lost = {label} if label != other else set()
        self._relabel(real_new, lambda labels: (labels - lost) | {other})
        self.settle_views()

    def label_by_view(self, folder: str, label: str, path: str, *, by_link: bool) -> None:
        """`mv` or `ln` of a file to its own place in `by-label/<label>/`."""
        real = join(folder, path)
        if not self.is_file(real) or self._stands(folder, label, path) != "nothing":
            return
        call = os.link if by_link else os.rename
        self.forget_names()
        self.only_mounted(
            f"{call.__name__} {real} into by-label/{label}",
            None,
            lambda root: call(root / real, root / folder / "by-label" / label / path),
        )
        self._relabel(real, lambda labels: labels | {label})
        self.settle_views()

    def _relabel(self, path: str, change: Callable[[frozenset[str]], Any]) -> None:
        record = self.metadata.files[path]
        self.metadata.files[path] = replace(record, labels=frozenset(change(record.labels)))

    # --- others

    def sync(self) -> None:
        """fsync of all folders: metadata are in the store."""
        for folder in [self.mounted, *(path for path in self.mounted.rglob("*") if path.is_dir())]:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def put_underneath(self, path: str, data: bytes, record: Record) -> None:
        """Another program stores a file."""
        if not self.is_folder(parent(path)) or self.is_folder(path) or (self.world.in_cloud and self.is_open(path)):
            return
        record = replace(record, id=new_id())
        self._begin(f"underneath: put {path} ({len(data)} bytes, {record.facts})")
        self.sync()
        self.world.put(join(self.top, path), data, record)
        new = self.plain.with_suffix(".new")
        new.write_bytes(data)
        new.chmod(FILE_MODE)
        new.replace(self.plain / path)
        if self.world.in_cloud:
            self.metadata.waiting.pop(path, None)  # what an object says of itself counts
            self.metadata.files[path] = record
        else:
            self.metadata.came_underneath(path)
        self.settle()

    def remove_underneath(self, path: str) -> None:
        """Another program removes a file."""
        if not self.is_file(path) or (self.world.in_cloud and self.is_open(path)):
            return
        if self.metadata.files[path].id and not self.metadata.files[path].says_something:
            return  # whether a record with nothing in it is kept is nobody's business
        self._begin(f"underneath: remove {path}")
        self.sync()
        self.world.remove(join(self.top, path))
        (self.plain / path).unlink()
        if self.world.in_cloud:
            del self.metadata.files[path]
        else:
            self.metadata.left_underneath(path)
        self.settle()

    def make_folder_underneath(self, path: str) -> None:
        if not self.is_folder(parent(path)) or self.exists(path):
            return
        self._begin(f"underneath: mkdir {path}")
        self.world.make_folder(join(self.top, path))
        (self.plain / path).mkdir()
        (self.plain / path).chmod(0o755)
        self.settle()

    def describe_underneath(self, folder: str, records: Mapping[str, Record]) -> None:
        """Another program writes metadata: of all files of a folder on a disk, of those named in the cloud."""
        if not self.is_folder(folder):
            return
        records = {basename: replace(record, id=new_id()) for basename, record in records.items()}
        self._begin(f"underneath: describe {folder} { ({name: it.facts for name, it in records.items()}) }")
        self.sync()
        if self.world.in_cloud:
            files = {
                basename: record
                for basename, record in records.items()
                if self.is_file(join(folder, basename)) and not self.is_open(join(folder, basename))
            }
            self.world.describe(join(self.top, folder), files)
            for basename, record in files.items():
                self.metadata.files[join(folder, basename)] = record
        else:
            self.world.describe(join(self.top, folder), records)
            self.metadata.document_written(folder, records, stored_ids_win=False)
        self.settle()

    def overtake(self, path: str, ours: bytes, theirs: bytes) -> None:
        """In the cloud: another stores a version while ours is being written. Theirs stays, ours is kept."""
        if not self.is_file(path) or self.is_open(path):
            return
        self._begin(f"overtaken: {path}")
        kept = sum(data == ours for data in self.world.mount.recovered_of(name(path)))
        descriptor = os.open(self.mounted / path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, ours)
        record = self.metadata.files[path]
        self.world.put(join(self.top, path), theirs, record)
        found = outcome(lambda: os.close(descriptor))
        if found != "ESTALE":
            raise Differs(f"close of {path}, which another stored meanwhile: {found} instead of ESTALE")
        if sum(data == ours for data in self.world.mount.recovered_of(name(path))) != kept + 1:
            raise Differs(f"{path}: what could not be stored is not in recovered/")
        (self.plain / path).write_bytes(theirs)
        (self.plain / path).chmod(FILE_MODE)
        self.settle()

    def settle(self) -> None:
        """Wait until the mount shows what others did."""
        if self.world.in_cloud:
            self.world.mount.refresh()
        self.settle_views()

    def settle_views(self) -> None:
        """Wait until what was done by a view shows everywhere."""
        deadline = time.monotonic() + SETTLES_SECONDS
        while True:
            try:
                self.compare()
                return
            except (Differs, OSError) as error:
                if time.monotonic() > deadline:
                    raise Differs(f"what was done by another way does not show: {error}") from error
            time.sleep(0.05)

    # --- comparing

    def compare(self) -> None:
        """Everything in the mount is as it should be."""
        self.consistent = False
        expected, found = self._looks(self.plain), self._looks(self.mounted)
        for path in sorted(expected.keys() | found.keys()):
            if expected.get(path) != found.get(path):
                raise Differs(f"{path} is {_short(found.get(path))} instead of {_short(expected.get(path))}")
        for path, record in self.metadata.files.items():
            self._compare_record(path, record)
        for folder in ["", *(path for path in expected if expected[path]["type"] == "folder")]:
            self._compare_document(folder)
        for label in ("x", "y"):
            self._compare_view(label)
        self.consistent = True

    def _looks(self, root: Path) -> dict[str, dict[str, Any]]:
        found = {}
        for path in _walk(root):
            at = os.lstat(path)
            place = os.path.relpath(path, root)
            mode = stat.S_IMODE(at.st_mode)
            if stat.S_ISDIR(at.st_mode):
                found[place] = {"type": "folder", "mode": mode}
                continue
            when = at.st_mtime if at.st_mtime < EARLIEST_NOW else "now"
            data = Path(path).read_bytes()
            found[place] = {"type": "file", "mode": mode, "size": at.st_size, "mtime": when, "data": data}
        return found

    def _mounted_record(self, path: str) -> Record:
        place = self.mounted / path
        labels, tags = get(place, "labels"), get(place, "tags")
        return Record(
            frozenset((labels or "").split()),
            json.loads(tags) if tags else {},
            get(place, "timestamp"),
            get(place, "id"),
        )

    def _compare_record(self, path: str, record: Record) -> None:
        found = self._mounted_record(path)
        if found.facts != record.facts:
            raise Differs(f"metadata of {path} are {found.facts} instead of {record.facts}")
        if record.id is not None and found.id != record.id:
            raise Differs(f"the ID of {path} is {found.id} instead of {record.id}")
        if record.id is None and record.says_something:
            # Given when something was stored first; from now on it stays.
            self.metadata.files[path] = replace(record, id=found.id)

    def _compare_document(self, folder: str) -> None:
        document = self.mounted / folder / ".octue"
        expected = {name: record.facts for name, record in self.metadata.in_folder(folder).items()}
        found = {}
        if ".octue" in os.listdir(self.mounted / folder):
            found = {
                name: Record.read(it) for name, it in json.loads(document.read_text()).get("datafiles", {}).items()
            }
        facts = {name: record.facts for name, record in found.items() if record.says_something}
        if facts != expected:
            raise Differs(f"{folder or '.'}/.octue says {facts} instead of {expected}")

    def _compare_view(self, label: str) -> None:
        view = self.mounted / "by-label" / label
        expected = sorted(self.labelled("", label))
        found = []
        if label in os.listdir(self.mounted / "by-label"):
            found = sorted(
                os.path.relpath(os.path.join(folder, name), view)
                for folder, _, names in os.walk(view)
                for name in names
                if name != ".octue"
            )
        if found != expected:
            raise Differs(f"by-label/{label} shows {found} instead of {expected}")

    def compare_store(self) -> None:
        """Everything in the store itself is as it should be; nothing is open, nothing pending."""
        entries, records = self.world.stored(self.top)
        expected = {place: looks.get("data") for place, looks in self._looks(self.plain).items()}
        for path in sorted(expected.keys() | entries.keys()):
            if path not in entries or path not in expected or entries[path] != expected[path]:
                raise Differs(
                    f"in the store {path} is {_short(entries.get(path))} instead of {_short(expected.get(path))}"
                )
        wanted = {path: it.facts for path, it in self.metadata.files.items() if it.says_something}
        if not self.world.in_cloud:  # there they stand in the journal
            wanted.update({path: it.facts for path, it in self.metadata.waiting.items() if it.says_something})
        found = {path: it.facts for path, it in records.items() if it.says_something}
        if found != wanted:
            raise Differs(f"metadata in the store are {found} instead of {wanted}")
        for path, record in self.metadata.files.items():
            if record.id is not None and record.says_something and records[path].id != record.id:
                raise Differs(f"in the store the ID of {path} is {records[path].id} instead of {record.id}")


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for each in folders:
            yield os.path.join(folder, each)
        for each in files:
            if each != ".octue":
                yield os.path.join(folder, each)


def _flag_names(flags: int) -> str:
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR")[flags & os.O_ACCMODE]
    others = [name for name in ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND") if flags & getattr(os, name)]
    return "|".join([access, *others])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]} ... {text[-150:]} ({len(text)} characters)"
