"""A local dataset into a bucket: what `cp -r` into a mount of it makes, many requests at a time.

Every object is stored on condition that what was listed still stands there. What is there already is left alone: with
the same bytes only its metadata are sent, and with the same metadata nothing. Nothing is ever removed.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Folder, Other
from octuefs.errors import BadValue, Conflict, IsADirectory, LocalFailure, NotADirectory, NotFound, OctuefsError
from octuefs.model.hashes import extend_crc32c
from octuefs.model.paths import METADATA_NAME, is_temporary, join, name_of, parent_of
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.base import ByteSource, Kind, ObjectInfo
from octuefs.stores.writing import Body, ObjectProperties, ObjectStore, Precondition
from octuefs.transfer.jobs import LARGE_BYTES, Job, Outcome, Progress, run_jobs, walk
from octuefs.transfer.records import cloud_object_for, cloud_object_text, custom_metadata_for, read_document
from octuefs.writing.cloud_facts import condition_of
from octuefs.writing.properties import after_write, guessed_type, patch_between
from octuefs.writing.uploads import Uploader

_DOCUMENT_TYPE = "text/plain"
"""As the SDK stores `.octue` objects."""


def upload(dataset: Dataset, store: ObjectStore, outcome: Outcome, progress: Progress) -> None:
    """Store a local dataset, with its metadata, where `store` is; what came of it stands in `outcome`.

    :raise OctuefsError: where the bucket cannot be listed
    """
    _Upload(dataset, store, outcome, progress).run()


class _Upload:
    def __init__(self, dataset: Dataset, store: ObjectStore, outcome: Outcome, progress: Progress) -> None:
        self._dataset = dataset
        self._store = store
        self._outcome = outcome
        self._progress = progress
        self._uploader = Uploader(store, outcome.stopping)
        self._present: dict[str, ObjectInfo] = {}
        self._markers: set[str] = set()
        """Folders that are objects of their own."""
        self._folders: set[str] = set()
        """Folders that are there, in whatever way."""

    def run(self) -> None:
        """Do it."""
        self._list_present()
        files: list[Job] = []
        wanted: set[str] = set()
        folders: list[str] = []
        for entry in walk(self._dataset.index.root):
            if isinstance(entry, Folder):
                folders.append(entry.path)
            elif (job := self._job_for(entry)) is not None:
                files.append(job)
                wanted.add(entry.info.path)
        held = {above for path in (*wanted, *folders) if name_of(path) != METADATA_NAME for above in _above(path)}
        markers = [self._marker_job(path) for path in folders if path not in held and path not in self._folders]
        with self._outcome.lock:
            self._outcome.others = len(self._present.keys() - wanted)
        run_jobs([*files, *markers], self._outcome, self._progress, is_large_only_slow=True)

    def _list_present(self) -> None:
        for item in self._store.scan():
            if not isinstance(item, ObjectInfo) or is_temporary(item.path):
                continue
            if item.kind is Kind.FOLDER:
                self._markers.add(item.path)
            else:
                self._present[item.path] = item
        self._folders = {above for path in self._present for above in _above(path)}
        self._folders.update(above for path in self._markers for above in (path, *_above(path)))

    def _job_for(self, entry: Datafile | Other) -> Job | None:
        path = entry.info.path
        if isinstance(entry, Datafile):
            return Job(path, entry.size, lambda: self._store_file(entry))
        if name_of(path) == METADATA_NAME and entry.info.kind in (Kind.FILE, Kind.SYMLINK):
            return Job(path, 0, lambda: self._store_document(parent_of(path)))
        self._outcome.notes[path] = "no regular file, nor a link to one in the dataset: a bucket cannot hold it"
        return None

    # --- files

    def _store_file(self, datafile: Datafile) -> None:
        path = datafile.path
        base = self._base_of(path)
        if datafile.content is None:
            raise NotFound(f"{path}: the link leads to nothing in the dataset, so there are no bytes to store")
        stored = base.custom_metadata or {} if base is not None else {}
        custom = custom_metadata_for(datafile.metadata, stored, self._store.location.of(path))
        if base is not None and base.size == datafile.size and base.crc32c == self._hash_of(datafile):
            self._progress.skipped(datafile.size)
            patch = patch_between(stored, custom)
            if not patch:
                self._outcome.count_same()
                return
            try:
                self._store.patch(path, patch, condition_of(base))
            except Conflict as error:
                self._settle(path, base.size, base.crc32c, custom, error)
            self._outcome.count_described()
            return
        if base is None:
            properties = ObjectProperties(custom, {"contentType": guessed_type(path)})
        else:
            properties = ObjectProperties(dict(after_write(custom)), base.properties)
        self._send(datafile, properties, Precondition(generation=0) if base is None else condition_of(base))
        self._outcome.count_moved(datafile.size)

    def _base_of(self, path: str) -> ObjectInfo | None:
        """Return the object that stands at a path.

        :raise IsADirectory: where a folder does, which would hide the object
        :raise NotADirectory: where a file stands above
        """
        if path in self._folders:
            raise IsADirectory(f"{path}: a folder of this name is in the bucket, which would hide the file")
        if above := next((above for above in _above(path) if above in self._present), None):
            raise NotADirectory(f"{path}: {above} is a file in the bucket, so nothing can stand in it")
        return self._present.get(path)

    def _hash_of(self, datafile: Datafile) -> int:
        if datafile.crc32c is None:
            for error in self._dataset.hasher.ensure([datafile]):
                raise error
        if datafile.crc32c is None:
            raise _changed(datafile.path)
        return datafile.crc32c

    def _send(self, datafile: Datafile, properties: ObjectProperties, condition: Precondition) -> None:
        """Store the bytes of a file; their checksum is computed of what is sent, and the server's is compared with it.

        A large file is read once before: what it had then must be what is sent, or the upload is never completed.
        """
        path, size = datafile.path, datafile.size
        crc32c = self._hash_of(datafile) if size > LARGE_BYTES else None
        source = self._dataset.store.open(datafile.info)
        try:
            body: Body
            if crc32c is None:
                data = _read_all(source, datafile)
                crc32c, body = extend_crc32c(0, data), _bytes_body(data)
            else:
                body = _Proven(source, datafile, crc32c, self._outcome)
            try:
                self._put(path, body, size, crc32c, properties, condition)
            except Conflict as error:
                self._settle(path, size, crc32c, properties.custom_metadata, error)
        finally:
            source.close()

    def _put(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> None:
        session: str | None = None
        told = 0

        def note(uri: str | None, offset: int) -> None:
            nonlocal session, told
            session = uri or session
            if offset > told:
                self._progress.moved(offset - told)
                told = offset

        try:
            self._uploader.put(path, body, size, crc32c, properties, condition, note)
        except BaseException:
            if session is not None:
                with suppress(OctuefsError):  # it lasts no longer than a week anyway
                    self._store.cancel_upload(session)
            raise
        self._progress.moved(size - told)

    def _settle(self, path: str, size: int, crc32c: int | None, custom: Mapping[str, str], error: Conflict) -> None:
        """Return where what stands there is what was sent: the answer to an earlier try was lost."""
        try:
            found = self._store.stat(path)
        except NotFound:
            raise Conflict(f"{path}: another writer removed it meanwhile; run the command again") from error
        if (found.size, found.crc32c, dict(found.custom_metadata or {})) != (size, crc32c, dict(custom)):
            raise Conflict(
                f"{path}: another writer changed it meanwhile; theirs stays, run the command again to replace it"
            ) from error

    # --- what stands beside files

    def _store_document(self, folder: str) -> None:
        """Store the dataset's record in a folder's `.octue`; those of its files went with them."""
        path = join(folder, METADATA_NAME)
        document = read_document(path, self._dataset.store.read_small(path, LARGEST_FILE))
        base = self._present.get(path)
        if base is not None and base.size > LARGEST_FILE:
            raise BadValue(f"{path}: the one in the bucket has {base.size} bytes; it is left as it is")
        present = self._store.open(base).read(0, base.size) if base is not None else None
        content = cloud_object_for(document, present, self._store.location.of(folder))
        if content is None:
            return
        data = cloud_object_text(content)
        crc32c = extend_crc32c(0, data)
        if base is None:
            properties, condition = ObjectProperties({}, {"contentType": _DOCUMENT_TYPE}), Precondition(generation=0)
        else:
            properties, condition = ObjectProperties(base.custom_metadata or {}, base.properties), condition_of(base)
        try:
            self._store.upload(path, _bytes_body(data), len(data), crc32c, properties, condition)
        except Conflict as error:
            self._settle(path, len(data), crc32c, properties.custom_metadata, error)
        self._outcome.count_described()

    def _marker_job(self, folder: str) -> Job:
        def make() -> None:
            self._base_of(folder)
            if folder in self._present:
                raise NotADirectory(f"{folder}: a file of this name is in the bucket")
            self._store.make_marker(folder)
            self._outcome.count_described()

        return Job(f"{folder}/", 0, make)


class _Proven:
    """The body of a large file: never ends with other bytes than those that were read before."""

    def __init__(self, source: ByteSource, datafile: Datafile, crc32c: int, outcome: Outcome) -> None:
        self._source = source
        self._datafile = datafile
        self._wanted = crc32c
        self._outcome = outcome
        self._crc32c = 0
        self._read = 0
        """Bytes from the beginning that are in the checksum."""

    def __call__(self, offset: int, size: int) -> bytes:
        """Return bytes to send.

        :raise LocalFailure: where the file is another one by now
        """
        self._outcome.check()
        data = self._source.read(offset, size)
        if offset <= self._read < offset + len(data):
            self._crc32c = extend_crc32c(self._crc32c, data[self._read - offset :])
            self._read = offset + len(data)
        if offset + len(data) >= self._datafile.size or not data:
            complete = self._read == self._datafile.size and self._crc32c == self._wanted
            if not complete or not _is_unchanged(self._source, self._datafile):
                raise _changed(self._datafile.path)
        return data


def _read_all(source: ByteSource, datafile: Datafile) -> bytes:
    """Return the bytes of a small file.

    :raise LocalFailure: where it is another one by now
    """
    data = b""
    while len(data) < datafile.size and (part := source.read(len(data), datafile.size - len(data))):
        data += part
    if len(data) != datafile.size or not _is_unchanged(source, datafile):
        raise _changed(datafile.path)
    return data


def _is_unchanged(source: ByteSource, datafile: Datafile) -> bool:
    return datafile.content is not None and source.version() == datafile.content.version


def _changed(path: str) -> LocalFailure:
    return LocalFailure(f"{path}: it changed while it was read, and was not stored; run the command again")


def _bytes_body(data: bytes) -> Body:
    return lambda offset, size: data[offset : offset + size]


def _above(path: str) -> Iterator[str]:
    """Yield the folders above a path, but the root."""
    while path := parent_of(path):
        yield path
