"""Datasets that are shared by a signed URL: on a server that refuses, expires, replaces and breaks off."""

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from octuefs.errors import BadValue, Conflict, NotFound, OctuefsError, PermissionRefused, StoreUnavailable, TimedOut
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.hashes import encode_crc32c, extend_crc32c
from octuefs.model.paths import SIGNED_METADATA_NAME, CloudLocation, UrlLocation
from octuefs.report import Report
from octuefs.stores import signed_http
from octuefs.stores.base import Kind, ObjectInfo, Skipped
from octuefs.stores.signed_http import SignedLinks
from octuefs.stores.signed_url import SignedUrlStore, location_of
from support.signed import SECRET, Answer, Asked, SignedServer

FOLDER = "bucket/data/set"
DATA = bytes(range(256)) * 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SignedServer]:
    for pauses in ("_PAUSES", "_FEW_PAUSES"):
        monkeypatch.setattr(signed_http, pauses, (0.001, 0.001))
    server = SignedServer()
    yield server
    server.close()


def put(server: SignedServer, *names: str, data: bytes = DATA) -> None:
    for name in names:
        server.put(f"{FOLDER}/{name}", data)


def opened(url: str) -> SignedUrlStore:
    return SignedUrlStore(UrlLocation(url))


def shared(server: SignedServer, *names: str) -> SignedUrlStore:
    put(server, *names)
    return opened(server.share(FOLDER, names))


def scanned(store: SignedUrlStore) -> dict[str, ObjectInfo]:
    return {item.path: item for item in store.scan() if isinstance(item, ObjectInfo)}


def skipped(store: SignedUrlStore) -> dict[str, str]:
    return {item.name: item.reason for item in store.scan() if isinstance(item, Skipped)}


# --- what a document says


def test_files_have_their_places_below_what_stands_before_the_signed_folder(server: SignedServer) -> None:
    store = shared(server, "a.csv", "sub/b c.csv", "sub/percent%2Fé#?.csv")
    store.check()
    found = scanned(store)
    assert sorted(found) == ["a.csv", "sub/b c.csv", "sub/percent%2Fé#?.csv"]
    assert {info.origin for info in found.values()} == {f"gs://{FOLDER}/{path}" for path in found}
    assert store.location == CloudLocation("bucket", "data/set")


def test_the_document_is_read_once_to_begin_with_and_anew_by_each_later_scan(server: SignedServer) -> None:
    store = shared(server, "a.csv")

    def times_read() -> int:
        return sum(SIGNED_METADATA_NAME in asked.name for asked in server.asked)

    store.check()
    assert sorted(scanned(store)) == ["a.csv"]
    assert times_read() == 1
    scanned(store)
    assert times_read() == 2


def test_a_file_outside_of_the_dataset_stands_at_the_top_and_two_of_a_name_are_numbered(server: SignedServer) -> None:
    server.put("other/x/a.csv", b"outside")
    server.put("third/a.csv", b"outside too")
    put(server, "a.csv")
    files = [server.url(name) for name in (f"{FOLDER}/a.csv", "other/x/a.csv", "third/a.csv")]
    store = opened(server.share(FOLDER, (), files=[*files, files[0]]))
    found = scanned(store)
    assert {path: info.origin for path, info in found.items()} == {
        "a.csv": f"gs://{FOLDER}/a.csv",
        "a~2.csv": "gs://other/x/a.csv",
        "a~3.csv": "gs://third/a.csv",
    }
    assert store.open(found["a~2.csv"]).read(0, 99) == b"outside"


@pytest.mark.parametrize("name", ["a/../b", "a//b", "./a", "x/" + "y" * 256, "nul\0"])
def test_a_name_that_cannot_be_a_path_is_skipped_with_the_reason(server: SignedServer, name: str) -> None:
    put(server, "good")
    store = opened(server.share(FOLDER, ["good", name]))
    assert list(scanned(store)) == ["good"]
    ((told, reason),) = skipped(store).items()
    assert told == name
    assert "component" in reason or "NUL" in reason
    assert not [asked for asked in server.asked if asked.name.endswith(name)]


def test_a_file_that_is_named_by_no_url_is_skipped(server: SignedServer) -> None:
    put(server, "good")
    files = [server.url(f"{FOLDER}/good"), "/etc/passwd", "gs://bucket/data/set/x", "http://[::1/broken?s=" + SECRET]
    store = opened(server.share(FOLDER, (), files=files))
    assert list(scanned(store)) == ["good"]
    assert list(skipped(store)) == [f"file {number} of the shared dataset" for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"<html>", "it is no JSON"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"[1]", "it holds no JSON object"),
        (b"{}", "no list of URLs"),
        (b'{"files": "https://x/y"}', "no list of URLs"),
        (b'{"files": ["https://x/y", 5]}', "no list of URLs"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"files": [], "tags": ' + b"[" * 200 + b"]" * 200 + b"}", "nest|deep"),
    ],
)
def test_what_is_no_shared_dataset_is_refused_in_words(server: SignedServer, text: bytes, words: str) -> None:
    with pytest.raises(BadValue, match=rf"slug-of-hope: it is no shared dataset: .*({words})"):
        opened(server.share_text(FOLDER, text)).check()


def test_a_document_that_is_too_large_is_not_taken(server: SignedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octuefs.stores.signed_url.LARGEST_DOCUMENT", 100)
    with pytest.raises(BadValue, match="larger than 100 bytes"):
        opened(server.share_text(FOLDER, b" " * 101)).check()


def test_a_dataset_without_files_is_empty(server: SignedServer) -> None:
    store = opened(server.share(FOLDER, ()))
    store.check()
    assert list(store.scan()) == []
    assert store.stat("").kind is Kind.FOLDER


def test_the_document_s_fields_are_the_dataset_s_and_its_links_stay_in_the_store(server: SignedServer) -> None:
    put(server, "a")
    fields = {"tags": {"when": {"_type": "datetime", "value": "2024-01-01"}}, "labels": ["one"], "unknown": SECRET}
    store = opened(server.share(FOLDER, ["a"], **fields))
    store.check()
    assert store.record is not None
    assert (store.record.name, store.record.labels) == ("shared", {"one"})
    assert store.record.tags == fields["tags"]
    assert store.record.files is None
    assert not store.record.unread
    assert SECRET not in repr(store.record)


def test_bad_fields_are_told_and_count_as_absent(server: SignedServer) -> None:
    store = opened(server.share(FOLDER, (), id="no uuid", labels=["Not A Label"], tags=5))
    store.check()
    assert store.record is not None
    assert (store.record.id, store.record.labels, dict(store.record.tags)) == (None, frozenset(), {})
    assert len(store.problems) == 3


def test_without_a_path_in_the_document_the_url_says_where_the_dataset_lives(server: SignedServer) -> None:
    for path in (None, 5, "/local", "gs://", "gs://b/../x"):
        store = opened(server.share(FOLDER, (), path=path))
        store.check()
        assert store.location == CloudLocation("bucket", "data/set")


def test_a_bucket_may_stand_in_the_host_or_in_the_path() -> None:
    for url in (
        "https://storage.googleapis.com/bucket/a%20b/.signed_metadata_files/slug?x=y",
        "https://bucket.storage.googleapis.com/a%20b/.signed_metadata_files/slug?x=y",
    ):
        assert location_of(url) == CloudLocation("bucket", "a b")
    assert location_of("https://storage.googleapis.com/bucket/.signed_metadata_files/s") == CloudLocation("bucket", "")


# --- what headers say


def test_headers_tell_size_hash_and_metadata_whatever_their_case(server: SignedServer) -> None:
    metadata = {
        "octue__labels": '{"_type": "set", "items": ["one"]}',
        "Octue__Tags": '{"höhe": "\\u00e9", "naïve": 1}',
        "goog-reserved-file-mtime": "1234567890.5",
        "goog-reserved-posix-mode": "0600",
    }
    server.put(f"{FOLDER}/a", DATA, metadata, Content_Type="text/csv", Cache_Control="no-cache")
    info = scanned(opened(server.share(FOLDER, ["a"])))["a"]
    assert info.size == len(DATA)
    assert info.crc32c == extend_crc32c(0, DATA)
    assert info.custom_metadata is not None
    assert json.loads(info.custom_metadata["octue__tags"]) == {"höhe": "é", "naïve": 1}
    assert info.custom_metadata["octue__labels"] == metadata["octue__labels"]
    assert info.mtime_ns == 1_234_567_890_500_000_000
    assert info.mode & 0o777 == 0o600
    assert info.properties == {"contentType": "text/csv", "cacheControl": "no-cache"}
    assert info.ctime_ns == pytest.approx(server.objects[f"{FOLDER}/a"].stored_ns, abs=2e9)


def test_text_that_is_not_utf_8_is_kept_as_it_came(server: SignedServer) -> None:
    server.put(f"{FOLDER}/a", DATA, {"k": "caf\udce9"})
    assert scanned(opened(server.share(FOLDER, ["a"])))["a"].custom_metadata == {"k": "café"}


def test_the_stored_length_counts_not_that_of_what_is_sent(server: SignedServer) -> None:
    server.put(f"{FOLDER}/a", DATA, None, x_goog_stored_content_encoding="gzip", Content_Encoding="gzip")
    store = opened(server.share(FOLDER, ["a"]))
    info = scanned(store)["a"]
    assert (info.size, info.properties["contentEncoding"]) == (len(DATA), "gzip")
    assert store.open(info).read(0, 9999) == DATA  # as it is stored: not unpacked


def test_a_hash_that_is_not_told_is_none(server: SignedServer) -> None:
    server.put(f"{FOLDER}/a", DATA, None, x_goog_hash="")
    server.put(f"{FOLDER}/b", DATA, None, x_goog_hash="md5=1B2M2Y8AsgTpgAmY7PhCfg==")
    server.put(f"{FOLDER}/c", DATA, None, x_goog_hash="md5=1B2M2Y8AsgTpgAmY7PhCfg==, crc32c=AAAAAA==")
    found = scanned(opened(server.share(FOLDER, ["a", "b", "c"])))
    assert [found[name].crc32c for name in "abc"] == [None, None, 0]


def test_a_link_for_get_alone_tells_the_same(server: SignedServer) -> None:
    server.put(f"{FOLDER}/empty", b"", {"octue__id": '"x"'})
    put(server, "a", "b/c")
    expected = scanned(opened(server.share(FOLDER, ["a", "b/c", "empty"])))
    server.refuses_head = True
    server.asked.clear()
    store = opened(server.share(FOLDER, ["a", "b/c", "empty"]))
    assert scanned(store) == expected
    server.asked.clear()
    assert scanned(store) == expected
    assert {asked.method for asked in server.asked} == {"GET"}  # the refusal is remembered
    assert all(asked.headers.get("range", "bytes=0-0") == "bytes=0-0" for asked in server.asked)


def test_a_server_without_ranges_is_read_all_the_same(server: SignedServer) -> None:
    server.ignores_ranges = server.refuses_head = True
    store = shared(server, "a", "b")
    info = scanned(store)["a"]
    assert info.size == len(DATA)
    assert store.open(info).read(1000, 77) == DATA[1000:1077]


def test_a_server_other_than_google_s_is_read_by_its_etag(server: SignedServer) -> None:
    for etag in ('"one"', '"two"'):
        server.put(f"{FOLDER}/a", DATA, None, x_goog_generation="", ETag=etag)
        store = opened(server.share(FOLDER, ["a"]))
        info = scanned(store)["a"]
        assert info.origin == f"{server.endpoint}/{FOLDER}/a"
        assert store.open(info).read(0, 10) == DATA[:10]
    server.put(f"{FOLDER}/a", DATA, None, x_goog_generation="", ETag='"three"')
    with pytest.raises(Conflict):
        store.open(info).read(0, 10)


def test_requests_have_no_header_that_a_signature_would_have_to_cover(server: SignedServer) -> None:
    store = shared(server, "a")
    store.open(scanned(store)["a"]).read(0, 10)
    for asked in server.asked:
        assert not [name for name in asked.headers if name.startswith("x-goog-")]
        assert asked.headers["accept-encoding"] == "gzip"


def test_one_connection_serves_one_question_after_another(server: SignedServer) -> None:
    put(server, "a")
    links = SignedLinks()
    here, gone = server.url(f"{FOLDER}/a"), server.url(f"{FOLDER}/gone")
    failures = []  # kept, as who reports them does
    for _ in range(3):
        info = links.describe(here, "a")
        assert links.open(here, info).read(0, 10) == DATA[:10]
        with pytest.raises(NotFound) as failure:
            links.describe(gone, "gone")
        failures.append(failure)
        assert links.fetch(here, 1 << 20) == DATA
    links.close()
    assert [asked.method for asked in server.asked] == ["HEAD", "GET", "HEAD", "GET"] * 3
    assert server.connections == 1


# --- reading


def test_reads_are_ranges(server: SignedServer) -> None:
    store = shared(server, "a")
    source = store.open(scanned(store)["a"])
    server.asked.clear()
    assert source.read(100, 50) == DATA[100:150]
    assert source.read(len(DATA) - 5, 50) == DATA[-5:]
    assert source.read(len(DATA), 50) == b""
    assert [asked.headers["range"] for asked in server.asked] == [
        "bytes=100-149",
        f"bytes={len(DATA) - 5}-{len(DATA) - 1}",
    ]


@pytest.mark.parametrize("data", [b"x" * len(DATA), b"shorter", b""])
def test_a_replaced_object_is_a_conflict_and_never_other_bytes(server: SignedServer, data: bytes) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]
    put(server, "a", data=data)
    with pytest.raises(Conflict, match="replaced"):
        store.open(info).read(1000, 10)
    assert store.stat("a").version != info.version


def test_a_removed_object_is_a_conflict_for_who_reads_and_not_found_for_who_asks(server: SignedServer) -> None:
    store = shared(server, "a", "b")
    info = scanned(store)["a"]
    del server.objects[f"{FOLDER}/a"]
    with pytest.raises(Conflict, match="removed"):
        store.open(info).read(0, 10)
    with pytest.raises(NotFound, match="ask for a new link"):
        store.stat("a")
    assert list(scanned(store)) == ["b"]
    assert "there is nothing" in skipped(store)["a"]


def test_an_object_that_is_replaced_between_head_and_get_is_noticed(server: SignedServer) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]

    def replace_once(asked: Asked) -> None:
        server.before = lambda asked: None
        put(server, "a", data=b"y" * len(DATA))

    server.before = replace_once
    with pytest.raises(Conflict):
        store.open(info).read(0, 10)
    server.before = replace_once
    assert store.read_small("a", 10_000) == b"y" * len(DATA)


def test_a_read_that_breaks_off_is_tried_again(server: SignedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]
    breaks = 2

    def cut(asked: Asked) -> Answer | None:
        nonlocal breaks
        breaks -= 1
        headers = {"Content-Length": "10", "x-goog-generation": str(server.objects[asked.name].generation)}
        return (
            None if breaks < 0 else (206, {**headers, "Content-Range": "bytes 0-9/5120", "Connection": "close"}, b"123")
        )

    server.fault = cut
    monkeypatch.setattr(signed_http, "_SILENCE_SECONDS", 0.3)
    store.close()
    assert store.open(info).read(0, 10) == DATA[:10]
    assert breaks == -1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_and_in_the_end_unavailable(server: SignedServer, status: int) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]
    times = 2
    tried = 0

    def busy(asked: Asked) -> Answer | None:
        nonlocal tried
        tried += 1
        return (status, {}, b"") if tried <= times else None

    server.fault = busy
    assert store.open(info).read(0, 10) == DATA[:10]
    tried, times = 0, 99
    with pytest.raises(StoreUnavailable, match=str(status)):
        store.open(info).read(0, 10)
    assert tried == 3
    with pytest.raises(StoreUnavailable):
        list(store.scan())


def test_other_bytes_than_were_asked_for_are_refused(server: SignedServer) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]
    generation = str(server.objects[f"{FOLDER}/a"].generation)
    headers = {"x-goog-generation": generation, "Content-Range": "bytes 5-14/5120"}
    server.fault = lambda asked: (206, headers, b"x" * 10)
    with pytest.raises(StoreUnavailable, match="other bytes"):
        store.open(info).read(0, 10)


def test_a_redirect_is_not_followed(server: SignedServer) -> None:
    store = shared(server, "a")
    server.fault = lambda asked: (302, {"Location": f"{server.endpoint}/elsewhere?{SECRET}"}, b"")
    with pytest.raises(StoreUnavailable, match="redirects"):
        store.check()
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_unavailable(server: SignedServer) -> None:
    store = shared(server, "a")
    server.close()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.check()


def test_a_server_that_says_nothing_times_out(server: SignedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_http, "_SILENCE_SECONDS", 0.1)
    store = shared(server, "a")
    ended = threading.Event()
    server.before = lambda asked: ended.wait(5)
    try:
        with pytest.raises(TimedOut, match="did not answer in time"):
            store.check()
    finally:
        ended.set()


# --- links that are refused


@pytest.mark.parametrize("method", ["document", "file", "bytes"])
def test_an_expired_link_says_since_when(server: SignedServer, method: str) -> None:
    store = shared(server, "a")
    info = scanned(store)["a"]
    server.expired = True
    words = r"the link expired on 2026-01-02 03:04 UTC; ask for a new one"
    with pytest.raises(PermissionRefused, match=words):
        {"document": store.check, "file": lambda: store.stat("a"), "bytes": lambda: store.open(info).read(0, 9)}[
            method
        ]()


def test_a_link_whose_own_date_is_past_is_not_even_sent(server: SignedServer) -> None:
    put(server, "a")
    signed = datetime.now(UTC) - timedelta(days=8)
    store = opened(server.url(f"{FOLDER}/a", signed=signed))
    ended = signed + timedelta(days=7)
    with pytest.raises(PermissionRefused, match=f"the link expired on {ended:%Y-%m-%d %H:%M} UTC; ask for a new one"):
        store.check()
    assert server.asked == []


def test_a_revoked_link_is_refused(server: SignedServer) -> None:
    store = shared(server, "a", "b")
    server.revoked = {f"{FOLDER}/a"}
    assert list(scanned(store)) == ["b"]
    assert "the link was refused" in skipped(store)["a"]
    server.revoked = {f"{FOLDER}/a", f"{FOLDER}/b"}
    with pytest.raises(PermissionRefused, match=r"the link was refused .*; ask for a new one"):
        list(store.scan())
    server.revoked = set(server.objects)
    with pytest.raises(PermissionRefused, match="the link was refused"):
        store.check()


def test_one_refused_file_does_not_make_others_be_read_by_get_alone(server: SignedServer) -> None:
    store = shared(server, "a", "b")
    server.revoked = {f"{FOLDER}/a"}
    scanned(store)
    server.asked.clear()
    scanned(store)
    assert ("HEAD", f"{FOLDER}/b") in {(asked.method, asked.name) for asked in server.asked}


# --- with the keeper


def kept(store: SignedUrlStore) -> tuple[Keeper, Report]:
    report = Report()
    store.check()
    keeper = Keeper(store, report, Index(), recursive=True, metadata_ttl=60, told=store.told)
    return keeper, report


def test_a_shared_dataset_is_loaded_with_its_metadata_and_read_anew_with_each_refresh(server: SignedServer) -> None:
    server.put(f"{FOLDER}/a", DATA, {"octue__labels": '["one"]'})
    store = opened(server.share(FOLDER, ["a"], labels=["first"]))
    keeper, report = kept(store)
    keeper.load()
    (datafile,) = keeper.index.members("", ())
    assert (datafile.labels, datafile.hash_value) == ({"one"}, encode_crc32c(extend_crc32c(0, DATA)))
    assert (datafile.cloud_path, datafile.in_cloud) == (f"gs://{FOLDER}/a", True)
    assert keeper.stored.dataset is not None
    assert keeper.stored.dataset.labels == {"first"}
    put(server, "b")
    server.share(FOLDER, ["a", "b"], labels=["second"])
    before = keeper.index.version
    keeper.refresh().result()
    assert {it.path for it in keeper.index.members("", ())} == {"a", "b"}
    assert keeper.stored.dataset.labels == {"second"}
    version = keeper.index.version
    assert version > before
    server.share(FOLDER, ["a", "b"], labels=["third"])
    keeper.refresh().result()
    assert keeper.index.version > version  # texts made of the old record are out of date
    assert report.text() == ""
    keeper.close()


@pytest.mark.expected_logs("expired|cannot answer|is skipped|re-read|there is nothing|Not A Label")
def test_nothing_that_is_said_anywhere_shows_what_authorises(
    server: SignedServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_http, "_SILENCE_SECONDS", 0.1)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.NOTSET)
    put(server, "a", "b", data=DATA)
    server.put("elsewhere/x", DATA)
    files = [
        server.url(name) for name in (f"{FOLDER}/a", f"{FOLDER}/b", f"{FOLDER}/c//d", f"{FOLDER}/gone", "elsewhere/x")
    ]
    url = server.share(FOLDER, (), files=[*files, f"nourl?{SECRET}"], labels=["Not A Label"])
    store = opened(url)
    keeper, report = kept(store)
    keeper.load()
    said = [repr(store), repr(store.record), repr(store.source), str(store.location), *store.problems, report.text()]
    said += [repr(item) for item in store.scan()]
    said += [repr(member) for member in store._known(anew=False).members.values()]
    info = store.stat("a")
    said.append(repr(info))

    def failing() -> Iterator[Answer | None]:
        for status in (301, 400, 401, 403, 404, 412, 416, 418, 429, 500, 503):
            yield status, {"Location": url}, url.encode()
        yield 200, {"Content-Length": "abc"}, b""
        yield 206, {"Content-Range": f"bytes {SECRET}"}, b""
        yield 200, {"Content-Encoding": "gzip", "x-goog-generation": "1"}, url.encode()

    def attempts() -> Iterator[str]:
        source = store.open(info)
        for attempt in (
            store.check,
            lambda: list(store.scan()),
            lambda: store.stat("a"),
            lambda: source.read(0, 10),
            lambda: keeper.refresh().result(),
            lambda: store.read_small("a", 10),
            lambda: SignedLinks().fetch(url, 10),
        ):
            try:
                attempt()
            except OctuefsError as error:
                yield repr(error)
                yield "".join(traceback.format_exception(error))
                yield from (repr(it) for it in chain_of(error))

    for answer in failing():
        server.fault = lambda asked, answer=answer: answer  # type: ignore[misc]
        said += attempts()
    server.fault = lambda asked: None
    server.expired = True
    said += attempts()
    server.close()
    said += attempts()
    for broken in (f"http://127.0.0.1:99999/x?{SECRET}", f"http://{'a' * 70}.b/x?{SECRET}"):
        try:
            SignedLinks().describe(broken, "x")
        except OctuefsError as error:
            said += [repr(error), *(repr(it) for it in chain_of(error))]
    keeper.close()
    said += [report.text(), caplog.text, *(str(record.__dict__) for record in caplog.records)]
    assert len(said) > 100
    assert not [text for text in said if SECRET in text]


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """All that an exception keeps of what went before it."""
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield other
            yield from chain_of(other)


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    server: SignedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, "a")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server.endpoint)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    links = SignedLinks()
    far = server.url(f"{FOLDER}/a").replace(server.endpoint, "http://shared.invalid")
    assert links.describe(far, "a").size == len(DATA)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert links.describe(server.url(f"{FOLDER}/a"), "a").size == len(DATA)
    links.close()
