"""The system calls, driver-neutral: what a driver has decoded comes in, node calls go down, values come up.

Named after the calls. Every failure leaves as an exception that `errors.to_errno` knows. Safe from any
number of threads. What a change means is for the node of the directory or file to say; a read-only mount refuses all
but writing to a control file.
"""

import errno
import os
import stat
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from octuefs.errors import (
    BadValue,
    ChecksumMismatch,
    Conflict,
    HiddenHere,
    LocalFailure,
    NoAttribute,
    NotFound,
    NotPermitted,
    PermissionRefused,
    ReadOnly,
    StoreUnavailable,
    TimedOut,
    TooBig,
    Unsupported,
)
from octuefs.handles import BadHandle, ControlHandle, DirectoryHandle, HandleTable, ReadHandle, Synced, WriteHandle
from octuefs.report import Report, printable
from octuefs.stores.base import ByteSource, Space, as_disk
from octuefs.stores.writing import Times, privileges_in
from octuefs.tree.namespace import MountedTree
from octuefs.tree.node import Attributes, DirectoryEntry, Node
from octuefs.writing.base import Caller, DiskOpenFile, OpenFile, Unnamed

_FAILURES = (ChecksumMismatch, Conflict, LocalFailure, PermissionRefused, StoreUnavailable, TimedOut)
_REFUSALS = (BadValue, HiddenHere, NotPermitted, ReadOnly, TooBig)
"""What a program is told by a bare errno, and a person wants the reason of."""

_QUESTIONS = frozenset({"lookup", "getattr", "getxattr", "listxattr", "readlink", "opendir", "readdir", "readdirplus"})

IO_BYTES = 128 << 10
"""The size of blocks that programs are told to read in (st_blksize, f_bsize)."""


class Opened(NamedTuple):
    """A file just opened: its handle, whether the kernel must not cache its bytes, its inode, links and version."""

    handle: int
    direct: bool
    inode: int = 0
    links: int = 1
    version: Hashable = None


class Operations:
    """What a mount answers."""

    def __init__(self, tree: MountedTree, report: Report) -> None:
        self._tree = tree
        self._report = report
        self._files: HandleTable[ReadHandle | WriteHandle | ControlHandle] = HandleTable()
        self._directories: HandleTable[DirectoryHandle] = HandleTable()

    @property
    def root(self) -> Node:
        """The node of the mount's root."""
        return self._tree.root

    def version(self, path: str) -> int:
        """Return a number that changes when a path of the mount may lead to another node than before.

        What is known of the datasets that it leads into is brought up to date first, where its time has come.
        """
        return self._tree.version(path)

    def version_at_once(self, path: str) -> int | None:
        """Return `version(path)`, or None where that would wait."""
        return self._tree.version_at_once(path)

    def lasting(self, path: str) -> float:
        """Return for how many seconds what is told of a path counts where nobody says otherwise; 0 for not at all."""
        return self._tree.lasting(path)

    def observe(self, callback: Callable[[str], object]) -> None:
        """Have `callback` told of each change from now on, by its path in the mount; see `MountedTree.observe`."""
        self._tree.observe(callback)

    def note_failure(self, call: str, subject: Callable[[], str], error: Exception) -> None:
        """Say in the report what failed or was refused, and why; a plain "no" is no failure.

        `subject` finds out the path that the call was about, where it is needed.
        """
        if isinstance(error, _FAILURES) or (isinstance(error, _REFUSALS) and call not in _QUESTIONS):
            self._report.failure(f"{call} {printable(subject())}: {error}")

    # --- names and attributes

    def lookup(self, parent: Node, name: str) -> Node:
        """Return the node of a name in a directory.

        :raise NotFound: where there is none
        """
        return parent.lookup(name)

    def getattr(self, node: Node) -> Attributes:
        """Return what stat(2) tells."""
        return node.attributes()

    def readlink(self, node: Node) -> str:
        """Return where a symbolic link points."""
        return node.read_link()

    def check_xattr(self, name: str) -> None:
        """Refuse, before the node is known, to give an extended attribute that nothing here can have.

        The kernel asks for `security.capability` before each write.

        :raise NoAttribute: for `security.*`
        :raise Unsupported: for `system.*`
        """
        if name.startswith("security."):
            raise NoAttribute(f"{name} is not set")
        if name.startswith("system."):
            raise Unsupported(f"{name}: attributes of this name cannot be kept here")

    def getxattr(self, node: Node, name: str) -> bytes:
        """Return the value of an extended attribute that `check_xattr` has let pass."""
        return node.get_xattr(name)

    def listxattr(self, node: Node) -> list[str]:
        """Return the names of the extended attributes that are set and can be copied."""
        return node.list_xattrs()

    def statfs(self, path: str) -> Space:
        """Return how much room there is for what is written at a path."""
        return self._tree.space(path)

    # --- directories

    def opendir(self, node: Node) -> int:
        """Open a directory, which is listed when it is read.

        :raise OctuefsError: where it cannot be listed
        """
        node.check_listable()
        return self._directories.add(DirectoryHandle(node))

    def readdir(self, handle: int, *, anew: bool = False) -> Sequence[DirectoryEntry]:
        """Return the entries of an open directory, without "." and "..".

        They are those of the first call and keep their positions, until it is listed `anew` (rewinddir(3)).

        :raise OctuefsError: where it cannot be listed
        """
        return self._directories.get(handle).entries(anew=anew)

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._directories.pop(handle)

    # --- files

    def open(self, node: Node, flags: int) -> Opened:
        """Open a file; `flags` as for open(2).

        :raise ReadOnly: for writing, where the dataset is only read
        """
        if flags & os.O_ACCMODE == os.O_RDONLY:
            if not flags & os.O_TRUNC:
                return self._opened(ReadHandle(node, node.open()))
            flags |= os.O_RDWR  # the kernel lets the program read alone, and empties the file as it may be written
        if node.control is not None:
            return Opened(self._files.add(ControlHandle(node)), direct=True)
        node.check_writable()
        return self._opened(WriteHandle(node, node.open_writable(flags)))

    def _opened(self, handle: ReadHandle | WriteHandle) -> Opened:
        info = handle.source.info()
        number = self._files.add(handle)
        if info is None:
            return Opened(number, handle.node.volatile)
        return Opened(number, handle.node.volatile, info.inode, info.links, info.version)

    def create(self, parent: Node, name: str, flags: int, mode: int, caller: Caller) -> Opened:
        """Make a file in a directory and open it, as open(2) with O_CREAT."""
        parent.check_writable()
        source = parent.create(name, flags, mode, caller)
        try:
            node = parent.lookup(name)
        except BaseException:
            source.close()
            raise
        return self._opened(WriteHandle(node, source))

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        opened = self._files.get(handle)
        if isinstance(opened, ControlHandle):
            raise BadHandle(f"handle {handle} is not open for reading")
        return opened.source.read(offset, size)

    def write(self, handle: int, offset: int, data: bytes) -> int:
        """Take bytes for a file, or for a control file, and return their number."""
        opened = self._files.get(handle)
        if isinstance(opened, ControlHandle) and opened.node.control is not None:
            opened.node.control(data)
            return len(data)
        return self._writable(handle).write(offset, data)

    def truncate(self, node: Node, length: int) -> None:
        """truncate(2); nothing happens to a control file, as `echo > file` truncates first."""
        if node.control is None:
            node.check_writable()
            node.truncate(length)

    def ftruncate(self, handle: int, length: int) -> None:
        """ftruncate(2)."""
        if not isinstance(self._files.get(handle), ControlHandle):
            self._writable(handle).truncate(length)

    def fallocate(self, handle: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        self._writable(handle).allocate(mode, offset, length)

    def flush(self, handle: int) -> None:
        """close(2) of one descriptor: what was written is in the store, or the call fails."""
        opened = self._files.get(handle)
        if isinstance(opened, WriteHandle):
            opened.source.flush()

    def fsync(self, handle: int, *, data_only: bool) -> None:
        """fsync(2) and fdatasync(2), on a file open for reading too (`sync FILE`): what others wrote is durable."""
        opened = self._files.get(handle)
        if not isinstance(opened, ControlHandle) and isinstance(opened.source, Synced):
            opened.source.sync(data_only=data_only)
        if not isinstance(opened, WriteHandle):
            opened.node.sync()

    def fsyncdir(self, handle: int) -> None:
        """fsync(2) of a directory."""
        self._directories.get(handle).node.sync()

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        """Return where data begin (SEEK_DATA) or a hole (SEEK_HOLE), from `offset` on; see lseek(2).

        Where no disk has the file it is all data.

        :raise OSError: ENXIO where `offset` is beyond the end; EINVAL for another `whence`
        """
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise BadValue(f"lseek with whence {whence} is the kernel's own")
        source = as_disk(self.source_of(handle))
        if source is not None:
            with source.lend() as fd:
                try:
                    return os.lseek(fd, offset, whence)
                except OSError as error:
                    failure = error
            raise failure  # out here it stays what it is: no failure of the disk
        size = self.fgetattr(handle).size
        if not 0 <= offset < size:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return offset if whence == os.SEEK_DATA else size

    def copy_file_range(self, handle: int, offset: int, to_handle: int, to_offset: int, length: int) -> int:
        """copy_file_range(2) between files of a disk; return how many bytes are copied.

        :raise Unsupported: for others, which are to be read and written instead
        """
        source, target = as_disk(self.source_of(handle)), self._writable(to_handle)
        if source is None or not isinstance(target, DiskOpenFile):
            raise Unsupported("only files of a disk are copied by the system; read and write instead")
        return target.copy_from(source, offset, to_offset, length)

    def source_of(self, handle: int) -> ByteSource | None:
        """Return what a handle reads and writes, None for a control file's."""
        opened = self._files.get(handle)
        return None if isinstance(opened, ControlHandle) else opened.source

    def node_of(self, handle: int) -> Node:
        """Return the node that a file was opened by."""
        return self._files.get(handle).node

    def is_writer(self, handle: int) -> bool:
        """Say whether a handle was opened for writing, be it to a control file."""
        return not isinstance(self._files.get(handle), ReadHandle)

    def _writable(self, handle: int) -> OpenFile:
        opened = self._files.get(handle)
        if not isinstance(opened, WriteHandle):
            raise BadHandle(f"handle {handle} is not open for writing")
        return opened.source

    def fgetattr(self, handle: int) -> Attributes:
        """Return what fstat(2) tells of an open file, whether it still has a name or not."""
        opened = self._files.get(handle)
        info = None if isinstance(opened, ControlHandle) else opened.source.info()
        return opened.node.attributes() if info is None else Attributes.of(info)

    def version_of(self, handle: int) -> Hashable:
        """Return the version of an open file, as it stands now."""
        opened = self._files.get(handle)
        return None if isinstance(opened, ControlHandle) else opened.source.version()

    def identity_of(self, handle: int) -> Hashable:
        """Return which file is open."""
        opened = self._files.get(handle)
        return None if isinstance(opened, ControlHandle) else opened.source.identity()

    def release(self, handle: int) -> None:
        """Close a file."""
        opened = self._files.pop(handle)
        if not isinstance(opened, ControlHandle):
            opened.source.close()

    # --- changes

    def mkdir(self, parent: Node, name: str, mode: int, caller: Caller) -> None:
        """mkdir(2)."""
        parent.check_writable()
        parent.make_folder(name, mode, caller)

    def mknod(self, parent: Node, name: str, mode: int, device: int, caller: Caller) -> None:
        """mknod(2)."""
        parent.check_writable()
        if not stat.S_ISREG(mode):
            parent.make_special(name, mode, device, caller)
            return
        source = parent.create(name, os.O_WRONLY | os.O_EXCL, stat.S_IMODE(mode), caller)
        try:
            source.flush()
        finally:
            source.close()

    def symlink(self, parent: Node, name: str, target: str, caller: Caller) -> None:
        """symlink(2)."""
        parent.check_writable()
        parent.make_link(name, target, caller)

    def link(self, old_parent: Node, old_name: str, parent: Node, name: str) -> None:
        """link(2)."""
        parent.check_writable()
        parent.take_link(old_parent.give(old_name), name)

    def unlink(self, parent: Node, name: str) -> None:
        """unlink(2)."""
        parent.check_writable()
        parent.remove(name)

    def rmdir(self, parent: Node, name: str) -> None:
        """rmdir(2)."""
        parent.check_writable()
        parent.remove_folder(name)

    def rename(self, old_parent: Node, old_name: str, parent: Node, name: str, *, replace: bool = True) -> None:
        """rename(2); without `replace` as renameat2(2) with RENAME_NOREPLACE."""
        parent.check_writable()
        parent.take(old_parent.give(old_name), name, replace=replace)

    def chmod(self, node: Node, mode: int) -> None:
        """chmod(2)."""
        node.check_writable()
        node.set_mode(stat.S_IMODE(mode))

    def drop_privileges(self, node: Node) -> None:
        """Take setuid and setgid away, as a write does; a disk has done so itself."""
        mode = stat.S_IMODE(node.attributes().mode)
        if gone := privileges_in(mode):
            self.chmod(node, mode & ~gone)

    def fdrop_privileges(self, handle: int) -> None:
        """Do the same to an open file, whether it still has a name or not."""
        mode = stat.S_IMODE(self.fgetattr(handle).mode)
        if gone := privileges_in(mode):
            try:
                self.chmod(self.node_of(handle), mode & ~gone)
            except NotFound:
                self.fchmod(handle, mode & ~gone)

    def chown(self, node: Node, uid: int, gid: int) -> None:
        """chown(2); -1 leaves one as it is."""
        node.check_writable()
        node.set_owner(uid, gid)

    def utimens(self, node: Node, times: Times) -> None:
        """utimensat(2)."""
        node.check_writable()
        node.set_times(times)

    def fchmod(self, handle: int, mode: int) -> None:
        """fchmod(2) of a file whose name is gone."""
        self._unnamed(handle).set_mode(stat.S_IMODE(mode))

    def fchown(self, handle: int, uid: int, gid: int) -> None:
        """fchown(2) of a file whose name is gone; -1 leaves one as it is."""
        self._unnamed(handle).set_owner(uid, gid)

    def futimens(self, handle: int, times: Times) -> None:
        """futimens(2) of a file whose name is gone."""
        self._unnamed(handle).set_times(times)

    def _unnamed(self, handle: int) -> Unnamed:
        """Return what takes changes of an open file without a name.

        :raise NotFound: where nothing does
        """
        opened = self._files.get(handle)
        opened.node.check_writable()
        if isinstance(opened, ControlHandle) or not isinstance(opened.source, Unnamed):
            raise NotFound(f"handle {handle}: what it has open has no name any more")
        return opened.source

    def setxattr(self, node: Node, name: str, value: bytes, flags: int) -> None:
        """setxattr(2)."""
        node.check_writable()
        if name.startswith("system."):
            raise Unsupported(f"{name}: attributes of this name cannot be kept here")
        node.set_xattr(name, value, flags)

    def removexattr(self, node: Node, name: str) -> None:
        """removexattr(2)."""
        node.check_writable()
        if name.startswith("system."):
            raise Unsupported(f"{name}: attributes of this name cannot be kept here")
        node.remove_xattr(name)

    def close(self) -> None:
        """Close what programs left open."""
        for opened in self._files.drain():
            if not isinstance(opened, ControlHandle):
                opened.source.close()
        self._directories.drain()
