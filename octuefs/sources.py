"""From what a user or a manifest calls a dataset to the dataset: the right store for it, and what is known beforehand.

A path is a folder of a disk, a prefix in a bucket, or the URL of a shared dataset. One with a list of files is just
those: the folder's own where all lie in it, so that they can be written, else files wherever they are, to be read.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from octuefs.config import MountConfig, SourceConfig
from octuefs.dataset import Dataset
from octuefs.errors import NotFound, OctuefsError
from octuefs.manifests import MANIFEST_ENDING, manifest_at, read_manifest
from octuefs.model.listed_files import FileEntry, cloud_path_of_url, place_below, place_files
from octuefs.model.manifest import DatasetEntry, Manifest
from octuefs.model.metadata import DatasetMetadata, decode_dataset_record
from octuefs.model.paths import (
    METADATA_NAME,
    CloudLocation,
    LocalLocation,
    UrlLocation,
    name_of,
    parse_location,
    parse_source,
)
from octuefs.report import Report
from octuefs.stores.base import Ownership, Store
from octuefs.stores.traffic import Traffic
from octuefs.wiring import fetch_text, named_within, open_bucket, open_listed, open_store, unloaded_dataset

_AT_ONCE = 32
_LISTED = "its files are listed one by one, wherever they are; mount the folders that they are in to change them"
_SHARED = "it is shared through a link, which lets files be read alone"


def find_manifest(config: MountConfig) -> Manifest | DatasetEntry:
    """Return what is to be mounted: the datasets of a manifest or of several sources, or one dataset.

    :raise OctuefsError: where a manifest cannot be read; BadValue where it is none
    """
    if config.named:
        return Manifest(None, None, {name: DatasetEntry(source) for name, source in config.named.items()})
    return _read_manifest(config.source) or DatasetEntry(config.source.source)


def manifest_instead(config: SourceConfig, dataset: Dataset) -> Manifest | None:
    """Return the manifest that was meant where nothing is in a dataset of a bucket: an object of just this name.

    :raise NotFound: where a manifest was meant, by its name, and there is none
    :raise BadValue: where an object is there, and is no manifest
    """
    location = config.location
    if not isinstance(location, CloudLocation) or not location.prefix or not dataset.index.is_empty:
        return None
    try:
        return manifest_at(location, lambda bucket: open_bucket(bucket, config.access), fetch_text)
    except NotFound:
        if location.prefix.endswith(MANIFEST_ENDING):
            raise NotFound(f"{location}: there is no such manifest, and nothing below that name") from None
        return None


def _read_manifest(config: SourceConfig) -> Manifest | None:
    return read_manifest(config.location, lambda bucket: open_bucket(bucket, config.access), fetch_text)


@contextmanager
def open_dataset(
    config: SourceConfig, report: Report, progress: Callable[[int], None] | None = None
) -> Iterator[Dataset]:
    """Give the loaded dataset of a source, for reading; `progress` is told how many files have been seen."""
    with ExitStack() as stack:
        yield loaded_entry(DatasetEntry(config.source), config, report, stack, progress)


@contextmanager
def open_datasets(
    config: SourceConfig, report: Report, progress: Callable[[int], None]
) -> Iterator[tuple[Manifest | None, dict[str, Dataset]]]:
    """Give the manifest that a source is and its loaded datasets by name, or None and the only dataset under "".

    :raise OctuefsError: where one cannot be reached
    """
    manifest = _read_manifest(config)
    with ExitStack() as stack:
        if manifest is None:
            dataset = loaded_entry(DatasetEntry(config.source), config, report, stack, progress)
            manifest = manifest_instead(config, dataset)
            if manifest is None:
                yield None, {"": dataset}
                return
        yield manifest, _all_loaded(manifest, config, report, stack, progress)


def _all_loaded(
    manifest: Manifest, config: SourceConfig, report: Report, stack: ExitStack, progress: Callable[[int], None]
) -> dict[str, Dataset]:
    """Load the datasets of a manifest at the same time; what is wrong is said with the name of the dataset."""
    seen: dict[str, int] = {}

    def load(name: str, entry: DatasetEntry) -> Dataset:
        own = stack.enter_context(ExitStack())
        try:
            dataset = loaded_entry(entry, config, report.of(name), own, lambda number: seen.update({name: number}))
        except OctuefsError as error:
            raise OctuefsError(f"{name} cannot be reached: {error}") from error
        progress(sum(list(seen.values())))
        return dataset

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        loading = {name: threads.submit(load, name, entry) for name, entry in manifest.datasets.items()}
    return {name: loaded.result() for name, loaded in loading.items()}


def loaded_entry(
    entry: DatasetEntry,
    config: SourceConfig,
    report: Report,
    stack: ExitStack,
    progress: Callable[[int], None] | None,
    *,
    opened: Callable[[Dataset], None] = lambda _: None,
    mount_point: str | None = None,
    read_only: bool = True,
    ownership: Ownership | None = None,
    traffic: Traffic | None = None,
    remembers: bool = False,
) -> Dataset:
    """Return the loaded dataset of an entry; `stack`, which has nothing else, closes what it is made of.

    `opened` is called before anything is read of it; again, with another one, where its record turns out to name files
    outside of it. `traffic` bounds and counts what its store is asked. One that `remembers` begins with what was known
    of a bucket another time, where anything was.

    :raise OctuefsError: where it cannot be reached
    """
    dataset = _opened_entry(
        entry,
        config,
        report,
        stack,
        mount_point=mount_point,
        read_only=read_only,
        ownership=ownership,
        traffic=traffic,
        remembers=remembers,
    )
    opened(dataset)
    dataset.keeper.load(progress)
    if dataset.keeper.stored.outside:
        stack.close()
        dataset = _open_listed_elsewhere(
            dataset, config, report, stack, mount_point=mount_point, ownership=ownership, traffic=traffic
        )
        opened(dataset)
        dataset.keeper.load(progress)
    return dataset


def _opened_entry(
    entry: DatasetEntry,
    config: SourceConfig,
    report: Report,
    stack: ExitStack,
    *,
    mount_point: str | None,
    read_only: bool,
    ownership: Ownership | None,
    traffic: Traffic | None,
    remembers: bool,
) -> Dataset:
    """Return the dataset of an entry before anything is read."""
    config = replace(config, source=entry.path, recursive=config.recursive and entry.recursive)
    location = config.location
    given = _given(entry, report)
    if isinstance(location, LocalLocation) and entry.files is not None:
        entry = replace(entry, files=tuple(named_within(entry.path, entry.files, mount_point)))
    if isinstance(location, UrlLocation) and entry.files is None:
        store = open_store(config, ownership=ownership, traffic=traffic)
        return _only_read(unloaded_dataset(config, store, report, stack), _SHARED)
    placed = place_files(entry.path, entry.files or ())
    _note_twice(entry, len(placed), report)
    if entry.files is None or _lie_within(entry.path, entry.files):
        store = open_store(config, mount_point, read_only=read_only, ownership=ownership, traffic=traffic)
        if entry.files is None:
            return unloaded_dataset(config, store, report, stack, given=given, remembers=remembers)
        files = tuple(file.path for file in entry.files)
        fixed = replace(given or DatasetMetadata(), files=files)
        return unloaded_dataset(config, store, report, stack, fixed=fixed)
    place = location if not isinstance(location, UrlLocation) else parse_location(cloud_path_of_url(location.url))
    store = open_listed(place, placed, config.access, mount_point, ownership, traffic)
    return _listed(store, given, config, report, stack)


def _note_twice(entry: DatasetEntry, shown: int, report: Report) -> None:
    """Say where the SDK counts files that a listing cannot show: the same one twice, and metadata as data."""
    files = entry.files or ()
    problems = []
    if len(files) > shown:
        problems.append(f"{len(files) - shown} of its files are listed before; each counts once, in the SDK every time")
    if any(name_of(file.path) == METADATA_NAME for file in files):
        problems.append(f"it lists a {METADATA_NAME}, which is metadata and no datafile here; the SDK counts it")
    report.set_problems("files of the manifest", problems)


def _open_listed_elsewhere(
    dataset: Dataset,
    config: SourceConfig,
    report: Report,
    stack: ExitStack,
    *,
    mount_point: str | None,
    ownership: Ownership | None,
    traffic: Traffic | None,
) -> Dataset:
    """Return, in place of a dataset whose record names files outside of it, the one of all those files."""
    stored, location = dataset.keeper.stored, dataset.location
    placed = place_files(str(location), [FileEntry(path) for path in stored.named_paths])
    store = open_listed(location, placed, config.access, mount_point, ownership, traffic)
    return _listed(store, stored.dataset, config, report, stack)


def _listed(
    store: Store, record: DatasetMetadata | None, config: SourceConfig, report: Report, stack: ExitStack
) -> Dataset:
    fixed = replace(record or DatasetMetadata(), files=None)  # the store has no others
    return _only_read(unloaded_dataset(config, store, report, stack, fixed=fixed), _LISTED)


def _only_read(dataset: Dataset, reason: str) -> Dataset:
    dataset.read_only_reason = reason
    return dataset


def _lie_within(path: str, files: Sequence[FileEntry]) -> bool:
    """Say whether files are a folder's own, with the metadata that is stored there and no other."""
    if isinstance(parse_source(path), UrlLocation):
        return False
    return all(
        not file.given
        and not isinstance(parse_source(file.path), UrlLocation)
        and place_below(path, file.path) is not None
        for file in files
    )


def _given(entry: DatasetEntry, report: Report) -> DatasetMetadata | None:
    """Return the metadata that a manifest gives a local dataset, None where it gives none."""
    if not entry.given:
        return None
    given, problems = decode_dataset_record(dict(entry.given), revive_types=True)
    report.set_problems("the manifest", problems)
    return given
