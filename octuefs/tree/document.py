"""`.octue` as a file of every directory: how it reads, and what writing it means.

In a real folder it stands for all metadata of the folder: on a disk it is the file itself, in the cloud a text made of
what stands with the objects, and of what waits for objects to come. In a view it shows the files of the view, and
writing it changes the files that it names and no others.
"""

import stat
from collections.abc import Hashable, Iterator
from dataclasses import replace

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Other
from octuefs.errors import BadValue, NotPermitted, TooBig, Unsupported
from octuefs.model.changes import MetadataChange, difference
from octuefs.model.metadata import DatafileMetadata, DatasetMetadata, OctueDocument, decode_octue, encode_octue
from octuefs.model.paths import METADATA_NAME, join
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.base import ByteSource, Kind, ObjectInfo
from octuefs.stores.writing import Times
from octuefs.tree.documents import Document, Documents
from octuefs.tree.membership import describe_all, is_settable, joining
from octuefs.tree.node import Attributes
from octuefs.tree.real import OtherNode
from octuefs.tree.scope import Scope
from octuefs.tree.virtual import TextSource, VirtualLeaf
from octuefs.writing.base import OpenFile

_READ_BYTES = 1 << 20

# --- how it reads


def has_metadata(scope: Scope) -> bool:
    """Say whether a directory has a `.octue` of our making, without making its text; a disk has its own."""
    scope.settle()
    if scope.is_view:
        stored = scope.is_top and scope.dataset.metadata is not None
    elif scope.dataset.makes_documents:
        # What lies within a folder of a disk describes that folder whole, not the files that a manifest lists of it.
        of_ours = scope.dataset.in_cloud or not scope.folder
        stored = (of_ours and scope.dataset.stores_metadata_in(scope.folder)) or bool(_waiting(scope))
    else:
        return False
    return stored or any(True for _ in _described(scope))


def metadata_text(scope: Scope) -> bytes:
    """Return the text of `.octue` for a directory that has metadata."""
    scope.settle()
    # Of a dataset within this one: asking may take a request, so it is done before the index is held.
    within = scope.dataset.record_in(scope.folder) if scope.folder and not scope.is_view else None
    waiting = _waiting(scope)

    def compute() -> bytes | None:
        record = _own_record(scope) if scope.is_view or not scope.folder else within
        records = {**waiting, **dict(_described(scope))}
        if record is None and not records:
            return None
        return encode_octue(OctueDocument(records, record))

    key = (METADATA_NAME, scope, within is None, frozenset(waiting))
    text = scope.dataset.index.cached(key, compute, hashed=scope.needs_hashes)
    return scope.dataset.stored_text_in(scope.folder) if text is None else text  # malformed: shown as it is


def _waiting(scope: Scope) -> dict[str, DatafileMetadata]:
    """Return the records that wait for files of a real folder in the cloud; a disk's file shows them itself."""
    writer = scope.dataset.writer
    if writer is None or scope.is_view or not scope.dataset.in_cloud:
        return {}
    return dict(writer.waiting(scope.folder))


def _own_record(scope: Scope) -> DatasetMetadata | None:
    """Return the dataset's record where it belongs into a directory's `.octue`."""
    record = scope.dataset.metadata if scope.is_top else None
    return replace(record, files=None) if record is not None and scope.is_view else record


def _described(scope: Scope) -> Iterator[tuple[str, DatafileMetadata]]:
    """Yield name and metadata of each datafile directly in a directory that has any; the scope is settled."""
    shown = scope.settled_children() if scope.is_view else _datafiles_in(scope)
    for name, datafile in shown.items():
        if datafile is not None and datafile.metadata != NO_METADATA:
            yield name, datafile.metadata


def _datafiles_in(scope: Scope) -> dict[str, Datafile | None]:
    """Return the datafiles directly in a real folder."""
    folder = scope.dataset.index.folder(scope.folder)
    children = list(folder.children.items()) if folder is not None else []
    return {name: child for name, child in children if isinstance(child, Datafile)}


def stored_file(scope: Scope) -> ObjectInfo | None:
    """Return what stands as `.octue` in a real folder of a disk, if it is a file."""
    if scope.is_view or scope.dataset.makes_documents:
        return None
    entry = scope.dataset.index.entry(join(scope.folder, METADATA_NAME))
    return entry.info if isinstance(entry, Other) and entry.info.kind is Kind.FILE else None


def present_text(scope: Scope) -> bytes:
    """Return the text of a directory's `.octue`, b"" where there is none."""
    if (info := stored_file(scope)) is not None:
        return read_text(scope.dataset, info)
    return metadata_text(scope) if has_metadata(scope) else b""


def read_text(dataset: Dataset, info: ObjectInfo) -> bytes:
    """Return the whole content of a file that is taken for a `.octue`.

    :raise TooBig: where it cannot be one
    """
    parts = []
    source = dataset.open(info)
    try:
        length = 0
        while part := source.read(length, _READ_BYTES):
            parts.append(part)
            length += len(part)
            if length > LARGEST_FILE:
                raise TooBig(f"{info.path}: a metadata file has at most {LARGEST_FILE} bytes")
    finally:
        source.close()
    return b"".join(parts)


# --- what writing it means


def store_text(scope: Scope, data: bytes) -> None:
    """Take a directory's `.octue` as it was written.

    :raise BadValue: where it is malformed; it is kept under `recovered/`
    """
    if scope.is_view or scope.dataset.keeper.stored.is_fixed:
        _merge(scope, data)
    else:
        scope.dataset.writing.store_document(scope.folder, data)


def _merge(scope: Scope, data: bytes) -> None:
    """Let the records that a view's `.octue` holds replace those of the files that it names."""
    dataset = scope.dataset
    path = join(scope.folder, METADATA_NAME)
    document, problems = decode_octue(data)
    if problems:
        reason = f"{path}: it was not taken: {'; '.join(problems[:5])}"
        dataset.writing.keep_text(path, data, reason)
        raise BadValue(reason)
    shown = scope.children() if scope.is_view else _datafiles_in(scope)
    settable = scope.order is None and all(map(is_settable, scope.queries))
    changes: dict[str, MetadataChange] = {}
    waiting: dict[str, DatafileMetadata] = {}
    for name, record in document.datafiles.items():
        datafile = shown.get(name)
        if datafile is not None:
            changes[datafile.path] = _replacement(scope, datafile, record, settable=settable)
        elif not settable or dataset.index.entry(join(scope.folder, name)) is not None:
            dataset.keeper.report.failure(
                f"{join(scope.folder, name)}: its record, written in a view, is left out: the file does not show there"
            )
        else:
            waiting[name] = record
    if waiting:
        dataset.writing.store_records(scope.folder, waiting)
    describe_all(dataset, changes)


def _replacement(scope: Scope, datafile: Datafile, record: DatafileMetadata, *, settable: bool) -> MetadataChange:
    """Return what makes a member's metadata what a record says; its ID stays, and it stays a member."""
    present = datafile.metadata
    if present.id is not None and record.id is not None and record.id != present.id:
        scope.dataset.keeper.report.failure(
            f"{datafile.path}: its stored ID {present.id} is kept; {record.id} was written for it"
        )
    record = replace(record, id=present.id or record.id, sdk_version=present.sdk_version or record.sdk_version)
    change = difference(present, record)
    return change.then(joining(scope.queries, record)) if settable else change


def open_document(scope: Scope, documents: Documents, flags: int) -> OpenFile:
    """Open a directory's `.octue` for writing, be there one or not."""
    return documents.open(scope, flags, lambda: present_text(scope), lambda data: store_text(scope, data))


def _cut(scope: Scope, documents: Documents, length: int) -> None:
    """Do what truncate(2) says to the text, as one that is open somewhere, or at once."""
    source = open_document(scope, documents, 0)
    try:
        source.truncate(length)
        source.flush()
    finally:
        source.close()


def _pending(scope: Scope, documents: Documents) -> Document | None:
    """Return the document that a program is writing."""
    document = documents.find(scope)
    return document if document is not None and document.pending else None


class DocumentNode(VirtualLeaf):
    """`.octue` of our making."""

    volatile = True
    """The kernel would cut what it reads at the length that was written."""

    def __init__(self, scope: Scope, path: str, documents: Documents) -> None:
        super().__init__(scope.dataset, path)
        self._scope = scope
        self._documents = documents

    def _text(self) -> bytes:
        """Return the text as programs see it."""
        open_one = self._documents.find(self._scope)
        if open_one is not None and (open_one.pending or not has_metadata(self._scope)):
            return open_one.read(0, open_one.size)
        return present_text(self._scope)

    def attributes(self) -> Attributes:
        """See `Node`."""
        return self.made_attributes(stat.S_IFREG | 0o644, len(self._text()))

    def open(self) -> ByteSource:
        """See `Node`."""
        return TextSource(self._text())

    def open_writable(self, flags: int) -> OpenFile:
        """See `Node`."""
        return open_document(self._scope, self._documents, flags)

    def truncate(self, length: int) -> None:
        """See `Node`."""
        _cut(self._scope, self._documents, length)

    # Nothing keeps these, but `cp -a` and `rsync -a` set them on all that they write.

    def set_mode(self, mode: int) -> None:
        """Succeed without effect."""

    def set_times(self, times: Times) -> None:
        """Succeed without effect."""

    def set_owner(self, uid: int, gid: int) -> None:
        """Succeed where it belongs to them already."""
        owner, group, _ = self.ground.owner
        if uid not in (-1, owner) or gid not in (-1, group):
            raise NotPermitted(f"{self.path}: it belongs to whom the dataset belongs to")

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Refuse: nothing keeps them."""
        raise Unsupported(f"{name}: a metadata file keeps no attributes")


class StoredDocumentNode(OtherNode):
    """`.octue` in a real folder of a disk: read as it is stored, and written like every other one."""

    volatile = True
    """The text that is stored may be longer than the one that was written a moment ago."""

    def __init__(self, scope: Scope, info: ObjectInfo, documents: Documents) -> None:
        super().__init__(scope.dataset, info)
        self._scope = scope
        self._documents = documents

    @property
    def home(self) -> Hashable | None:
        """See `Node`: it stands at its path alone, for what a program writes there shows before it is stored."""
        return None

    def attributes(self) -> Attributes:
        """See `Node`."""
        attributes = super().attributes()
        pending = _pending(self._scope, self._documents)
        return attributes._replace(size=pending.size) if pending is not None else attributes

    def open(self) -> ByteSource:
        """See `Node`."""
        pending = _pending(self._scope, self._documents)
        return TextSource(pending.read(0, pending.size)) if pending is not None else super().open()

    def open_writable(self, flags: int) -> OpenFile:
        """See `Node`."""
        return open_document(self._scope, self._documents, flags)

    def truncate(self, length: int) -> None:
        """See `Node`."""
        _cut(self._scope, self._documents, length)
