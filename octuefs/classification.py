"""What stands at a path of a store, as the index takes it in: a datafile with its metadata, or something else.

The keeper asks for what it reads, writers for what they have just done; any thread may.
"""

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Change, DatafileSeen, OtherSeen
from octuefs.index import Index
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.model.paths import METADATA_NAME, SIGNED_METADATA_NAME, name_of
from octuefs.other_names import OtherNames
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo, Store

HASH_NOT_TOLD = "the store does not tell its hash; it counts as that of no bytes, as in the SDK"
"""What is said of a datafile without one."""


class Classifier:
    """Classifies what one store describes, and reports what is wrong with it."""

    def __init__(self, store: Store, report: Report, index: Index, other_names: OtherNames) -> None:
        """`index` tells what is known already; links to files of a disk are entered in `other_names`."""
        self._store = store
        self._report = report
        self._index = index
        self._other_names = other_names

    def classify(self, info: ObjectInfo, metadata: DatafileMetadata | None) -> Change:
        """Return what stands at `info.path`: a datafile, with `metadata` on a disk, or something else."""
        name = name_of(info.path)
        if self._store.in_cloud:
            return self._classify_object(info) if self.counts(info) else OtherSeen(info)
        if name == METADATA_NAME or info.kind is Kind.SPECIAL:
            return OtherSeen(info)
        if info.kind is Kind.SYMLINK:
            target = self._store.follow_link(info.path)
            self._report.set_problems(info.path, [target.reason] if target.kind == "broken" else [])
            if target.kind == "other":
                self._other_names.discard_link(info.path)
                return OtherSeen(info)
            self._other_names.add_link(info.path, target.info.path if target.info is not None else None)
            return self._datafile_on_disk(info, metadata, target.info)
        return self._datafile_on_disk(info, metadata, info)

    def counts(self, info: ObjectInfo) -> bool:
        """Say whether an object is a datafile; of those that a list names all are, as in the SDK, but `.octue`."""
        name = name_of(info.path)
        if info.origin is not None:
            return name != METADATA_NAME
        return not name.endswith(METADATA_NAME) and SIGNED_METADATA_NAME not in self._store.location.of(info.path)

    def _classify_object(self, info: ObjectInfo) -> DatafileSeen:
        """Return the datafile whose metadata stands with it; one on a disk, in a list of files, is yet to be hashed."""
        decoded, problems = decode_custom_metadata(info.custom_metadata or {})
        datafile = Datafile(info, self._store.location, decoded or NO_METADATA, info)
        if info.is_listed_on_disk:
            self._keep_hash(datafile)
        elif info.crc32c is None:
            datafile.crc32c = 0
            if not is_unstored(info):
                problems.append(HASH_NOT_TOLD)
        self._report.set_problems(info.path, problems)
        return DatafileSeen(datafile)

    def _keep_hash(self, datafile: Datafile) -> None:
        """Give a file on a disk the hash that is known of the same content."""
        known = self._index.shadowed.get(datafile.path) or self._index.entry(datafile.path)
        if not isinstance(known, Datafile) or known.content is None or datafile.content is None:
            return
        if known.content.content_version == datafile.content.content_version:
            datafile.crc32c = known.crc32c

    def _datafile_on_disk(
        self, info: ObjectInfo, metadata: DatafileMetadata | None, content: ObjectInfo | None
    ) -> DatafileSeen:
        """Return a datafile that keeps the hash which is known of the same content."""
        if info.links > 1:
            self._other_names.add_hard_link(info.path, info.inode)
        datafile = Datafile(info, self._store.location, metadata or NO_METADATA, content)
        self._keep_hash(datafile)
        return DatafileSeen(datafile)


def is_unstored(info: ObjectInfo) -> bool:
    """Say whether an object is described by who writes it, before the bucket has any of it."""
    return isinstance(info.version, tuple) and info.version[:1] == (0,)
