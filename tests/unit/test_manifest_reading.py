"""Where a manifest's text comes from: a disk, a bucket, a URL that may be signed."""

import gzip
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from unit.memory_store import MemoryStore

from octuefs import manifests
from octuefs.errors import BadValue, NotFound, OctuefsError, PermissionRefused, StoreUnavailable, TimedOut
from octuefs.manifests import base_of, manifest_at, read_manifest
from octuefs.model.links import expiry_of, refusal_of
from octuefs.model.paths import CloudLocation, LocalLocation, UrlLocation
from octuefs.stores import signed_http
from octuefs.stores.base import Store
from octuefs.wiring import fetch_text

SECRET = "X-Goog-Signature=5ec2e7"
TEXT = b'{"datasets": {"wind": "turbines"}}'


def no_bucket(location: CloudLocation) -> Store:
    raise AssertionError(f"{location} was asked")


def no_web(url: str, limit: int) -> bytes:
    raise AssertionError("a URL was asked")


# --- a disk


def test_a_local_file_is_a_manifest_and_a_folder_is_a_dataset(tmp_path: Path) -> None:
    file = tmp_path / "any.name"
    file.write_bytes(TEXT)
    manifest = read_manifest(LocalLocation(str(file)), no_bucket, no_web)
    assert manifest is not None
    assert manifest.datasets["wind"].path == str(tmp_path / "turbines")
    assert read_manifest(LocalLocation(str(tmp_path)), no_bucket, no_web) is None
    assert read_manifest(LocalLocation(str(tmp_path / "missing")), no_bucket, no_web) is None


def test_what_is_wrong_with_a_file_is_said_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text("{")
    with pytest.raises(BadValue, match=rf"^{file}: the manifest is not JSON"):
        read_manifest(LocalLocation(str(file)), no_bucket, no_web)
    with pytest.raises(NotFound, match="missing"):
        manifest_at(LocalLocation(str(tmp_path / "missing")), no_bucket, no_web)
    with pytest.raises(OctuefsError, match="directory"):
        manifest_at(LocalLocation(str(tmp_path)), no_bucket, no_web)


def test_a_file_beyond_all_manifests_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "LONGEST_MANIFEST", 1 << 20)
    file = tmp_path / "large"
    with file.open("wb") as writing:
        writing.truncate((1 << 20) + 1)
    with pytest.raises(BadValue, match="larger than 1 MiB"):
        read_manifest(LocalLocation(str(file)), no_bucket, no_web)


# --- a bucket


class Opener:
    """A bucket of one folder; notes what was opened."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.opened: list[CloudLocation] = []

    def __call__(self, location: CloudLocation) -> Store:
        self.opened.append(location)
        return self.store


@pytest.fixture
def opener() -> Opener:
    return Opener(MemoryStore())


def test_an_object_named_json_is_a_manifest(opener: Opener) -> None:
    opener.store.put("m.json", TEXT)
    manifest = read_manifest(CloudLocation("bucket", "in/here/m.json"), opener, no_web)
    assert manifest is not None
    assert manifest.datasets["wind"].path == "gs://bucket/in/here/turbines"
    assert opener.opened == [CloudLocation("bucket", "in/here")]
    top = read_manifest(CloudLocation("bucket", "m.json"), opener, no_web)
    assert top is not None
    assert top.datasets["wind"].path == "gs://bucket/turbines"


def test_a_prefix_named_json_is_a_dataset(opener: Opener) -> None:
    opener.store.put("m.json/a", b"")
    assert read_manifest(CloudLocation("bucket", "m.json"), opener, no_web) is None
    assert read_manifest(CloudLocation("bucket", "other.json"), opener, no_web) is None


def test_other_objects_are_manifests_where_they_are_asked_for(opener: Opener) -> None:
    opener.store.put("m", TEXT)
    assert read_manifest(CloudLocation("bucket", "m"), opener, no_web) is None
    assert opener.opened == []
    assert manifest_at(CloudLocation("bucket", "m"), opener, no_web).datasets.keys() == {"wind"}
    with pytest.raises(NotFound):
        manifest_at(CloudLocation("bucket", ""), opener, no_web)


def test_a_large_object_is_not_read(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "LONGEST_MANIFEST", 10)
    opener.store.put("m.json", TEXT)
    with pytest.raises(BadValue, match="larger than"):
        read_manifest(CloudLocation("bucket", "m.json"), opener, no_web)


# --- a URL


class Web:
    """A server on this machine that answers what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                status, body, headers = web.answers.pop(0) if len(web.answers) > 1 else web.answers[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.answers.append((status, body, {name.replace("_", "-"): value for name, value in headers.items()}))

    def url(self, path: str = "bucket/in/m.json", query: str = SECRET) -> UrlLocation:
        return UrlLocation(f"http://127.0.0.1:{self.server.server_port}/{path}?{query}")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(signed_http, "_FEW_PAUSES", (0.0, 0.0))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    server = Web()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_url_answers_a_manifest(web: Web) -> None:
    web.answer(200, TEXT)
    source = web.url()
    manifest = read_manifest(source, no_bucket, fetch_text)
    assert manifest is not None
    assert manifest.datasets["wind"].path == f"http://127.0.0.1:{web.server.server_port}/bucket/in/turbines"
    assert web.asked == [f"/bucket/in/m.json?{SECRET}"]


def test_a_url_answers_a_shared_dataset(web: Web) -> None:
    web.answer(200, json.dumps({"path": "gs://b/p", "files": []}).encode())
    assert read_manifest(web.url(), no_bucket, fetch_text) is None


def test_a_packed_answer_is_unpacked(web: Web) -> None:
    web.answer(200, gzip.compress(TEXT), Content_Encoding="gzip")
    assert read_manifest(web.url(), no_bucket, fetch_text) is not None


def test_a_redirection_is_followed(web: Web) -> None:
    web.answer(302, Location="/elsewhere")
    web.answer(200, TEXT)
    assert read_manifest(web.url(), no_bucket, fetch_text) is not None


@pytest.mark.parametrize("location", ["http://[bad", "ftp://host/m.json", "mailto:me"])
def test_a_redirection_to_what_is_no_url_is_said(web: Web, location: str) -> None:
    web.answer(302, Location=location)
    with pytest.raises(StoreUnavailable, match="redirects to what is no URL") as caught:
        read_manifest(web.url(), no_bucket, fetch_text)
    assert caught.value.__context__ is None


def test_a_busy_server_is_asked_again(web: Web) -> None:
    web.answer(503)
    web.answer(429)
    web.answer(200, TEXT)
    assert read_manifest(web.url(), no_bucket, fetch_text) is not None
    assert len(web.asked) == 3


def long_ago() -> str:
    return f"X-Goog-Date=20200102T030405Z&X-Goog-Expires=3600&{SECRET}"


@pytest.mark.parametrize(
    ("status", "query", "error", "words"),
    [
        (404, SECRET, NotFound, "there is nothing"),
        (410, SECRET, NotFound, "there is nothing"),
        (400, long_ago(), PermissionRefused, "the link expired on 2020-01-02 04:04 UTC; ask for a new one"),
        (403, SECRET, PermissionRefused, "the link was refused"),
        (401, SECRET, PermissionRefused, "the link was refused"),
        (503, SECRET, StoreUnavailable, "HTTP 503"),
        (302, SECRET, StoreUnavailable, "redirects elsewhere"),
        (204, SECRET, StoreUnavailable, "HTTP 204"),
        (200, SECRET, BadValue, "the manifest is not JSON"),
    ],
)
def test_what_goes_wrong_is_said_without_the_query(
    web: Web, status: int, query: str, error: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Location": "/again?" + SECRET} if status == 302 else {}
    web.answer(status, b"" if status == 204 else b"<html>", **headers)
    with caplog.at_level("INFO"), pytest.raises(error, match=words) as caught:
        read_manifest(web.url(query=query), no_bucket, fetch_text)
    assert "Signature" not in "".join([str(caught.value), repr(caught.value.__cause__), caplog.text])


def test_a_server_that_is_not_there_is_said_without_the_query(web: Web) -> None:
    source = web.url()
    web.server.shutdown()
    web.server.server_close()
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        read_manifest(source, no_bucket, fetch_text)
    assert "Signature" not in str(caught.value)


def test_a_server_that_says_nothing_is_not_waited_for_without_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_http, "_SILENCE_SECONDS", 0.1)
    web.answer(200, b"", Content_Length="10")
    with pytest.raises((TimedOut, StoreUnavailable)) as caught:
        read_manifest(web.url(), no_bucket, fetch_text)
    assert "Signature" not in str(caught.value)


def test_an_answer_beyond_all_manifests_is_not_read_to_its_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "LONGEST_MANIFEST", 1 << 20)
    web.answer(200, b" " * (3 << 20))
    with pytest.raises(BadValue, match="larger than"):
        read_manifest(web.url(), no_bucket, fetch_text)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://storage.googleapis.com/b/in/m%20x/m.json?" + SECRET, "gs://b/in/m x"),
        ("https://b.storage.googleapis.com/in/m.json?" + SECRET, "gs://b/in"),
        ("https://storage.googleapis.com/b/m.json", "gs://b"),
        ("https://host/in/m.json?" + SECRET, "https://host/in"),
        ("https://me:word@host/in/m.json", "https://host/in"),
        ("http://127.0.0.1:4443/b/in/m.json", "gs://b/in"),
    ],
)
def test_the_folder_of_an_object_given_by_its_url_is_in_the_bucket(
    url: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:4443")
    assert base_of(UrlLocation(url)) == base


# --- until when a link may be used


def test_a_link_tells_when_it_expires() -> None:
    assert expiry_of("https://h/b/o?" + long_ago()) == datetime(2020, 1, 2, 4, 4, 5, tzinfo=UTC)
    assert expiry_of("https://h/b/o?x-amz-date=20200102T030405Z&X-Amz-Expires=1") == datetime(
        2020, 1, 2, 3, 4, 6, tzinfo=UTC
    )
    assert expiry_of("https://h/b/o?Expires=86400&Signature=x") == datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        "",
        SECRET,
        "Expires=soon",
        "Expires=" + "9" * 30,
        "X-Goog-Expires=1",
        "X-Goog-Date=x&X-Goog-Expires=1",
        "X-Goog-Date=20200102T030405Z&X-Goog-Expires=" + "9" * 30,
    ],
)
def test_a_link_that_does_not_say_when_it_expires_is_borne(query: str) -> None:
    assert expiry_of(f"https://h/b/o?{query}") is None


def test_a_refusal_says_whether_the_time_is_over() -> None:
    link = "https://h/b/o?" + long_ago()
    end = expiry_of(link)
    assert end is not None
    assert "expired on 2020-01-02 04:04 UTC" in refusal_of(link, end)
    assert "was refused" in refusal_of(link, end - timedelta(seconds=1))
