"""Transfers against stores that spoil bytes, and what stands beside them: hashes as text, records, many jobs."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from unit.memory_store import MemoryStore, crc32c

from octuefs.config import SourceConfig
from octuefs.content.hashing import HashCache
from octuefs.dataset import Dataset
from octuefs.errors import BadValue, NotFound, PermissionRefused, StoreUnavailable, TooBig
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata, decode_octue, encode_custom_metadata
from octuefs.model.paths import LocalLocation, derived_id
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo
from octuefs.stores.local import LocalStore
from octuefs.stores.writing import Body, ObjectProperties, Precondition, UploadState
from octuefs.transfer.download import download
from octuefs.transfer.jobs import Job, Outcome, run_jobs
from octuefs.transfer.records import cloud_object_for, custom_metadata_for, local_text_for, read_document
from octuefs.transfer.upload import upload
from octuefs.transfer.verify import parse_hashes, remembered_in, verify_bytes, verify_hashes
from octuefs.wiring import unloaded_dataset

MIB = 1 << 20
ID = "6f1c9a80-1111-4222-8333-444455556666"
OTHER_ID = "0b8f2c11-5555-4666-8777-888899990000"


class Told:
    """A progress that counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files = self.size = self.done = self.bytes = 0

    def expect(self, files: int, size: int) -> None:
        self.files += files
        self.size += size

    def moved(self, size: int) -> None:
        with self.lock:
            self.bytes += size

    def skipped(self, size: int) -> None:
        with self.lock:
            self.size -= size

    def finished(self) -> None:
        with self.lock:
            self.done += 1


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ExitStack() as stack:
        yield stack


def loaded(store: MemoryStore | LocalStore, stack: ExitStack) -> Dataset:
    dataset = unloaded_dataset(SourceConfig(str(store.location)), store, Report(), stack)
    dataset.keeper.load()
    return dataset


def local(folder: Path, stack: ExitStack) -> Dataset:
    return loaded(LocalStore(LocalLocation(str(folder))), stack)


def fetch(store: MemoryStore, folder: Path, stack: ExitStack, told: Told) -> Outcome:
    outcome, target = Outcome(), local(folder, stack)
    assert isinstance(target.store, LocalStore)
    download(loaded(store, stack), target, target.store, outcome, told)
    return outcome


# --- bytes that are spoilt on the way


class SpoilsReading(MemoryStore):
    """Answers with other bytes than it keeps."""

    def read_generation(self, info: ObjectInfo, offset: int, size: int) -> bytes:
        data = super().read_generation(info, offset, size)
        return b"?" + data[1:] if info.path.startswith("bad") else data


class SpoilsWriting(MemoryStore):
    """Keeps other bytes than were sent, and says so."""

    def upload(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> ObjectInfo:
        info = super().upload(path, body, size, crc32c, properties, condition)
        return info._replace(crc32c=1) if path.startswith("bad") else info

    def send(self, path: str, session: str, body: Body, start: int, end: int, *, total: int | None) -> UploadState:
        state = super().send(path, session, body, start, end, total=total)
        return UploadState(state.offset, state.done._replace(crc32c=1)) if state.done is not None else state


def test_an_upload_that_arrives_spoilt_is_listed(folder: Path, stack: ExitStack, told: Told) -> None:
    (folder / "bad.csv").write_bytes(b"a")
    (folder / "bad large.bin").write_bytes(bytes(9 * MIB))
    (folder / "good.csv").write_bytes(b"b")
    store, outcome = SpoilsWriting(), Outcome()
    upload(local(folder, stack), store, outcome, told)
    assert outcome.failures.keys() == {"bad.csv", "bad large.bin"}
    assert all("not what was sent" in reason for reason in outcome.failures.values())
    assert (outcome.moved, outcome.moved_bytes) == (1, 1)
    assert told.done == told.files == 3


def test_a_download_that_arrives_spoilt_is_listed_and_what_was_there_stays(
    folder: Path, stack: ExitStack, told: Told
) -> None:
    store = SpoilsReading()
    store.put("bad.csv", b"new")
    store.put("bad large.bin", os.urandom(20 * MIB))
    store.put("good.csv", b"b", encode_custom_metadata(DatafileMetadata(id=ID)))
    (folder / "bad.csv").write_bytes(b"old")
    outcome = fetch(store, folder, stack, told)
    assert outcome.failures.keys() == {"bad.csv", "bad large.bin"}
    assert all("checksum" in reason for reason in outcome.failures.values())
    assert {path.name for path in folder.iterdir()} == {"bad.csv", "good.csv", ".octue"}
    assert (folder / "bad.csv").read_bytes() == b"old"


def test_verify_finds_objects_that_come_back_spoilt(stack: ExitStack, told: Told) -> None:
    store, outcome = SpoilsReading(), Outcome()
    store.put("bad.csv", b"new")
    store.put("good.csv", b"b")
    assert verify_bytes(loaded(store, stack), remembered_in(None), outcome, told) == 0
    assert outcome.failures.keys() == {"bad.csv"}
    assert "hash" in outcome.failures["bad.csv"]


def test_verify_finds_bytes_that_are_not_those_remembered(
    folder: Path, stack: ExitStack, told: Told, tmp_path: Path
) -> None:
    for name in ("spoilt", "sound", "unknown"):
        (folder / name).write_bytes(name.encode())
    cache, dataset, outcome = HashCache(tmp_path / "hashes.sqlite"), local(folder, stack), Outcome()
    stack.callback(cache.close)
    infos = {name: dataset.store.stat(name).version for name in ("spoilt", "sound")}
    cache.put([(infos["spoilt"], 5), (infos["sound"], crc32c(b"sound"))])  # type: ignore[list-item]
    assert verify_bytes(dataset, remembered_in(cache), outcome, told) == 1
    assert outcome.failures.keys() == {"spoilt"}
    assert "remembered" in outcome.failures["spoilt"]


def test_verify_reads_local_files_whatever_is_known_of_them(folder: Path, stack: ExitStack, told: Told) -> None:
    (folder / "a").write_bytes(b"a")
    dataset, outcome = local(folder, stack), Outcome()
    (datafile,) = dataset.index.members("", ())
    datafile.crc32c = 7
    verify_hashes(dataset, {"a": crc32c(b"a")}, outcome, told)
    assert outcome.failures == {}
    assert told.bytes == 1


# --- an upload


def test_answers_that_were_lost_are_no_conflicts(folder: Path, stack: ExitStack, told: Told) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    (folder / ".octue").write_text(json.dumps({"datafiles": {"b": {"id": ID}}, "dataset": {"id": ID, "name": "n"}}))
    store, outcome = MemoryStore(), Outcome()
    store.put("b", b"b")
    store.lose_answer("upload", path="a")
    store.lose_answer("upload", path=".octue")
    store.lose_answer("patch", path="b")
    upload(local(folder, stack), store, outcome, told)
    assert outcome.failures == {}
    assert store.data("a") == b"a"


def test_a_session_that_goes_nowhere_is_cancelled(folder: Path, stack: ExitStack, told: Told) -> None:
    (folder / "large").write_bytes(bytes(9 * MIB))
    store, outcome = MemoryStore(), Outcome()
    store.fail("send", PermissionRefused("no"))
    upload(local(folder, stack), store, outcome, told)
    assert outcome.failures.keys() == {"large"}
    assert store.sessions == {}
    assert store.names() == set()


def test_folders_with_nothing_in_them_are_kept(folder: Path, stack: ExitStack, told: Told) -> None:
    for name in ("a/b/c", "d", "e"):
        (folder / name).mkdir(parents=True)
    (folder / "d" / "file").write_bytes(b"")
    (folder / "e" / ".octue").write_text("{}")
    store, outcome = MemoryStore(), Outcome()
    upload(local(folder, stack), store, outcome, told)
    assert store.names() == {"a/b/c/", "d/file", "e/"}
    back = folder.parent / "back"
    back.mkdir()
    fetch(store, back, stack, told)
    assert (back / "a/b/c").is_dir()
    assert (back / "e").is_dir()


# --- records


def test_a_record_goes_along_and_a_stored_id_stays() -> None:
    record = DatafileMetadata(id=ID, labels=frozenset({"a"}), tags={"z": 1})
    assert custom_metadata_for(record, {}, "gs://b/f") == {
        **encode_custom_metadata(record),
        "octue__sdk_version": '"0.69.1"',
    }
    present = {**encode_custom_metadata(DatafileMetadata(id=OTHER_ID, sdk_version="0.1")), "foreign": "x"}
    custom = custom_metadata_for(record, present, "gs://b/f")
    assert custom["foreign"] == "x"
    stored, _ = decode_custom_metadata(custom)
    assert stored is not None
    assert (stored.id, stored.labels, stored.tags) == (OTHER_ID, record.labels, record.tags)


def test_a_record_without_an_id_gets_the_one_of_its_place_and_no_record_changes_nothing() -> None:
    custom = custom_metadata_for(DatafileMetadata(labels=frozenset({"a"})), {}, "gs://b/f")
    assert json.loads(custom["octue__id"]) == derived_id("gs://b/f")
    assert custom_metadata_for(DatafileMetadata(), {"octue__id": "x"}, "gs://b/f") == {"octue__id": "x"}


def test_more_metadata_than_an_object_can_have_is_refused() -> None:
    with pytest.raises(TooBig):
        custom_metadata_for(DatafileMetadata(id=ID, tags={"a": "x" * 9000}), {}, "gs://b/f")


def test_a_dataset_s_record_is_made_for_its_new_place() -> None:
    text = {
        "datafiles": {"f": {"id": ID}},
        "dataset": {
            "id": ID,
            "name": "n",
            "tags": {"when": {"_type": "datetime", "value": "2020-01-02T03:04:05"}},
            "labels": ["a"],
            "files": ["/old/f"],
            "path": "/old",
        },
        "unknown": 1,
    }
    document = read_document(".octue", json.dumps(text).encode())
    content = cloud_object_for(document, None, "gs://b/p")
    assert content == {
        "unknown": 1,
        "dataset": {
            "id": ID,
            "name": "n",
            "tags": {"when": "2020-01-02T03:04:05"},
            "labels": ["a"],
            "path": "gs://b/p",
        },
    }
    assert cloud_object_for(document, json.dumps(content).encode(), "gs://b/p") is None
    kept = cloud_object_for(document, json.dumps({"dataset": {"id": OTHER_ID}, "theirs": 2}).encode(), "gs://b/p")
    assert kept is not None
    assert (kept["dataset"]["id"], kept["dataset"]["name"], kept["theirs"]) == (OTHER_ID, "n", 2)
    assert cloud_object_for(read_document(".octue", b'{"datafiles": {}}'), None, "gs://b/p") is None


def test_a_malformed_document_is_refused_on_both_sides() -> None:
    with pytest.raises(BadValue, match="malformed"):
        read_document(".octue", b"{ no")
    with pytest.raises(BadValue, match="malformed"):
        local_text_for({"f": DatafileMetadata(id=ID)}, None, b"{ no", "/there")


def test_records_are_merged_into_a_local_document() -> None:
    present = {"datafiles": {"f": {"id": OTHER_ID, "labels": ["old"]}, "g": {"id": ID}}, "unknown": [1]}
    records = {"f": DatafileMetadata(id=ID, labels=frozenset({"new"})), "h": DatafileMetadata(id=ID)}
    text = local_text_for(records, None, json.dumps(present).encode(), "/there")
    assert text is not None
    document, problems = decode_octue(text)
    assert problems == []
    assert {name: it.id for name, it in document.datafiles.items()} == {"f": OTHER_ID, "g": ID, "h": ID}
    assert document.datafiles["f"].labels == {"new"}
    assert json.loads(text)["unknown"] == [1]
    assert local_text_for(records, None, text, "/there") is None
    assert local_text_for({}, None, None, "/there") is None


# --- hashes as text


def test_lines_of_hashes_are_read_with_their_escapes() -> None:
    text = b"AAAAAA==  a b/c\n\\AAAAAQ==  new\\nline\\\\ \\r\nAAAAAg==  caf\xe9\nAAAAAw==   two blanks before"
    assert parse_hashes(text, "it") == {"a b/c": 0, "new\nline\\ \r": 1, "caf\udce9": 2, " two blanks before": 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"AAAAAA==  a\nAAAAAA== b\n", "line 2: a line is"),
        (b"AAAAAA==  \n", "line 1: a line is"),
        (b"aaaa  a\n", "no CRC32C"),
        (b"AAAAAA==  a\nAAAAAQ==  a\n", "line 2: a has a line already"),
        (b"\\AAAAAA==  a\\x\n", "no escape"),
        (b"\\AAAAAA==  a\\\n", "no escape"),
    ],
)
def test_what_is_no_line_of_hashes_is_refused_with_its_number(text: bytes, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        parse_hashes(text, "it")


# --- many jobs


def test_a_failure_ends_no_other_job(told: Told) -> None:
    outcome = Outcome()

    def fails() -> None:
        raise NotFound("gone")

    run_jobs([Job("bad", 5, fails), *(Job(f"{n}", 1, outcome.count_same) for n in range(50))], outcome, told)
    assert outcome.failures == {"bad": "gone"}
    assert outcome.same == 50
    assert (told.files, told.done, told.size) == (51, 51, 55)


@pytest.mark.expected_logs("unexpected failure")
def test_what_nobody_foresaw_is_logged_and_listed(told: Told) -> None:
    outcome = Outcome()
    run_jobs([Job("bad", 0, lambda: [][0])], outcome, told)
    assert "IndexError" in outcome.failures["bad"]


def test_where_everything_fails_for_one_reason_the_rest_is_not_tried(told: Told) -> None:
    outcome = Outcome()
    tried = []

    def fails() -> None:
        tried.append(1)
        raise StoreUnavailable("the server is gone")

    run_jobs([Job(f"{n}", 0, fails) for n in range(500)], outcome, told)
    assert len(outcome.failures) == 500
    assert len(tried) < 100
    assert sum("not tried" in reason for reason in outcome.failures.values()) == 500 - len(tried)


def test_an_interruption_stops_what_is_under_way(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome()
    begun = threading.Event()

    def works() -> None:
        begun.set()
        assert outcome.stopping.wait(10)
        outcome.check()

    def interrupted(*_: object, **__: object) -> None:
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr("octuefs.transfer.jobs.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job(f"{n}", 0, works) for n in range(100)], outcome, told)
    assert outcome.failures == {}
