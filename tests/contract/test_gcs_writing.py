"""Writing to a bucket: uploads, sessions, copies, metadata, markers, and what each failure on the way means."""

import asyncio
import base64
import itertools
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import pytest
from contract.places import Prefix

from octuefs.errors import (
    AlreadyExists,
    BadValue,
    ChecksumMismatch,
    Conflict,
    LocalFailure,
    NameTooLong,
    NotFound,
    OctuefsError,
    Overloaded,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
    TooBig,
)
from octuefs.model.paths import CloudLocation
from octuefs.stores import gcs_credentials, gcs_pieces, gcs_requests, gcs_writing
from octuefs.stores.base import Access, Kind, ObjectInfo
from octuefs.stores.gcs import GcsStore
from octuefs.stores.gcs_failures import Unreachable, refusal
from octuefs.stores.gcs_resource import custom_metadata_size, describe, encode_crc32c
from octuefs.stores.writing import Body, BucketFacts, ObjectProperties, ObjectStore, Precondition, UploadState
from support.gcs import CREDENTIALS, Bucket
from support.keys import service_account_key
from support.strict_gcs import StrictGcs

ANY = Precondition()
NEW = Precondition(0)
PLAIN = ObjectProperties()
MIB = 1 << 20

PROPERTIES = ObjectProperties(
    {"octue__labels": '{"_type": "set", "items": ["a"]}', "Größe": "über"},
    {
        "contentType": "text/csv",
        "contentEncoding": "x-none",
        "contentDisposition": "attachment",
        "contentLanguage": "de",
        "cacheControl": "no-store",
    },
)


def body(data: bytes) -> Body:
    return lambda offset, size: data[offset : offset + size]


def upload(
    store: ObjectStore, path: str, data: bytes, properties: ObjectProperties = PLAIN, condition: Precondition = ANY
) -> ObjectInfo:
    return store.upload(path, body(data), len(data), google_crc32c.value(data), properties, condition)


def generation(info: ObjectInfo) -> int:
    assert isinstance(info.version, tuple)
    return info.version[0]


# --- a server before the server


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}


class Front:
    """Stands before the server and notes requests; `answer` may answer in its place, or break the connection off."""

    Answer = tuple[int, dict[str, str], bytes]
    BREAK = (0, {}, b"")

    def __init__(self, target: str) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Front.Answer | None] = lambda asked: None
        self.target = target
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def says(self, *answers: "Front.Answer | tuple[int, Any] | None") -> None:
        """Give these answers in this order, the last one ever after; None forwards."""
        left = itertools.chain(answers, itertools.repeat(answers[-1]))

        def answer(asked: Asked) -> Front.Answer | None:
            chosen = next(left)
            if chosen is None or len(chosen) == 3:
                return chosen
            return chosen[0], {"Content-Type": "application/json"}, json.dumps(chosen[1]).encode()

        self.answer = answer

    def forward(self, asked: Asked) -> "Front.Answer":
        kept = {name: text for name, text in asked.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(self.target + asked.path, asked.body, kept, method=asked.method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as reply:
                return reply.status, dict(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def _handler(front) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, self.path, dict(self.headers), content)
                front.asked.append(asked)
                status, headers, content = front.answer(asked) or front.forward(asked)
                if not status:
                    self.close_connection = True
                    return
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def problem(status: int, message: str = "", reason: str = "") -> tuple[int, Any]:
    return status, {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}}


@pytest.fixture
def store(prefix: Prefix) -> ObjectStore:
    return prefix.store


@pytest.fixture
def front(bucket: Bucket) -> Iterator[Front]:
    front = Front(bucket.server.endpoint)
    yield front
    front.close()


@pytest.fixture
def fronted(bucket: Bucket, front: Front) -> Iterator[Prefix]:
    """A dataset in a bucket whose requests go through `front`."""
    place = Prefix(bucket, front.endpoint)
    yield place
    place.store.close()


@pytest.fixture
def strict(bucket: Bucket) -> Iterator[StrictGcs]:
    """A server that keeps all of Google's rules."""
    with StrictGcs(bucket.environment) as strict:
        yield strict


@pytest.fixture
def ruled(bucket: Bucket, strict: StrictGcs) -> Iterator[Prefix]:
    """A dataset in a bucket on that server."""
    place = Prefix(strict.bucket(bucket.name))
    yield place
    place.store.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Tries follow each other without a pause; the pauses that there would have been."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(gcs_requests, "asyncio", _Asyncio(sleep))
    return pauses


class _Asyncio:
    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


# --- uploads in one request


@pytest.mark.parametrize("size", [0, 1, 1000, MIB, MIB + 1, 3 * MIB + 7])
def test_an_upload_is_one_request_and_tells_what_now_stands_there(fronted: Prefix, front: Front, size: int) -> None:
    data = os.urandom(size)
    info = upload(fronted.store, "a/é #?&+%", data, PROPERTIES, NEW)
    assert len(front.asked) == 1
    assert fronted.bucket.get("data/a/é #?&+%") == data
    assert (info.kind, info.size, info.crc32c) == (Kind.FILE, size, google_crc32c.value(data))
    assert info.custom_metadata == PROPERTIES.custom_metadata
    assert info.properties == PROPERTIES.fixed
    assert fronted.store.stat("a/é #?&+%") == info
    assert [found for found in fronted.store.scan() if isinstance(found, ObjectInfo)] == [info]


def test_without_a_type_an_object_is_plain_bytes(store: ObjectStore) -> None:
    assert upload(store, "f", b"1").properties == {"contentType": "application/octet-stream"}


def test_content_that_looks_like_a_boundary_arrives_as_it_is(store: ObjectStore) -> None:
    data = b"\r\n--x\r\n\r\n--x--\r\n" * 10
    upload(store, "f", data)
    assert store.read_small("f", 1000) == data


def test_an_upload_over_another_version_is_a_conflict_and_changes_nothing(prefix: Prefix) -> None:
    first = upload(prefix.store, "f", b"first", condition=NEW)
    second = upload(prefix.store, "f", b"second", condition=Precondition(generation(first)))
    for condition in (NEW, Precondition(generation(first))):
        for data in (b"third", bytes(2 * MIB)):
            with pytest.raises(Conflict, match=r"gs://.*data/f"):
                upload(prefix.store, "f", data, condition=condition)
    assert prefix.store.stat("f") == second


def test_preconditions_and_the_checksum_are_sent_along(fronted: Prefix, front: Front) -> None:
    front.says(problem(412))
    for size in (5, 2 * MIB):
        with pytest.raises(Conflict):
            upload(fronted.store, "f", bytes(size), condition=Precondition(12, 3))
    for asked, size in zip(front.asked, (5, 2 * MIB), strict=True):
        assert (asked.query["ifGenerationMatch"], asked.query["ifMetagenerationMatch"]) == ("12", "3")
        resource = json.loads(asked.body.split(b"\r\n")[3])
        assert resource["crc32c"] == base64.b64encode(google_crc32c.value(bytes(size)).to_bytes(4, "big")).decode()
        assert "Transfer-Encoding" not in asked.headers


def test_other_bytes_at_the_server_are_told(fronted: Prefix, front: Front) -> None:
    with pytest.raises(ChecksumMismatch):
        fronted.store.upload("f", body(b"12345"), 5, 1, PLAIN, NEW)
    front.says(problem(400, 'Provided CRC32C "AAAAAQ==" doesn\'t match calculated CRC32C "mnG7TA==".', "invalid"))
    with pytest.raises(ChecksumMismatch):
        upload(fronted.store, "f", b"12345")


@pytest.mark.parametrize("size", [10, 5 * MIB])
@pytest.mark.parametrize("fault", [problem(503), problem(429), problem(500), problem(403, "", "rateLimitExceeded")])
def test_what_may_pass_is_tried_again_from_the_beginning_of_the_body(
    fronted: Prefix, front: Front, at_once: list[float], size: int, fault: tuple[int, Any]
) -> None:
    front.says(fault, Front.BREAK, None)
    data = os.urandom(size)
    assert upload(fronted.store, "f", data).size == size
    assert fronted.bucket.get("data/f") == data
    assert len(front.asked) == 3
    assert 0 < at_once[0] <= 2
    assert 0 < at_once[1] <= 4


def test_a_connection_that_was_idle_too_long_is_opened_anew_at_once(
    fronted: Prefix, front: Front, at_once: list[float]
) -> None:
    front.says(Front.BREAK, None)
    upload(fronted.store, "f", b"1")
    assert at_once == [0]


def test_after_five_tries_an_upload_fails(fronted: Prefix, front: Front, at_once: list[float]) -> None:
    front.says(problem(503))
    with pytest.raises(Overloaded, match="HTTP 503"):
        upload(fronted.store, "f", b"1")
    assert len(front.asked) == 5


def test_a_body_that_ends_early_or_cannot_be_read_is_a_local_failure(
    prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(offset: int, size: int) -> bytes:
        if offset >= 2 * MIB:
            raise OSError(5, "Input/output error")
        return bytes(size)

    for size in (100, 4 * MIB):
        with pytest.raises(LocalFailure, match="early"):
            prefix.store.upload("f", body(bytes(size - 1)), size, 0, PLAIN, NEW)
    with pytest.raises(LocalFailure, match="cannot be read"):
        prefix.store.upload("f", unreadable, 4 * MIB, 0, PLAIN, NEW)
    with pytest.raises(NotFound):
        prefix.store.stat("f")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_body_may_give_less_at_a_time_than_was_asked_for(store: ObjectStore) -> None:
    data = os.urandom(2 * MIB)
    store.upload("f", lambda offset, size: data[offset : offset + 70_000][:size], len(data), *_rest(data))
    assert store.read_small("f", 4 * MIB) == data


def _rest(data: bytes) -> tuple[int, ObjectProperties, Precondition]:
    return google_crc32c.value(data), PLAIN, NEW


def test_a_small_body_is_read_by_the_thread_that_calls(store: ObjectStore) -> None:
    threads = set()

    def reading(offset: int, size: int) -> bytes:
        threads.add(threading.current_thread())
        return b"1"[:size]

    store.upload("f", reading, 1, *_rest(b"1"))
    assert threads == {threading.current_thread()}


def test_a_large_body_is_never_read_on_the_event_loop(store: ObjectStore) -> None:
    threads = set()
    data = bytes(3 * MIB)

    def reading(offset: int, size: int) -> bytes:
        threads.add(threading.current_thread().name)
        return data[offset : offset + size]

    store.upload("f", reading, len(data), *_rest(data))
    assert "fsspecIO" not in threads


def test_a_network_that_takes_nothing_more_is_a_time_out(
    fronted: Prefix, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    monkeypatch.setattr(gcs_pieces, "_PIECE_SECONDS", 0.3)
    stuck = threading.Event()
    monkeypatch.setattr(front._server, "process_request", lambda *_: stuck.wait(5))  # accepts, and reads nothing
    fronted.store.close()
    begin = time.monotonic()
    with pytest.raises(TimedOut):
        fronted.store.send("f", session, body(bytes(64 * MIB)), 0, 64 * MIB, total=None)
    assert time.monotonic() - begin < 4
    stuck.set()


def test_uploads_of_many_threads_arrive(prefix: Prefix) -> None:
    datas = {f"d/{number}": os.urandom(number * 100_000) for number in range(24)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: upload(prefix.store, item[0], item[1], condition=NEW), datas.items()))
    for path, data in datas.items():
        assert prefix.bucket.get(f"data/{path}") == data


# --- names


@pytest.mark.parametrize(
    ("path", "error"),
    [("a\udcff", BadValue), ("a//b", BadValue), ("a/../b", BadValue), ("/".join(["x" * 200] * 6), NameTooLong)],
)
def test_what_can_be_no_name_is_refused_before_anything_is_sent(
    fronted: Prefix, front: Front, path: str, error: type[OctuefsError]
) -> None:
    store = fronted.store
    for use in (
        lambda: upload(store, path, b"1"),
        lambda: store.begin_upload(path, PLAIN, NEW),
        lambda: store.rewrite("f", 1, path, NEW),
        lambda: store.make_marker(path),
    ):
        with pytest.raises(error):
            use()
    assert not front.asked


# --- resumable uploads


def test_an_object_is_sent_in_parts(prefix: Prefix) -> None:
    data = os.urandom(2 * MIB + 12345)
    store = prefix.store
    session = store.begin_upload("f & g", PROPERTIES, NEW)
    assert store.send("f & g", session, body(data), 0, MIB, total=None) == UploadState(MIB)
    assert store.send("f & g", session, body(data), MIB, MIB + 262144, total=None) == UploadState(MIB + 262144)
    state = store.send("f & g", session, body(data), MIB + 262144, len(data), total=len(data))
    assert state == UploadState(len(data), store.stat("f & g"))
    assert state.done is not None
    assert state.done.crc32c == google_crc32c.value(data)
    assert state.done.custom_metadata == PROPERTIES.custom_metadata
    assert state.done.properties == PROPERTIES.fixed
    assert prefix.bucket.get("data/f & g") == data


@pytest.mark.parametrize("size", [0, MIB])
def test_an_upload_may_end_with_no_bytes(prefix: Prefix, size: int) -> None:
    data = os.urandom(size)
    session = prefix.store.begin_upload("f", PLAIN, NEW)
    if size:
        prefix.store.send("f", session, body(data), 0, size, total=None)
    state = prefix.store.send("f", session, body(data), size, size, total=size)
    assert state.done is not None
    assert state.offset == state.done.size == size
    assert prefix.bucket.get("data/f") == data


def test_a_large_object_goes_in_one_request(fronted: Prefix, front: Front) -> None:
    data = os.urandom(20 * MIB)
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    state = fronted.store.send("f", session, body(data), 0, len(data), total=len(data))
    assert state.done is not None
    assert len(front.asked) == 2
    assert front.asked[1].headers["Content-Range"] == f"bytes 0-{len(data) - 1}/{len(data)}"
    assert fronted.bucket.get("data/f") == data


@pytest.mark.parametrize(("reply", "offset"), [({"Range": "bytes=0-262143"}, 262144), ({}, 0)])
def test_the_server_says_how_much_it_kept(fronted: Prefix, front: Front, reply: dict[str, str], offset: int) -> None:
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    front.says((308, reply, b""))
    assert fronted.store.send("f", session, body(bytes(MIB)), 0, MIB, total=None) == UploadState(offset)
    assert fronted.store.upload_state("f", session) == UploadState(offset)
    assert front.asked[-1].headers["Content-Range"] == "bytes */*"
    assert front.asked[-1].headers["Content-Length"] == "0"


def test_the_state_of_an_upload_that_is_complete_is_the_object(fronted: Prefix, front: Front) -> None:
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    resource = fronted.bucket.put("data/f", b"12345")
    front.says((200, resource))
    state = fronted.store.upload_state("f", session)
    front.says(None)
    assert state == UploadState(5, fronted.store.stat("f"))


def test_a_session_asks_for_its_precondition_at_the_beginning(fronted: Prefix, front: Front) -> None:
    fronted.store.begin_upload("f", PROPERTIES, Precondition(7, 2))
    asked = front.asked[0]
    assert (asked.query["ifGenerationMatch"], asked.query["ifMetagenerationMatch"]) == ("7", "2")
    assert asked.headers["X-Upload-Content-Type"] == "text/csv"
    assert json.loads(asked.body) == {
        "name": "data/f",
        "metadata": dict(PROPERTIES.custom_metadata),
        **PROPERTIES.fixed,
    }


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(412), Conflict),
        (problem(404), NotFound),
        (problem(410), NotFound),
        (problem(503), Overloaded),
        (problem(429), Overloaded),
        (problem(504), TimedOut),
        (problem(403), PermissionRefused),
        (problem(400), BadValue),
        (Front.BREAK, Unreachable),
    ],
)
@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_part_that_fails_is_not_sent_again_by_itself(
    fronted: Prefix, front: Front, answer: Any, error: type[OctuefsError], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    secret = parse_qs(urlsplit(session).query)["upload_id"][0]
    front.says(answer, (308, {"Range": "bytes=0-7"}, b""))
    with pytest.raises(error, match=r"gs://.*data/f") as caught:
        fronted.store.send("f", session, body(bytes(size)), 0, size, total=size)
    assert len(front.asked) == 2
    assert fronted.store.upload_state("f", session) == UploadState(8)
    assert secret not in str(caught.value) + caplog.text


def test_a_session_that_nobody_knows_is_gone(store: ObjectStore, bucket: Bucket) -> None:
    session = f"{bucket.server.endpoint}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&upload_id=0"
    with pytest.raises(NotFound, match="session"):
        store.send("f", session, body(b"1"), 0, 1, total=1)
    with pytest.raises(NotFound, match="session"):
        store.upload_state("f", session)


@pytest.mark.parametrize("status", [None, 204, 404, 410, 499])
def test_a_session_can_be_given_up_again_and_again(fronted: Prefix, front: Front, status: int | None) -> None:
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    front.says(None if status is None else (status, {}, b""))
    fronted.store.cancel_upload(session)
    fronted.store.cancel_upload(session)
    assert [asked.method for asked in front.asked] == ["POST", "DELETE", "DELETE"]


def test_a_session_is_only_ever_led_to_the_server_of_the_store(fronted: Prefix, front: Front) -> None:
    front.says((200, {"Location": "http://127.0.0.1:1/upload/x?upload_id=a%2Fb"}, b"{}"), (308, {}, b""))
    session = fronted.store.begin_upload("f", PLAIN, NEW)
    assert session == f"{front.endpoint}/upload/x?upload_id=a%2Fb"
    fronted.store.upload_state("f", "http://elsewhere.invalid/upload/x?upload_id=a%2Fb")
    assert front.asked[-1].path == "/upload/x?upload_id=a%2Fb"


def test_with_google_a_session_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    store = GcsStore(CloudLocation("b", "p"))
    good = "https://storage.googleapis.com/upload/storage/v1/b/b/o?upload_id=x"
    assert store._session_url(good, "f") == good
    for bad in ("", "http://storage.googleapis.com/upload", "https://evil.example/upload", "/upload"):
        with pytest.raises(StoreUnavailable):
            store._session_url(bad, "f")


# --- joining and copying


def test_objects_are_joined_on_the_server(prefix: Prefix) -> None:
    store = prefix.store
    parts = [(path, generation(upload(store, path, data))) for path, data in (("a", b"one"), ("b", b"two"))]
    info = store.compose("d/whole", parts, PROPERTIES, NEW)
    assert store.read_small("d/whole", 100) == b"onetwo"
    assert info == store.stat("d/whole")
    assert info.custom_metadata == PROPERTIES.custom_metadata
    assert info.crc32c == google_crc32c.value(b"onetwo")


def test_each_part_and_the_target_are_pinned(fronted: Prefix, front: Front) -> None:
    front.says(problem(412))
    with pytest.raises(Conflict):
        fronted.store.compose("whole", [("whole", 5), ("part", 6)], PROPERTIES, Precondition(5, 1))
    asked = front.asked[0]
    assert (asked.query["ifGenerationMatch"], asked.query["ifMetagenerationMatch"]) == ("5", "1")
    content = json.loads(asked.body)
    assert [(part["name"], part["generation"], part["objectPreconditions"]) for part in content["sourceObjects"]] == [
        ("data/whole", "5", {"ifGenerationMatch": "5"}),
        ("data/part", "6", {"ifGenerationMatch": "6"}),
    ]
    assert content["destination"] == {"metadata": dict(PROPERTIES.custom_metadata), **PROPERTIES.fixed}
    front.says(problem(404))
    with pytest.raises(NotFound):
        fronted.store.compose("whole", [("part", 6)], PLAIN, ANY)


def test_a_copy_has_all_that_is_stored_along(prefix: Prefix) -> None:
    source = upload(prefix.store, "f", b"content", PROPERTIES)
    info = prefix.store.rewrite("f", generation(source), "d/é g", NEW)
    assert info == prefix.store.stat("d/é g")
    assert prefix.store.read_small("d/é g", 100) == b"content"
    assert (info.custom_metadata, info.properties) == (source.custom_metadata, source.properties)
    assert prefix.store.stat("f") == source


def test_a_version_that_is_gone_is_not_copied(prefix: Prefix) -> None:
    old = upload(prefix.store, "f", b"old")
    upload(prefix.store, "f", b"new")
    for source in ("f", "missing"):
        with pytest.raises(NotFound):
            prefix.store.rewrite(source, generation(old), "g", NEW)
    with pytest.raises(NotFound):
        prefix.store.stat("g")


def test_a_long_copy_is_asked_for_until_it_is_done(fronted: Prefix, front: Front) -> None:
    resource = fronted.bucket.put("data/g", b"123")
    front.says(
        (200, {"done": False, "rewriteToken": "t 1"}),
        (200, {"done": False, "rewriteToken": "t 2"}),
        (200, {"done": True, "resource": resource}),
    )
    assert fronted.store.rewrite("f", 5, "g", Precondition(6)).size == 3
    assert [asked.query.get("rewriteToken") for asked in front.asked] == [None, "t 1", "t 2"]
    for asked in front.asked:
        assert asked.body == b""
        assert asked.query["ifGenerationMatch"] == "6"
        assert asked.query["sourceGeneration"] == asked.query["ifSourceGenerationMatch"] == "5"


def test_a_copy_that_is_refused_says_whether_source_or_target_changed(fronted: Prefix, front: Front) -> None:
    front.says(problem(412), (200, {"generation": "5"}))
    with pytest.raises(Conflict):
        fronted.store.rewrite("f", 5, "g", NEW)
    for now in ((200, {"generation": "6"}), problem(404)):
        front.says(problem(412), now)
        with pytest.raises(NotFound, match="data/f"):
            fronted.store.rewrite("f", 5, "g", NEW)


def test_a_copy_that_never_ends_is_a_failure(fronted: Prefix, front: Front) -> None:
    front.says((200, {"done": False}))
    with pytest.raises(StoreUnavailable):
        fronted.store.rewrite("f", 5, "g", NEW)


# --- metadata


def test_a_patch_sets_and_removes_keys_and_leaves_the_others(prefix: Prefix) -> None:
    before = upload(prefix.store, "f", b"1", ObjectProperties({"octue__id": '"x"', "octue__labels": "[]", "mine": ""}))
    info = prefix.store.patch("f", {"octue__labels": None, "octue__tags": "{}"}, Precondition(generation(before), 1))
    assert info.custom_metadata == {"octue__id": '"x"', "octue__tags": "{}", "mine": ""}
    assert info == prefix.store.stat("f")
    assert info.version != before.version
    assert (info.crc32c, info.mtime_ns, info.properties) == (before.crc32c, before.mtime_ns, before.properties)


def test_a_patch_sends_what_changes_and_its_precondition(fronted: Prefix, front: Front) -> None:
    front.says(problem(412))
    with pytest.raises(Conflict):
        fronted.store.patch("f", {"a": "1", "b": None}, Precondition(4, 2))
    assert json.loads(front.asked[0].body) == {"metadata": {"a": "1", "b": None}}
    assert (front.asked[0].query["ifGenerationMatch"], front.asked[0].query["ifMetagenerationMatch"]) == ("4", "2")


def test_a_patch_of_nothing_there_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFound):
        store.patch("missing", {"a": "1"}, ANY)


def test_an_empty_value_counts_as_none_for_our_keys_alone() -> None:
    metadata = {"octue__id": "", "goog-reserved-file-mtime": "", "other": "", "octue__tags": "{}"}
    info = describe(CloudLocation("b", "p"), "f", Kind.FILE, {"metadata": metadata})
    assert info.custom_metadata == {"other": "", "octue__tags": "{}"}
    without = describe(CloudLocation("b", "p"), "f", Kind.FILE, {"metadata": {"other": "", "octue__tags": "{}"}})
    assert info == without


def test_objects_that_are_alike_share_their_properties() -> None:
    one, two = (
        describe(CloudLocation("b", "p"), path, Kind.FILE, {"contentType": "text/csv", "contentEncoding": ""})
        for path in "ab"
    )
    assert one.properties is two.properties
    assert one.properties == {"contentType": "text/csv"}
    assert describe(CloudLocation("b", "p"), "d", Kind.FOLDER, {}).properties == {}


def test_the_size_of_metadata_is_that_of_its_bytes() -> None:
    assert custom_metadata_size({}) == 0
    assert custom_metadata_size({"ab": "c", "é": "日本"}) == 2 + 1 + 2 + 6


def test_a_checksum_is_written_as_google_does() -> None:
    assert encode_crc32c(google_crc32c.value(b"hello")) == "mnG7TA=="
    assert encode_crc32c(0) == "AAAAAA=="


# --- removing, markers, folders


def test_an_object_is_removed_once(prefix: Prefix) -> None:
    info = upload(prefix.store, "f", b"1")
    prefix.store.delete("f", Precondition(generation(info)))
    with pytest.raises(NotFound):
        prefix.store.delete("f", Precondition(generation(info)))
    assert prefix.bucket.list() == []


def test_removing_another_version_is_a_conflict(fronted: Prefix, front: Front) -> None:
    front.says(problem(412))
    with pytest.raises(Conflict):
        fronted.store.delete("f", Precondition(3, 2))
    assert (front.asked[0].query["ifGenerationMatch"], front.asked[0].query["ifMetagenerationMatch"]) == ("3", "2")


def test_a_marker_makes_an_empty_folder_and_is_made_once(prefix: Prefix) -> None:
    first = prefix.store.make_marker("d/e")
    assert (first.path, first.kind, first.size) == ("d/e", Kind.FOLDER, 0)
    assert prefix.store.make_marker("d/e") == first == prefix.store.stat("d/e")
    assert [item["name"] for item in prefix.bucket.list()] == ["data/d/e/"]
    prefix.store.delete_marker("d/e")
    prefix.store.delete_marker("d/e")
    assert prefix.bucket.list() == []


def test_a_marker_that_goes_while_it_is_looked_at_is_made(fronted: Prefix, front: Front) -> None:
    front.says(problem(412), problem(404), None)
    assert fronted.store.make_marker("d").kind is Kind.FOLDER
    assert [item["name"] for item in fronted.bucket.list()] == ["data/d/"]


def test_a_folder_is_moved_by_the_server(fronted: Prefix, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_writing, "_LOOK_SECONDS", (0.01, 0.01))
    name = "projects/_/buckets/b/operations/AbC"
    front.says((200, {"name": name}), (200, {"name": name, "done": False}), (200, {"done": True, "response": {}}))
    fronted.store.rename_folder("a/b", "c d")
    bucket = f"/storage/v1/b/{fronted.bucket.name}"
    assert [urlsplit(asked.path).path for asked in front.asked] == [
        f"{bucket}/folders/data%2Fa%2Fb%2F/renameTo/folders/data%2Fc%20d%2F",
        f"{bucket}/operations/AbC",
        f"{bucket}/operations/AbC",
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, {"done": True, "error": {"code": 5, "message": "secret"}}), NotFound),
        ((200, {"done": True, "error": {"code": 6}}), AlreadyExists),
        ((200, {"done": True, "error": {"code": 9}}), Conflict),
        ((200, {"done": True, "error": {"code": 13}}), StoreUnavailable),
        (problem(404), NotFound),
        (problem(409), AlreadyExists),
        (problem(403), PermissionRefused),
    ],
)
def test_a_folder_that_is_not_moved_says_why(
    fronted: Prefix, front: Front, answer: Any, error: type[OctuefsError]
) -> None:
    front.says(answer)
    with pytest.raises(error, match="data/a") as caught:
        fronted.store.rename_folder("a", "b")
    assert "secret" not in str(caught.value)


# --- against a server that keeps all rules


CHANGES: list[Callable[[ObjectStore, int, Precondition], object]] = [
    lambda store, now, condition: upload(store, "f", b"mine", condition=condition),
    lambda store, now, condition: _in_a_session(store, "f", b"mine", condition),
    lambda store, now, condition: store.compose("f", [("f", now)], PLAIN, condition),
    lambda store, now, condition: store.rewrite("f", now, "f", condition),
    lambda store, now, condition: store.patch("f", {"a": "1"}, condition),
    lambda store, now, condition: store.delete("f", condition),
]
"""What changes the object `f` of generation `now`."""


def test_every_change_needs_the_version_that_it_names(ruled: Prefix) -> None:
    store = ruled.store
    old = upload(store, "f", b"old")
    now = upload(store, "f", b"now", PROPERTIES, Precondition(generation(old), 1))
    for condition in (Precondition(generation(old)), NEW, Precondition(generation(now), 2)):
        for change in CHANGES:
            with pytest.raises(Conflict):
                change(store, generation(now), condition)
    assert store.stat("f") == now
    patched = store.patch("f", {"Größe": None, "octue__id": '"x"'}, Precondition(generation(now), 1))
    assert patched.version[:2] == (generation(now), 2)  # type: ignore[index]
    assert patched == store.stat("f")
    assert set(patched.custom_metadata or ()) == {"octue__labels", "octue__id"}
    store.delete("f", Precondition(generation(now), 2))


def _in_a_session(store: ObjectStore, path: str, data: bytes, condition: Precondition) -> UploadState:
    session = store.begin_upload(path, PLAIN, condition)
    return store.send(path, session, body(data), 0, len(data), total=len(data))


def test_what_is_open_stays_what_it_was(ruled: Prefix) -> None:
    first = upload(ruled.store, "f", b"first")
    source = ruled.store.open(first)
    patched = ruled.store.patch("f", {"a": "1"}, ANY)
    second = upload(ruled.store, "f", b"second")
    assert source.info() == first
    assert source.identity() == ruled.store.open(patched).identity() != ruled.store.open(second).identity()


def test_a_precondition_may_fail_at_the_end_of_a_session(ruled: Prefix) -> None:
    session = ruled.store.begin_upload("f", PLAIN, NEW)
    ruled.store.send("f", session, body(bytes(MIB)), 0, MIB, total=None)
    theirs = upload(ruled.store, "f", b"theirs")
    with pytest.raises(Conflict):
        ruled.store.send("f", session, body(bytes(MIB)), MIB, MIB, total=MIB)
    assert ruled.store.stat("f") == theirs


def test_an_upload_that_breaks_off_again_and_again_goes_on_where_it_was(ruled: Prefix, strict: StrictGcs) -> None:
    data = os.urandom(6 * MIB + 5)
    session = ruled.store.begin_upload("f", PROPERTIES, NEW)
    strict.cut_body(lambda request: request.method == "PUT", 700_000)
    strict.drop(lambda request: request.headers.get("Content-Range", "").endswith(str(len(data))), after_effect=True)
    state, breaks = UploadState(0), 0
    while state.done is None:
        try:
            state = ruled.store.send("f", session, body(data), state.offset, len(data), total=len(data))
        except StoreUnavailable:
            breaks += 1
            state = ruled.store.upload_state("f", session)
    assert breaks == 2
    assert ruled.bucket.get("data/f") == data
    assert state == UploadState(len(data), ruled.store.stat("f"))


def test_what_the_server_did_not_keep_is_sent_again(ruled: Prefix, strict: StrictGcs) -> None:
    data = os.urandom(2 * MIB)
    session = ruled.store.begin_upload("f", PLAIN, NEW)
    strict.keep_less(lambda request: request.method == "PUT", 262144)
    assert ruled.store.send("f", session, body(data), 0, MIB, total=None) == UploadState(262144)
    assert ruled.store.upload_state("f", session) == UploadState(262144)
    assert ruled.store.send("f", session, body(data), 262144, MIB, total=None) == UploadState(MIB)
    done = ruled.store.send("f", session, body(data), MIB, 2 * MIB, total=2 * MIB).done
    assert done is not None
    assert done.crc32c == google_crc32c.value(data)


def test_a_session_that_ended_is_not_found(ruled: Prefix, strict: StrictGcs) -> None:
    given_up, old = (ruled.store.begin_upload("f", PLAIN, NEW) for _ in range(2))
    ruled.store.cancel_upload(given_up)
    ruled.store.cancel_upload(given_up)
    strict.forget_sessions()
    for session in (given_up, old):
        with pytest.raises(NotFound, match="session"):
            ruled.store.send("f", session, body(b"1"), 0, 1, total=1)
        with pytest.raises(NotFound, match="session"):
            ruled.store.upload_state("f", session)


def test_an_upload_whose_answer_was_lost_meets_itself(ruled: Prefix, strict: StrictGcs, at_once: list[float]) -> None:
    strict.drop(lambda request: request.method == "POST", after_effect=True)
    with pytest.raises(Conflict):
        upload(ruled.store, "f", b"mine", condition=NEW)
    assert ruled.store.stat("f").crc32c == google_crc32c.value(b"mine")


def test_a_removal_whose_answer_was_lost_finds_nothing(ruled: Prefix, strict: StrictGcs, at_once: list[float]) -> None:
    info = upload(ruled.store, "f", b"1")
    strict.drop(lambda request: request.method == "DELETE", after_effect=True)
    with pytest.raises(NotFound):
        ruled.store.delete("f", Precondition(generation(info)))
    assert strict.count("DELETE") == 2


def test_a_large_upload_that_breaks_off_is_sent_again_whole(
    ruled: Prefix, strict: StrictGcs, at_once: list[float]
) -> None:
    data = os.urandom(5 * MIB)
    strict.cut_body(lambda request: request.method == "POST", 3 * MIB)
    assert upload(ruled.store, "f", data, PROPERTIES, NEW) == ruled.store.stat("f")
    assert ruled.bucket.get("data/f") == data


def test_a_copy_in_steps_is_whole(ruled: Prefix, strict: StrictGcs) -> None:
    strict.rewrite_in_steps(3)
    source = upload(ruled.store, "f", b"content", PROPERTIES)
    copy = ruled.store.rewrite("f", generation(source), "g", NEW)
    assert copy == ruled.store.stat("g")
    assert (copy.custom_metadata, copy.properties) == (source.custom_metadata, source.properties)
    with pytest.raises(Conflict):
        ruled.store.rewrite("f", generation(source), "g", NEW)
    upload(ruled.store, "f", b"newer")
    with pytest.raises(NotFound):
        ruled.store.rewrite("f", generation(source), "h", NEW)


def test_joining_a_part_that_changed_is_a_conflict_and_one_that_went_is_not_found(ruled: Prefix) -> None:
    store = ruled.store
    part = generation(upload(store, "part", b"1"))
    assert store.compose("f", [("part", part), ("part", part)], PLAIN, NEW).size == 2
    upload(store, "part", b"2")
    with pytest.raises((Conflict, NotFound)):
        store.compose("g", [("part", part)], PLAIN, NEW)
    store.delete("part", ANY)
    with pytest.raises(NotFound):
        store.compose("g", [("part", part)], PLAIN, NEW)


def test_metadata_beyond_eight_kibibytes_is_too_big(ruled: Prefix) -> None:
    properties = ObjectProperties({"octue__tags": "x" * 8192})
    assert custom_metadata_size(properties.custom_metadata) > 8192
    upload(ruled.store, "f", b"1")
    for use in (
        lambda: upload(ruled.store, "f", b"2", properties),
        lambda: ruled.store.begin_upload("f", properties, ANY),
        lambda: ruled.store.patch("f", properties.custom_metadata, ANY),
    ):
        with pytest.raises(TooBig):
            use()
    assert ruled.store.read_small("f", 9) == b"1"


def test_a_folder_moves_with_all_that_is_in_it(ruled: Prefix, strict: StrictGcs) -> None:
    strict.enable_folders()
    assert ruled.store.bucket_facts().has_folders
    upload(ruled.store, "a/b/f", b"1", PROPERTIES)
    upload(ruled.store, "c/g", b"2")
    ruled.store.rename_folder("a/b", "c/d")
    assert ruled.store.read_small("c/d/f", 9) == b"1"
    assert ruled.store.stat("c/d/f").custom_metadata == PROPERTIES.custom_metadata
    with pytest.raises(NotFound):
        ruled.store.stat("a/b/f")
    with pytest.raises(NotFound):
        ruled.store.rename_folder("a/b", "c/e")


# --- what a bucket can do


def test_a_plain_bucket_composes_and_has_no_folders(fronted: Prefix, front: Front) -> None:
    assert fronted.store.bucket_facts() == fronted.store.bucket_facts() == BucketFacts(True, False)
    assert len(front.asked) == 1


@pytest.mark.parametrize(
    ("bucket_resource", "facts"),
    [
        ({"storageClass": "STANDARD"}, BucketFacts(True, False)),
        ({"storageClass": "NEARLINE"}, BucketFacts(False, False)),
        ({"storageClass": "STANDARD", "autoclass": {"enabled": True}}, BucketFacts(False, False)),
        ({"storageClass": "STANDARD", "retentionPolicy": {"retentionPeriod": "9"}}, BucketFacts(False, False)),
        ({"storageClass": "STANDARD", "defaultEventBasedHold": True}, BucketFacts(False, False)),
        ({"storageClass": "STANDARD", "hierarchicalNamespace": {"enabled": True}}, BucketFacts(True, True)),
    ],
)
def test_what_a_bucket_can_do_is_seen_from_its_settings(
    fronted: Prefix, front: Front, bucket_resource: dict[str, Any], facts: BucketFacts
) -> None:
    front.says((200, bucket_resource))
    assert fronted.store.bucket_facts() == facts


def test_a_bucket_that_may_not_be_looked_at_can_do_nothing_special(fronted: Prefix, front: Front) -> None:
    front.says(problem(403))
    assert fronted.store.bucket_facts() == fronted.store.bucket_facts() == BucketFacts(False, False)
    assert len(front.asked) == 1


# --- refusals


MESSAGES: list[tuple[int, str, type[OctuefsError], str]] = [
    (403, "x@y.z does not have storage.objects.delete access to the object.", PermissionRefused, "objects.delete here"),
    (403, "nothing said", PermissionRefused, "needs THESE here"),
    (403, "Object 'b/f' is under active Temporary hold and cannot be deleted", PermissionRefused, "a temporary hold"),
    (403, "Object 'b/f' is under active Event-Based hold and cannot", PermissionRefused, "an event-based hold"),
    (403, "Object 'b/f' is subject to bucket's retention policy", PermissionRefused, "a retention policy"),
    (403, "Request had insufficient authentication scopes.", PermissionRefused, "scopes"),
    (403, "rateLimitExceeded", Overloaded, "too often"),
    (401, "Invalid Credentials", PermissionRefused, "gcloud auth"),
    (400, "Metadata size exceeds the maximum of 8192 bytes", TooBig, "metadata"),
    (413, "", TooBig, "metadata"),
    (400, "else", BadValue, "invalid"),
    (409, "", AlreadyExists, "already"),
    (412, "", Conflict, "another version"),
    (404, "", NotFound, "no such"),
    (408, "", TimedOut, "in time"),
    (502, "", Overloaded, "HTTP 502"),
    (302, "", StoreUnavailable, "HTTP 302"),
]


@pytest.mark.parametrize(("status", "message", "error", "text"), MESSAGES)
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_refusal_says_in_our_words_what_is_wrong(
    status: int, message: str, error: type[OctuefsError], text: str, form: str
) -> None:
    content = message.encode()
    if form == "json":
        content = json.dumps({"error": {"code": status, "message": message, "errors": [{"reason": "x"}]}}).encode()
    refused = refusal(status, content, "gs://b/f", "", "THESE")
    assert type(refused) is error
    assert text in str(refused)
    assert "x@y.z" not in str(refused)


def test_writing_without_permission_names_what_it_needs(fronted: Prefix, front: Front) -> None:
    front.says(problem(403))
    store = fronted.store
    for use, permission in (
        (lambda: upload(store, "f", b"1"), r"storage\.objects\.create"),
        (lambda: store.begin_upload("f", PLAIN, NEW), r"storage\.objects\.create"),
        (lambda: store.patch("f", {}, ANY), r"storage\.objects\.update"),
        (lambda: store.delete("f", ANY), r"storage\.objects\.delete"),
        (lambda: store.make_marker("f"), r"storage\.objects\.create"),
    ):
        with pytest.raises(PermissionRefused, match=permission):
            use()


def test_writing_to_a_bucket_that_is_not_there_is_not_found(prefix: Prefix) -> None:
    store = prefix.missing()
    for use in (lambda: upload(store, "f", b"1"), lambda: store.begin_upload("f", PLAIN, NEW)):
        with pytest.raises(NotFound, match="bucket"):
            use()
    store.close()


def test_something_that_is_no_gcs_is_named_so(fronted: Prefix, front: Front) -> None:
    for content in (b"<html>", b"[]", b"1"):
        front.says((200, {"Content-Type": "text/html"}, content))
        with pytest.raises(StoreUnavailable, match="does not answer as Google Cloud Storage does"):
            upload(fronted.store, "f", b"1")


# --- credentials


@pytest.mark.parametrize(("read_only", "access"), [(False, "read_write"), (True, "read_only")])
def test_credentials_are_asked_for_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, read_only: bool, access: str
) -> None:
    from google.oauth2.credentials import Credentials

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    asked: list[object] = []
    monkeypatch.setattr("google.auth.default", lambda scopes: (asked.extend(scopes), (Credentials("x"), None))[1])
    filesystem = GcsStore(CloudLocation("b", "p"), read_only=read_only)._connected()
    assert asked == [f"https://www.googleapis.com/auth/devstorage.{access}"]
    assert filesystem.credentials.access == access


def test_a_key_file_is_used_instead_of_the_default_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", lambda **_: pytest.fail("the default credentials were asked for"))
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key()))
    store = GcsStore(CloudLocation("b", "p"), access=Access(key_file=str(file)))
    credentials = store._connected().credentials.credentials
    assert credentials.service_account_email == "someone@project.iam.gserviceaccount.com"
    assert credentials.scopes == ["https://www.googleapis.com/auth/devstorage.read_write"]
    file.write_text(json.dumps(CREDENTIALS))
    assert gcs_credentials.credentials(Access(key_file=str(file)), gcs_credentials.WRITING).token == "none"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file"),
        ('{"private_key": "secret"', "not JSON"),
        ("\udcff", "not JSON"),
        ('{"private_key": "secret"}', "neither"),
        ('["secret"]', "neither"),
        ('{"type": "external_account", "x": "secret"}', "neither"),
        ('{"type": "service_account", "private_key": "secret"}', "damaged"),
        ('{"type": "authorized_user", "client_secret": "secret"}', "damaged"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, text: str
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    file = tmp_path / "key.json"
    if content is not None:
        file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(PermissionRefused, match=text) as caught:
        GcsStore(CloudLocation("b", "p"), access=Access(key_file=str(file))).check()
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)
