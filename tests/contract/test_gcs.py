"""What only a bucket has: names that are no paths, metadata, generations, pages, faults on the way, credentials."""

import base64
import gzip
import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from contract.places import Prefix, Proxy

from octuefs.errors import Conflict, NotFound, OctuefsError, PermissionRefused, StoreUnavailable, Unsupported, to_errno
from octuefs.model.paths import CloudLocation
from octuefs.stores import gcs_credentials
from octuefs.stores.base import Access, Kind, ObjectInfo, Skipped
from octuefs.stores.gcs import GcsStore
from octuefs.stores.gcs_failures import failure
from octuefs.stores.gcs_resource import describe, parse_time
from support.gcs import Bucket

SCAN_FIELDS = {"name", "size", "generation", "metageneration", "crc32c", "metadata", "updated", "timeCreated"}
SCAN_FIELDS |= {"contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl"}


def scanned(store: GcsStore) -> dict[str, ObjectInfo]:
    return {item.path: item for item in store.scan() if isinstance(item, ObjectInfo)}


# --- names


@pytest.mark.parametrize(
    "name",
    ["a//b", "/a", "a/../b", "../x", "x/./y", ".", "a/..", "x" * 256, "d/" + "é" * 128, "a//", "./"],
)
def test_a_name_that_cannot_be_a_path_is_skipped_with_the_reason(prefix: Prefix, name: str) -> None:
    prefix.put("good", b"1")
    prefix.put(name, b"1")
    found = list(prefix.store.scan())
    skipped = [item for item in found if isinstance(item, Skipped)]
    assert [item.name for item in skipped] == [name]
    assert skipped[0].reason
    assert [item.path for item in found if isinstance(item, ObjectInfo)] == ["good"]


def test_the_marker_of_the_dataset_s_own_folder_is_no_part_of_it(prefix: Prefix) -> None:
    prefix.bucket.put("data/", b"")
    prefix.put("f", b"1")
    assert list(scanned(prefix.store)) == ["f"]


def test_a_file_and_a_folder_of_one_name_are_both_told(prefix: Prefix) -> None:
    prefix.put("a", b"1")
    prefix.put("a/b", b"2")
    assert list(scanned(prefix.store)) == ["a", "a/b"]


def test_a_whole_bucket_is_a_dataset(bucket: Bucket) -> None:
    bucket.put("f", b"1")
    bucket.put("d/g", b"2")
    store = GcsStore(CloudLocation(bucket.name, ""), endpoint=bucket.server.endpoint)
    store.check()
    assert list(scanned(store)) == ["d/g", "f"]
    assert store.read_small("d/g", 10) == b"2"
    store.close()


def test_neighbours_whose_names_begin_alike_are_no_part_of_the_dataset(prefix: Prefix) -> None:
    prefix.put("f", b"1")
    prefix.bucket.put("database/g", b"1")
    prefix.bucket.put("data", b"1")
    assert list(scanned(prefix.store)) == ["f"]


# --- metadata


def test_custom_metadata_mode_and_mtime_come_with_the_listing(prefix: Prefix) -> None:
    metadata = {
        "octue__labels": '{"_type": "set", "items": ["a"]}',
        "goog-reserved-posix-mode": "100755",
        "goog-reserved-file-mtime": "1600000000.123456789",
    }
    prefix.put("f", b"1", metadata)
    info = scanned(prefix.store)["f"]
    assert info.custom_metadata == metadata
    assert (info.mode, info.mtime_ns) == (0o100755, 1_600_000_000_123_456_789)
    assert prefix.store.stat("f") == info


def test_patching_metadata_changes_version_and_ctime_but_not_mtime_and_content(prefix: Prefix) -> None:
    prefix.put("f", b"1", {"octue__id": '"x"'})
    before = prefix.store.stat("f")
    prefix.bucket.patch_metadata("data/f", {"octue__id": '"y"'})
    after = prefix.store.stat("f")
    assert after.custom_metadata == {"octue__id": '"y"'}
    assert (after.mtime_ns, after.crc32c, after.inode) == (before.mtime_ns, before.crc32c, before.inode)
    assert after.version != before.version
    assert after.ctime_ns >= before.ctime_ns


@pytest.mark.parametrize(
    ("metadata", "mode", "mtime_ns"),
    [
        ({}, 0o100644, 1_700_000_000_250_000_000),
        ({"goog-reserved-posix-mode": "600"}, 0o100600, 1_700_000_000_250_000_000),
        ({"goog-reserved-posix-mode": "rwx", "goog-reserved-file-mtime": "x"}, 0o100644, 1_700_000_000_250_000_000),
        ({"goog-reserved-file-mtime": "NaN"}, 0o100644, 1_700_000_000_250_000_000),
        ({"goog-reserved-file-mtime": "9e99"}, 0o100644, 1_700_000_000_250_000_000),
        ({"goog-reserved-file-mtime": "7"}, 0o100644, 7_000_000_000),
    ],
)
def test_reserved_metadata_that_makes_no_sense_counts_as_none(
    metadata: dict[str, str], mode: int, mtime_ns: int
) -> None:
    resource = {"timeCreated": "2023-11-14T22:13:20.250Z", "metadata": metadata, "size": "3"}
    info = describe(CloudLocation("b", "p"), "f", Kind.FILE, resource)
    assert (info.mode, info.mtime_ns, info.crc32c, info.size) == (mode, mtime_ns, None, 3)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000_000_000),
        ("yesterday", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_times_are_parsed_to_the_nanosecond(text: str | None, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds


def test_objects_have_no_foreign_attributes(prefix: Prefix) -> None:
    prefix.put("f", b"1")
    assert prefix.store.list_xattrs("f") == []
    with pytest.raises(Unsupported):
        prefix.store.get_xattr("f", "user.colour")


# --- bytes


def test_an_object_stored_compressed_is_read_as_it_is_stored(prefix: Prefix) -> None:
    stored = gzip.compress(b"time,power\n" * 100)
    resource = json.dumps({"name": "data/f.csv", "contentEncoding": "gzip", "contentType": "text/csv"}).encode()
    body = b"--x\r\nContent-Type: application/json\r\n\r\n%b\r\n--x\r\nContent-Type: text/csv\r\n\r\n%b\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{prefix.bucket.server.endpoint}/upload/storage/v1/b/{prefix.bucket.name}/o?uploadType=multipart",
        data=body % (resource, stored),
        headers={"Content-Type": "multipart/related; boundary=x"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        crc32c = json.loads(reply.read())["crc32c"]
    info = scanned(prefix.store)["f.csv"]
    assert info.size == len(stored)
    assert info.crc32c == int.from_bytes(base64.b64decode(crc32c), "big")
    source = prefix.store.open(info)
    assert source.read(0, 10_000) == stored
    assert source.read(5, 7) == stored[5:12]


def test_an_object_that_was_overwritten_is_a_conflict_and_never_a_mix(prefix: Prefix) -> None:
    prefix.put("f", b"old content")
    source = prefix.store.open(prefix.store.stat("f"))
    assert source.read(0, 3) == b"old"
    prefix.put("f", b"new content")
    with pytest.raises(Conflict, match=r"gs://.*data/f"):
        source.read(4, 7)
    assert prefix.store.read_small("f", 100) == b"new content"


def test_an_object_that_was_removed_while_open_is_a_conflict(prefix: Prefix) -> None:
    prefix.put("f", b"old content")
    source = prefix.store.open(prefix.store.stat("f"))
    prefix.remove("f")
    with pytest.raises(Conflict):
        source.read(0, 3)


def test_a_server_that_answers_with_another_generation_is_a_conflict(proxied: Prefix, proxy: Proxy) -> None:
    proxied.put("f", b"content")
    info = proxied.store.stat("f")
    proxy.answer = lambda path: (206, {"X-Goog-Generation": "1", "Content-Range": "bytes 0-6/7"}, b"CONTENT")
    with pytest.raises(Conflict):
        proxied.store.open(info).read(0, 7)


def test_a_short_answer_is_an_error_and_never_short_data(proxied: Prefix, proxy: Proxy) -> None:
    proxied.put("f", b"content")
    info = proxied.store.stat("f")
    proxy.answer = lambda path: (206, {"Content-Range": "bytes 0-6/7"}, b"cont")
    with pytest.raises(StoreUnavailable, match="other bytes arrived than were asked for"):  # when asked for the rest
        proxied.store.open(info).read(0, 7)


def test_a_server_that_ignores_ranges_is_read_rightly(proxied: Prefix, proxy: Proxy) -> None:
    proxied.put("f", b"content")
    info = proxied.store.stat("f")
    proxy.answer = lambda path: (200, {}, b"content")
    assert proxied.store.open(info).read(2, 3) == b"nte"


def test_a_server_that_fails_once_is_asked_again(proxied: Prefix, proxy: Proxy) -> None:
    proxied.put("f", b"content")
    proxy.answer = lambda path: (503, {}, b"busy") if len(proxy.requests) == 1 else None
    assert list(scanned(proxied.store)) == ["f"]
    assert len(proxy.requests) == 2


# --- requests


def test_a_scan_is_one_request_that_asks_for_no_more_than_is_used(proxied: Prefix, proxy: Proxy) -> None:
    for number in range(30):
        proxied.put(f"d{number % 3}/{number}", b"1", {"octue__id": '"x"'})
    assert len(scanned(proxied.store)) == 30
    assert len(proxy.requests) == 1
    query = parse_qs(urlsplit(proxy.requests[0]).query)
    fields = query["fields"][0]
    assert set(fields[fields.index("items(") + 6 : -1].split(",")) == SCAN_FIELDS
    assert "delimiter" not in query


def test_a_long_listing_is_read_page_by_page(proxied: Prefix, proxy: Proxy) -> None:
    names = [f"{number:03}" for number in range(30)]
    for name in names:
        proxied.put(name, b"1")
    proxy.answer = lambda path: proxy.forward(path.replace("maxResults=1000", "maxResults=7"))
    assert sorted(scanned(proxied.store)) == names
    assert len(proxy.requests) == 5


def test_stat_and_reads_are_one_request_each_and_opening_is_none(proxied: Prefix, proxy: Proxy) -> None:
    proxied.put("f", b"content")
    info = proxied.store.stat("f")
    assert len(proxy.requests) == 1
    source = proxied.store.open(info)
    assert len(proxy.requests) == 1
    assert source.read(0, 3) + source.read(3, 100) + source.read(7, 1) == b"content"
    assert len(proxy.requests) == 3


# --- faults


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (401, b'{"error": {"code": 401, "message": "Anonymous caller"}}', PermissionRefused, "access is refused"),
        (401, b'{"error": {"code": 401, "message": "Invalid Credentials"}}', PermissionRefused, "gcloud auth"),
        (403, b"secret-token", PermissionRefused, "access is refused"),
        (404, b"", NotFound, "there is no such bucket"),
        (429, b"slow down", StoreUnavailable, "HTTP 429"),
        (503, b"busy", StoreUnavailable, "HTTP 503"),
        (502, b"", StoreUnavailable, "broke off"),
        (400, b'{"error": {"code": 400, "message": "Invalid bucket name: invalid"}}', OctuefsError, "bucket's name"),
    ],
)
def test_check_says_in_words_what_is_wrong(
    proxied: Prefix, proxy: Proxy, status: int, body: bytes, error: type[OctuefsError], text: str
) -> None:
    proxy.answer = lambda path: (status, {}, body)
    begin = time.monotonic()
    with pytest.raises(error, match=text) as caught:
        proxied.store.check()
    assert time.monotonic() - begin < 10
    assert "secret-token" not in str(caught.value)
    assert "http://" not in str(caught.value)


def test_a_dead_endpoint_is_told_quickly_and_without_noise(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    store = GcsStore(CloudLocation("b", "p"), endpoint="127.0.0.1:1")
    begin = time.monotonic()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(StoreUnavailable, match=r"cannot reach 127.0.0.1:1 \(Connection refused\)"),
    ):
        store.check()
    assert time.monotonic() - begin < 15
    store.close()
    assert not [record for record in caplog.records if record.name.startswith(("gcsfs", "google"))]
    assert capfd.readouterr().err == ""


def test_something_that_is_no_gcs_is_named_so(proxied: Prefix, proxy: Proxy) -> None:
    proxy.answer = lambda path: (200, {"Content-Type": "text/html"}, b"<html>Log in to the hotel's network</html>")
    for use in (proxied.store.check, lambda: list(proxied.store.scan())):
        with pytest.raises(StoreUnavailable, match="does not answer as Google Cloud Storage does"):
            use()


def test_what_a_vendor_never_raised_before_is_an_io_error_without_its_text() -> None:
    error = failure(RuntimeError("https://x/?token=secret"), "gs://b/o")
    assert to_errno(error) == 5
    assert "secret" not in str(error)
    assert "gs://b/o" in str(error)


# --- connecting


@pytest.mark.parametrize("form", ["{endpoint}", "{host}", "{endpoint}/", "{endpoint}/storage/v1"])
def test_each_form_of_the_emulator_variable_is_understood(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    bucket.put("data/f", b"1")
    endpoint = bucket.server.endpoint
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", form.format(endpoint=endpoint, host=urlsplit(endpoint).netloc))
    store = GcsStore(CloudLocation(bucket.name, "data"))
    store.check()
    assert (store.endpoint, list(scanned(store))) == (endpoint, ["f"])
    assert store.read_small("f", 1) == b"1"
    store.close()


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code without any of this machine's credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    # 127.0.0.1:1 stands for a metadata server that is not there: nothing is asked of the real network.
    metadata = {"GCE_METADATA_IP": "127.0.0.1:1", "GCE_METADATA_HOST": "127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(home), **metadata, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CHECK = """
import time
from octuefs.errors import OctuefsError
from octuefs.model.paths import CloudLocation
from octuefs.stores.gcs import GcsStore
begin = time.monotonic()
try:
    GcsStore(CloudLocation("b", "p")).check()
except OctuefsError as error:
    print(type(error).__name__, error, time.monotonic() - begin < 20)
"""


def test_missing_credentials_are_told_with_the_remedy_quickly_and_without_noise(tmp_path: Path) -> None:
    result = run(CHECK, tmp_path)
    assert result.stderr == ""
    assert result.stdout.startswith("NoCredentials no Google credentials found; run `gcloud auth")
    assert "--anonymous" in result.stdout
    assert result.stdout.endswith("True\n")


def test_credentials_that_are_no_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"private_key": "secret"')
    for name, reason in (("key.json", "not usable"), ("missing.json", "no such file")):
        result = run(CHECK, tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / name))
        assert result.stdout.startswith("PermissionRefused the credentials that GOOGLE_APPLICATION_CREDENTIALS names")
        assert reason in result.stdout
        assert "secret" not in result.stdout + result.stderr


def test_importing_the_store_imports_no_client_library(tmp_path: Path) -> None:
    code = "import sys, octuefs.stores.gcs; print([m for m in ('gcsfs', 'aiohttp', 'google.auth') if m in sys.modules])"
    assert run(code, tmp_path).stdout == "[]\n"


def test_a_child_process_connects_anew(prefix: Prefix) -> None:
    prefix.put("f", b"content")
    assert prefix.store.read_small("f", 10) == b"content"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, prefix.store.read_small("f", 10))
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert prefix.store.read_small("f", 10) == b"content"


def test_credentials_are_asked_for_reading_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("google.auth.default", lambda scopes: (asked.extend(scopes), None))
    gcs_credentials.credentials(Access(), gcs_credentials.READING)
    assert asked == ["https://www.googleapis.com/auth/devstorage.read_only"]


def test_a_bucket_is_never_replaced(prefix: Prefix) -> None:
    assert not prefix.store.reopen_if_replaced()


def test_a_bucket_whose_requester_pays_is_named_so_with_the_option() -> None:
    error = ValueError("Bad Request: Bucket is a requester pays bucket but no user project provided.")
    failed = failure(error, "gs://b/f")
    assert isinstance(failed, PermissionRefused)
    assert str(failed) == ("gs://b/f: whoever asks has to pay; name the project that is to pay with --billing-project")
