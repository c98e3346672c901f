"""The one place where concrete parts are put together: store, index, keeper, hashes, and what writes.

`sources.py` says which store a dataset needs; a mount gives it what writes with `open_changes`.
"""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from octuefs import places
from octuefs.config import MountConfig, SourceConfig
from octuefs.content.hashing import HashCache, Hasher
from octuefs.dataset import Dataset
from octuefs.errors import OctuefsError
from octuefs.facts.pack import Bucket
from octuefs.facts.templates import Templates
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.listed_files import FileEntry, is_cloud, place_below
from octuefs.model.metadata import DatasetMetadata
from octuefs.model.paths import CloudLocation, Location, UrlLocation, parent_of
from octuefs.remembered import Remembered
from octuefs.report import Report
from octuefs.stores.base import Access, LinkSigner, Ownership, Store
from octuefs.stores.traffic import Traffic
from octuefs.writing.recovered import Recovered
from octuefs.writing.sessions import Session, dead_sessions, describe_source, open_session

logger = logging.getLogger(__name__)

KERNEL_SECONDS = 0.5
"""How long the kernel may answer from what it knows; with the watcher's moment a change shows within a second."""

_REDIRECTIONS = 5


def open_store(
    config: SourceConfig,
    mount_point: str | None = None,
    *,
    read_only: bool = True,
    ownership: Ownership | None = None,
    traffic: Traffic | None = None,
) -> Store:
    """Return the store of a source, checked to be there; it never looks into `mount_point`.

    :raise OctuefsError: where it is not, or may not be read
    """
    location = config.location
    if isinstance(location, UrlLocation):
        from octuefs.stores.signed_url import SignedUrlStore

        return _checked(SignedUrlStore(location, ownership=ownership, traffic=traffic))
    if isinstance(location, CloudLocation):
        from octuefs.stores.gcs import GcsStore

        return _checked(
            GcsStore(location, access=config.access, read_only=read_only, ownership=ownership, traffic=traffic)
        )
    from octuefs.stores.local import LocalStore

    return _checked(LocalStore(location, mount_point))


def open_bucket(
    location: CloudLocation, access: Access, ownership: Ownership | None = None, traffic: Traffic | None = None
) -> Store:
    """Return the store of a prefix for reading objects by their names; nothing is asked, so it need not be listed."""
    from octuefs.stores.gcs import GcsStore

    return GcsStore(location, access=access, read_only=True, ownership=ownership, traffic=traffic)


def open_listed(
    location: Location,
    placed: Iterable[tuple[str, FileEntry]],
    access: Access,
    mount_point: str | None = None,
    ownership: Ownership | None = None,
    traffic: Traffic | None = None,
) -> Store:
    """Return the store of files that are listed with their places, wherever they are.

    :raise OctuefsError: where none of them can be read
    """
    from octuefs.stores.listed import ListedStore
    from octuefs.stores.local import LocalStore
    from octuefs.stores.signed_http import SignedLinks

    return _checked(
        ListedStore(
            location,
            placed,
            open_folder=lambda folder: LocalStore(folder, mount_point),
            open_bucket=lambda bucket: open_bucket(bucket, access, ownership, traffic),
            open_links=lambda: SignedLinks(ownership=ownership, traffic=traffic),
            avoid=mount_point,
            ownership=ownership,
        )
    )


def named_within(path: str, files: Iterable[FileEntry], mount_point: str | None = None) -> list[FileEntry]:
    """Return listed files, those that lie in the local folder `path` by another way, through links, named as in it.

    Nothing in `mount_point` is looked at.
    """
    from octuefs.stores.links import real_path

    avoid = os.path.realpath(mount_point) if mount_point is not None else None

    def real(folder: str) -> str | None:
        try:
            return real_path(folder, avoid)[0]
        except OSError:
            return None

    root, known = real(path), dict[str, str | None]()

    def named(file: FileEntry) -> FileEntry:
        folder, name = os.path.split(file.path)
        if is_cloud(file.path) or root is None or place_below(path, file.path) is not None:
            return file
        if folder not in known:
            known[folder] = real(folder)
        there = known[folder]
        if there is None or not f"{there}/".startswith(root.rstrip("/") + "/"):
            return file
        return replace(file, path=os.path.normpath(os.path.join(path, os.path.relpath(there, root), name)))

    return [named(file) for file in files]


def fetch_text(url: str, limit: int) -> bytes:
    """Return a text of at most `limit` bytes that a URL answers, redirections followed.

    :raise OctuefsError: where it cannot be had; BadValue for a longer one
    """
    from octuefs.stores.signed_http import SignedLinks

    with closing(SignedLinks()) as links:
        return links.fetch(url, limit, few_tries=True, redirections=_REDIRECTIONS)


def _checked(store: Store) -> Store:
    try:
        store.check()
    except BaseException:
        store.close()
        raise
    return store


def open_signer(access: Access) -> LinkSigner:
    """Return what signs links to objects, with credentials that can.

    :raise PermissionRefused: where these cannot
    """
    from octuefs.stores.gcs_signing import GcsSigner

    return GcsSigner(access)


def _open_hash_cache(store: Store) -> HashCache | None:
    from octuefs.stores.listed import ListedStore

    if store.in_cloud and not isinstance(store, ListedStore):  # whose files may be on this disk
        return None
    try:
        return HashCache(places.hash_cache())
    except (OSError, OctuefsError, sqlite3.Error) as error:
        logger.warning("hashes are not remembered over mounts: %s", error)
        return None


def unloaded_dataset(
    config: SourceConfig,
    store: Store,
    report: Report,
    stack: ExitStack,
    *,
    fixed: DatasetMetadata | None = None,
    given: DatasetMetadata | None = None,
    remembers: bool = False,
) -> Dataset:
    """Return the dataset over a store before anything is read; `stack` closes what it is made of.

    `fixed` is its record instead of the stored one, `given` counts for what that lacks. One that `remembers` begins
    with what was known of a bucket another time.
    """
    stack.callback(store.close)
    cache = _open_hash_cache(store)
    if cache is not None:
        stack.callback(cache.close)
    index = Index()
    hasher = Hasher(store, index.publish_hash, cache)
    stack.callback(hasher.close)
    keeper = Keeper(
        store,
        report,
        index,
        recursive=config.recursive,
        metadata_ttl=max(0.0, config.metadata_ttl - KERNEL_SECONDS),
        fixed=fixed,
        given=given,
        told=getattr(store, "told", None),
        remembered=_remembered(store, index, recursive=config.recursive) if remembers and fixed is None else None,
    )
    stack.callback(keeper.close)
    return Dataset(keeper, hasher)


def _remembered(store: Store, index: Index, *, recursive: bool) -> Remembered | None:
    """Return what is remembered of a bucket over mounts, None for other stores."""
    from octuefs.stores.gcs import GcsStore

    if not isinstance(store, GcsStore):
        return None
    source = json.dumps([describe_source(store.endpoint, store.location), recursive])

    def bucket_of(templates: Templates) -> Bucket:
        return Bucket(store.location, store.ownership, store.inode_of, templates)

    return Remembered(lambda: places.facts_file(source), index, bucket_of)


def takes_changes(store: Store) -> bool:
    """Say whether a store can be written, as a folder and a bucket can."""
    from octuefs.stores.members import MemberStore

    return not isinstance(store, MemberStore)


def _source_folder(store: Store) -> Path:
    """Return where journals of this source are kept."""
    endpoint = getattr(store, "endpoint", "")
    return places.writing_folder(describe_source(endpoint, store.location))


@dataclass
class Changes:
    """What a mount that writes has besides its dataset: the journal of its source, and what could not be stored."""

    folder: Path
    session: Session
    recovered: Recovered
    restore: Callable[[], None]
    """Goes on with what a crash interrupted; called once, when the dataset is loaded."""


def open_changes(config: MountConfig, dataset: Dataset, report: Report, stack: ExitStack) -> Changes | None:
    """Give the dataset its writer, before it is loaded.

    None on a read-only mount, which leaves a journal alone, and where the store takes no changes.
    """
    if not takes_changes(dataset.store):
        return None
    folder = _source_folder(dataset.store)
    if config.read_only:
        if left := sum(dead_sessions(folder).values()):
            report.failure(
                f"an earlier mount of {dataset.location} left what is not stored yet ({left} entries in its"
                " journal); this read-only mount leaves it alone: mount without --read-only to store it"
            )
        return None
    session = open_session(folder)
    stack.callback(session.close)
    for problem in session.problems:
        report.failure(problem)
    if dataset.in_cloud:
        recovered, restore = _open_cloud_writer(config, dataset, report, session, stack)
    else:
        recovered, restore = _open_local_writer(dataset, report, session, stack)
    return Changes(folder, session, recovered, restore)


_Opened = tuple[Recovered, Callable[[], None]]


def _open_cloud_writer(
    config: MountConfig, dataset: Dataset, report: Report, session: Session, stack: ExitStack
) -> _Opened:
    from octuefs.stores.gcs import GcsStore
    from octuefs.writing.cloud import CloudWriter
    from octuefs.writing.cloudfiles import CloudFiles
    from octuefs.writing.recent import RecentNames

    store, keeper = dataset.store, dataset.keeper
    assert isinstance(store, GcsStore)
    assert isinstance(store.location, CloudLocation)
    files = CloudFiles(
        store,
        dataset.index,
        session,
        report,
        keeper.changed,
        location=store.location,
        classify=lambda info: keeper.classify(info, None),
        inode_of=store.inode_of,
        write_back=config.write_back,
        compose=config.compose,
        reading=dataset.reading,
    )
    stack.callback(files.close)
    writer = CloudWriter(
        store,
        keeper,
        files,
        session.journal,
        report,
        RecentNames(),
        compose=config.compose,
    )
    stack.callback(writer.close)
    dataset.writer = writer
    dataset.staging = session.staged_folder

    def restore() -> None:
        if session.journal.entries():
            keeper.about_to_write()
        writer.restore()
        keeper.when_confirmed(lambda: files.sweep(keeper.leftovers))

    return writer.recovered, restore


def _open_local_writer(dataset: Dataset, report: Report, session: Session, stack: ExitStack) -> _Opened:
    from octuefs.stores.local import LocalStore
    from octuefs.writing.local import LocalWriter
    from octuefs.writing.recent import RecentNames

    assert isinstance(dataset.store, LocalStore)

    recovered = Recovered(session.journal, lambda path, data: dataset.writing.store_document(parent_of(path), data))
    writer = LocalWriter(dataset.store, dataset.keeper, session.journal, report, RecentNames(), recovered.keep_text)
    stack.callback(writer.close)
    dataset.writer = writer
    return recovered, lambda: writer.sweep([it.path for it in dataset.keeper.leftovers])
