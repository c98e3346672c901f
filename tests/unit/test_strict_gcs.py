"""The strict front of the GCS server that other tests rely on: what it enforces, and what it can be told to do."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import google_crc32c
import pytest

from support.gcs import Bucket, GcsServer
from support.strict_gcs import Request, StrictGcs

UNIT = 256 << 10


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Plain HTTP to the objects of a bucket."""

    endpoint: str
    bucket: str

    def ask(self, method: str, target: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=30)
        try:
            connection.request(method, target, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def at(self, name: str, **query: Any) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}?{urlencode(query)}"

    def stat(self, name: str, **query: Any) -> Reply:
        return self.ask("GET", self.at(name, **query))

    def media(self, name: str, data: bytes, headers: Mapping[str, str] | None = None, **query: Any) -> Reply:
        query = {"uploadType": "media", "name": name, **query}
        return self.ask("POST", f"/upload/storage/v1/b/{self.bucket}/o?{urlencode(query)}", data, headers)

    def multipart(self, name: str, data: bytes, resource: Mapping[str, Any] | None = None, **query: Any) -> Reply:
        head = json.dumps({"name": name, **(resource or {})}).encode()
        body = b"--x y\r\nContent-Type: application/json\r\n\r\n" + head + b"\r\n--x y\r\nContent-Type: text/x\r\n\r\n"
        target = f"/upload/storage/v1/b/{self.bucket}/o?{urlencode({'uploadType': 'multipart', **query})}"
        header = {"Content-Type": 'multipart/related; boundary="x y"'}
        return self.ask("POST", target, body + data + b"\r\n--x y--", header)

    def patch(self, name: str, metadata: Mapping[str, str | None], **query: Any) -> Reply:
        return self.ask("PATCH", self.at(name, **query), json.dumps({"metadata": metadata}))

    def delete(self, name: str, **query: Any) -> Reply:
        return self.ask("DELETE", self.at(name, **query))

    def rewrite(self, old: str, new: str, body: bytes | str = b"", **query: Any) -> Reply:
        tail = f"rewriteTo/b/{self.bucket}/o/{quote(new, safe='')}?{urlencode(query)}"
        return self.ask("POST", f"{self.at(old)[:-1]}/{tail}", body)

    def compose(self, name: str, sources: list[dict[str, Any]], destination: Any = None, **query: Any) -> Reply:
        body = {"sourceObjects": sources, "destination": destination or {}}
        return self.ask("POST", f"{self.at(name)[:-1]}/compose?{urlencode(query)}", json.dumps(body))

    def start(self, name: str, resource: Mapping[str, Any] | None = None, **query: Any) -> Reply:
        query = {"uploadType": "resumable", "name": name, **query}
        target = f"/upload/storage/v1/b/{self.bucket}/o?{urlencode(query)}"
        return self.ask("POST", target, json.dumps(resource or {}))

    def session(self, name: str, resource: Mapping[str, Any] | None = None, **query: Any) -> str:
        location = self.start(name, resource, **query).headers["location"]
        assert location.startswith(self.endpoint)
        return location.removeprefix(self.endpoint)

    def send(self, session: str, data: bytes, content_range: str | None = None) -> Reply:
        headers = {"Content-Range": f"bytes {content_range}"} if content_range else {}
        return self.ask("PUT", session, data, {"Content-Length": str(len(data)), **headers})

    def list(self, **query: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("GET", f"/storage/v1/b/{self.bucket}/o?{urlencode(query)}").json.get(
            "items", []
        )
        return items

    def read(self, name: str) -> bytes:
        reply = self.ask("GET", self.at(name, alt="media"))
        assert reply.status == 200
        return reply.body


@pytest.fixture
def client(strict_gcs: StrictGcs, bucket: Bucket) -> Client:
    return Client(strict_gcs.endpoint, bucket.name)


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def put(client: Client, name: str, data: bytes = b"old", metadata: Mapping[str, str] | None = None) -> str:
    reply = client.multipart(name, data, {"metadata": metadata} if metadata else None)
    assert reply.status == 200
    return str(reply.json["generation"])


# --- preconditions


WRITES = {
    "media": lambda client, name, **query: client.media(name, b"new", **query),
    "multipart": lambda client, name, **query: client.multipart(name, b"new", **query),
    "session": lambda client, name, **query: client.start(name, **query),
    "compose": lambda client, name, **query: client.compose(name, [{"name": "source"}], **query),
    "rewrite": lambda client, name, **query: client.rewrite("source", name, **query),
    "patch": lambda client, name, **query: client.patch(name, {"a": "new"}, **query),
    "update": lambda client, name, **query: client.ask("PUT", client.at(name, **query), '{"metadata": {"a": "new"}}'),
    "delete": lambda client, name, **query: client.delete(name, **query),
}


@pytest.mark.parametrize("what", WRITES)
def test_every_write_obeys_every_precondition_and_a_refused_one_has_no_effect(client: Client, what: str) -> None:
    put(client, "source", b"source")
    generation = put(client, "a/b+c &%", metadata={"a": "old"})
    before = client.stat("a/b+c &%").json
    for query in (
        {"ifGenerationMatch": 0},
        {"ifGenerationMatch": int(generation) + 1},
        {"ifGenerationNotMatch": generation},
        {"ifMetagenerationMatch": 2},
        {"ifMetagenerationNotMatch": 1},
        {"ifGenerationMatch": generation, "ifMetagenerationMatch": 2},
    ):
        reply = WRITES[what](client, "a/b+c &%", **query)
        assert reply.status == 412, query
        assert reply.json["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert client.stat("a/b+c &%").json == before
    assert client.read("a/b+c &%") == b"old"
    reply = WRITES[what](client, "a/b+c &%", ifGenerationMatch=generation, ifMetagenerationMatch=1)
    assert reply.status in (200, 204)
    absent = WRITES[what](client, "absent", ifGenerationMatch=generation)
    assert absent.status == (404 if what in ("patch", "update", "delete") else 412)


@pytest.mark.parametrize("what", ["media", "multipart", "session", "compose", "rewrite"])
def test_generation_zero_creates_once(client: Client, what: str) -> None:
    put(client, "source", b"new")
    assert WRITES[what](client, "fresh", ifGenerationMatch=0).status == 200
    if what != "session":
        assert client.read("fresh") == b"new"
        assert WRITES[what](client, "fresh", ifGenerationMatch=0).status == 412


def test_sources_are_held_to_their_generations(client: Client) -> None:
    old = put(client, "a", b"A")
    new = put(client, "a", b"B")
    assert client.rewrite("a", "t", ifSourceGenerationMatch=old).status == 412
    assert client.rewrite("a", "t", ifSourceMetagenerationMatch=2).status == 412
    assert client.rewrite("a", "t", sourceGeneration=old).status == 404
    assert client.compose("t", [{"name": "a", "generation": old}]).status == 404
    conditions = {"ifGenerationMatch": old}
    assert client.compose("t", [{"name": "a", "objectPreconditions": conditions}]).status == 412
    assert client.stat("t").status == 404
    assert client.compose("t", [{"name": "a", "generation": new}]).status == 200
    assert client.rewrite("a", "u", ifSourceGenerationMatch=new, sourceGeneration=new).status == 200


def test_reads_obey_preconditions(client: Client) -> None:
    old = put(client, "a")
    new = put(client, "a", b"new")
    for alt in ("json", "media"):
        assert client.stat("a", alt=alt, generation=old).status == 404
        assert client.stat("a", alt=alt, ifGenerationMatch=old).status == 412
        assert client.stat("a", alt=alt, ifGenerationNotMatch=new).status == 304
        assert client.stat("a", alt=alt, ifGenerationMatch=new, ifMetagenerationMatch=1).status == 200


def test_of_many_who_create_at_once_one_wins(client: Client, strict_gcs: StrictGcs) -> None:
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda n: client.media("one", b"%d" % n, ifGenerationMatch=0), range(64)))
    assert sorted(reply.status for reply in replies) == [200] + [412] * 63
    (winner,) = (number for number, reply in enumerate(replies) if reply.status == 200)
    assert client.read("one") == b"%d" % winner
    assert strict_gcs.count("POST", "uploadType=media") == strict_gcs.count(kind="upload") == 64


# --- metadata


def test_metagenerations_count_and_start_again(client: Client, bucket: Bucket) -> None:
    generation = put(client, "a", metadata={"x": "1", "y": "2"})
    reply = client.patch("a", {"x": None, "z": "3"}).json
    assert (reply["generation"], reply["metageneration"]) == (generation, "2")
    assert reply["metadata"] == {"y": "2", "z": "3"}
    assert reply["updated"] > reply["timeCreated"]
    assert client.patch("a", {}).json["metageneration"] == "3"
    assert [item["metageneration"] for item in client.list()] == ["3"]
    assert client.ask("HEAD", client.at("a")).headers["x-goog-metageneration"] == "3"
    assert bucket.stat("a")["metadata"] == {"y": "2", "z": "3"}
    bucket.patch_metadata("a", {"behind": "our back"})
    assert client.stat("a").json["metageneration"] == "4"
    assert client.patch("a", {"x": "4"}, ifMetagenerationMatch=3).status == 412
    rewritten = client.rewrite("a", "a").json["resource"]
    assert rewritten["metageneration"] == "1"
    assert rewritten["generation"] != generation
    assert rewritten["metadata"] == {"behind": "our back", "y": "2", "z": "3"}
    bucket.put("seen", b"first")
    assert client.stat("seen").json["metageneration"] == "1"


def test_an_update_replaces_all_custom_metadata(client: Client) -> None:
    put(client, "a", metadata={"x": "1", "y": "2"})
    reply = client.ask("PUT", client.at("a"), '{"metadata": {"z": "3"}, "contentType": "text/new"}').json
    assert (reply["metadata"], reply["contentType"], reply["metageneration"]) == ({"z": "3"}, "text/new", "2")
    assert "metadata" not in client.patch("a", {"z": None}).json


def test_more_than_8_kib_of_metadata_are_refused(client: Client) -> None:
    put(client, "a", metadata={"x": "1"})
    much = {"y": "é" * 4096}
    for reply in (
        client.patch("a", much),
        client.multipart("b", b"", {"metadata": much}),
        client.start("b", {"metadata": much}),
        client.compose("b", [{"name": "a"}], {"metadata": much}),
        client.rewrite("a", "b", json.dumps({"metadata": much})),
    ):
        assert reply.status == 400
        assert "metadata too large" in reply.json["error"]["message"]
    assert client.stat("a").json["metadata"] == {"x": "1"}
    assert [item["name"] for item in client.list()] == ["a"]


def test_composing_joins_in_a_new_generation_and_takes_only_the_metadata_that_are_sent(client: Client) -> None:
    old = put(client, "a", b"A" * 1000, {"x": "1"})
    put(client, "b", b"B")
    sent = {"contentType": "text/plain", "metadata": {"x": "2"}}
    reply = client.compose("a", [{"name": "a", "generation": old}, {"name": "b"}], sent, ifGenerationMatch=old).json
    assert reply["generation"] != old
    assert (reply["metageneration"], reply["componentCount"], reply["contentType"]) == ("1", 2, "text/plain")
    assert (reply["metadata"], reply["crc32c"]) == ({"x": "2"}, crc32c(b"A" * 1000 + b"B"))
    assert "md5Hash" not in client.stat("a").json
    assert client.read("a") == b"A" * 1000 + b"B"
    assert client.compose("a", [{"name": "absent"}]).status == 404


def test_a_rewrite_can_take_several_calls(client: Client, strict_gcs: StrictGcs) -> None:
    put(client, "a", b"abc", {"x": "1"})
    strict_gcs.rewrite_in_steps(3)
    tokens: dict[str, str] = {}
    for _ in range(2):
        reply = client.rewrite("a", "b", **tokens).json
        assert not reply["done"]
        tokens = {"rewriteToken": reply["rewriteToken"]}
        assert client.stat("b").status == 404
    reply = client.rewrite("a", "b", **tokens).json
    assert reply["done"]
    assert reply["resource"]["metadata"] == {"x": "1"}
    assert client.rewrite("a", "b", rewriteToken="none").status == 400


# --- checksums


def test_announced_checksums_are_compared_with_the_bytes(client: Client) -> None:
    wrong, right = crc32c(b"other"), crc32c(b"data")
    session = client.session("a", {"crc32c": wrong})
    assert client.send(session, b"data").status == 400
    assert client.send(session, b"data").status == 400
    assert client.multipart("a", b"data", {"crc32c": wrong}).status == 400
    assert client.multipart("a", b"data", {"md5Hash": "AAAA"}).status == 400
    assert client.media("a", b"data", {"x-goog-hash": f"md5=AAAA,crc32c={right}"}).status == 400
    assert client.stat("a").status == 404
    assert client.send(client.session("a", {"crc32c": right}), b"data").json["crc32c"] == right
    assert client.multipart("b", b"data", {"crc32c": right}).status == 200
    assert client.media("c", b"data", {"x-goog-hash": f"crc32c={right}"}).status == 200


# --- sessions


def test_a_session_takes_chunks_and_tells_how_far_it_is(client: Client) -> None:
    data = bytes(range(256)) * (3 * 1024) + b"end"
    resource = {"metadata": {"x": "1"}, "contentType": "text/plain"}
    session = client.session("a&b", resource, ifGenerationMatch=0)
    reply = client.send(session, b"", "*/*")
    assert (reply.status, reply.headers.get("range")) == (308, None)
    assert client.send(session, data[: UNIT + 1], f"0-{UNIT}/*").status == 400
    assert client.send(session, data[:UNIT], f"0-{UNIT}/*").status == 400
    assert client.send(session, data[UNIT : 2 * UNIT], f"{UNIT}-{2 * UNIT - 1}/*").status == 400
    reply = client.send(session, data[: 2 * UNIT], f"0-{2 * UNIT - 1}/*")
    assert (reply.status, reply.headers["range"]) == (308, f"bytes=0-{2 * UNIT - 1}")
    assert client.send(session, b"", "*/*").headers["range"] == f"bytes=0-{2 * UNIT - 1}"
    assert client.stat("a&b").status == 404
    # What it has already may be sent again, and is not taken again.
    reply = client.send(session, b"X" * UNIT + data[2 * UNIT :], f"{UNIT}-{len(data) - 1}/{len(data)}")
    assert reply.status == 200
    assert reply.json["metadata"] == {"x": "1"}
    assert (reply.json["contentType"], reply.json["metageneration"]) == ("text/plain", "1")
    assert client.read("a&b") == data
    assert client.send(session, b"", f"*/{len(data)}").json == reply.json


def test_a_session_ends_with_its_total_alone(client: Client) -> None:
    session = client.session("a")
    assert client.send(session, bytes(UNIT), f"0-{UNIT - 1}/*").status == 308
    assert client.send(session, b"", f"*/{UNIT - 1}").status == 400
    assert client.send(session, b"", f"*/{UNIT}").status == 200
    assert client.read("a") == bytes(UNIT)
    assert client.send(client.session("empty"), b"").json["size"] == "0"
    assert client.send(client.session("empty"), b"", "*/0").json["size"] == "0"


def test_a_session_is_refused_at_its_end_where_another_was_faster(client: Client, bucket: Bucket) -> None:
    generation = put(client, "a")
    session = client.session("a", ifGenerationMatch=generation)
    bucket.put("a", b"theirs")
    assert client.send(session, b"ours").status == 412
    assert client.send(session, b"", "*/4").status == 412
    assert bucket.get("a") == b"theirs"


def test_a_session_can_be_cancelled_and_forgotten(client: Client, strict_gcs: StrictGcs) -> None:
    session = client.session("a")
    assert client.ask("DELETE", session).status == 499
    assert client.send(session, b"data").status == 410
    session = client.session("a")
    strict_gcs.forget_sessions()
    assert client.send(session, b"", "*/*").status == 410
    assert client.send(f"{session}x", b"").status == 404
    assert client.list() == []


def test_what_arrived_before_a_connection_broke_is_kept(client: Client, strict_gcs: StrictGcs) -> None:
    data = bytes(range(256)) * (4 * 1024)
    session = client.session("a")
    strict_gcs.cut_body(lambda request: request.kind == "send", 2 * UNIT + 5)
    with pytest.raises((http.client.HTTPException, OSError)):
        client.send(session, data, f"0-{len(data) - 1}/{len(data)}")
    assert client.send(session, b"", "*/*").headers["range"] == f"bytes=0-{2 * UNIT - 1}"
    strict_gcs.keep_less(None, UNIT + 1)
    # The last chunk is kept as a whole.
    assert client.send(session, data[2 * UNIT :], f"{2 * UNIT}-{len(data) - 1}/{len(data)}").status == 200
    assert client.read("a") == data
    session = client.session("b")
    strict_gcs.keep_less(None, UNIT + 1)
    assert client.send(session, data[: 2 * UNIT], f"0-{2 * UNIT - 1}/*").headers["range"] == f"bytes=0-{UNIT - 1}"


def test_a_client_that_hangs_up_leaves_its_session_as_it_was(client: Client) -> None:
    session = client.session("a")
    connection = http.client.HTTPConnection(urlsplit(client.endpoint).netloc, timeout=30)
    connection.putrequest("PUT", session)
    connection.putheader("Content-Length", str(4 * UNIT))
    connection.endheaders(bytes(UNIT + 7))
    time.sleep(0.2)
    connection.close()
    deadline = time.monotonic() + 5
    while (kept := client.send(session, b"", "*/*").headers.get("range")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kept == f"bytes=0-{UNIT - 1}"
    assert client.stat("a").status == 404


# --- faults


def is_upload(request: Request) -> bool:
    return request.kind == "upload"


def test_failures_before_and_after_the_effect(client: Client, strict_gcs: StrictGcs) -> None:
    rule = strict_gcs.fail(when=is_upload)
    assert client.media("a", b"1").status == 503
    assert client.stat("a").status == 404
    assert rule.hits == 1
    strict_gcs.fail(502, is_upload, after_effect=True)
    assert client.media("a", b"1").status == 502
    assert client.read("a") == b"1"
    strict_gcs.drop(is_upload)
    strict_gcs.drop(is_upload, after_effect=True)
    for expected in (b"1", b"2"):
        with pytest.raises((http.client.HTTPException, OSError)):
            client.media("a", b"2")
        assert client.read("a") == expected
    rule = strict_gcs.fail(403, times=None)
    assert [client.stat("a").status for _ in range(3)] == [403] * 3
    rule.remove()
    assert client.stat("a").status == 200
    statuses = [request.status for request in strict_gcs.requests if is_upload(request)]
    assert statuses == [503, 502, None, None]
    assert strict_gcs.requests[0].size == 1


def test_another_writer_in_between_and_requests_that_are_held(
    client: Client, strict_gcs: StrictGcs, bucket: Bucket
) -> None:
    strict_gcs.before(is_upload, lambda: bucket.put("a", b"theirs"))
    assert client.media("a", b"ours", ifGenerationMatch=0).status == 412
    held = strict_gcs.hold(lambda request: request.kind == "delete")
    with ThreadPoolExecutor(1) as threads:
        deleted = threads.submit(client.delete, "a")
        assert held.arrived.wait(5)
        assert client.read("a") == b"theirs"
        held.release()
        assert deleted.result().status == 204
    assert client.stat("a").status == 404


def test_delays_and_broken_answers(client: Client, strict_gcs: StrictGcs) -> None:
    put(client, "a", bytes(1_000_000))
    rule = strict_gcs.delay(0.3, lambda request: request.kind == "get")
    started = time.monotonic()
    client.stat("a")
    assert time.monotonic() - started >= 0.3
    rule.remove()
    strict_gcs.cut_answer(lambda request: request.kind == "media", 300_000)
    with pytest.raises(http.client.IncompleteRead) as failure:
        client.read("a")
    assert len(failure.value.partial) <= 300_000
    assert client.read("a") == bytes(1_000_000)


def test_what_a_callback_raises_fails_the_test(gcs_server: GcsServer, bucket: Bucket) -> None:
    with pytest.raises(ZeroDivisionError), StrictGcs(gcs_server.environment) as gcs:  # noqa: PT012
        gcs.before(None, lambda: 1 // 0)
        assert Client(gcs.endpoint, bucket.name).stat("a").status == 500


def test_nothing_is_left_of_it_even_while_requests_are_held(gcs_server: GcsServer, bucket: Bucket) -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(4) as threads:
        with StrictGcs(gcs_server.environment) as gcs:
            gcs.delay(60, lambda request: "slow" in request.path)
            held = gcs.hold(lambda request: "held" in request.path)
            client = Client(gcs.endpoint, bucket.name)
            waiting = [threads.submit(client.stat, name) for name in ("held", "slow")]
            assert held.arrived.wait(5)
            deadline = time.monotonic() + 5
            while len(gcs.requests) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        for future in waiting:
            future.exception(5)
    assert set(threading.enumerate()) <= before
    with pytest.raises(OSError, match="refused"):
        client.stat("a")


def test_a_front_that_stops_listening_refuses(client: Client, strict_gcs: StrictGcs) -> None:
    assert client.stat("a").status == 404
    strict_gcs.stop_listening()
    with pytest.raises(OSError, match="refused"):
        client.stat("a")


# --- buckets


def test_buckets_say_what_the_test_wants(client: Client, strict_gcs: StrictGcs) -> None:
    target = f"/storage/v1/b/{client.bucket}"
    assert "hierarchicalNamespace" not in client.ask("GET", target).json
    assert client.ask("GET", f"{target}/folders").status == 400
    strict_gcs.bucket_answer({"storageClass": "NEARLINE", "retentionPolicy": {"retentionPeriod": "10"}})
    strict_gcs.enable_folders()
    answer = client.ask("GET", target).json
    assert answer["storageClass"] == "NEARLINE"
    assert answer["retentionPolicy"] == {"retentionPeriod": "10"}
    assert answer["hierarchicalNamespace"] == {"enabled": True}
    assert answer["name"] == client.bucket


def test_a_folder_is_renamed_in_one_operation(client: Client, strict_gcs: StrictGcs) -> None:
    strict_gcs.enable_folders()
    put(client, "a/b/c", b"1", {"x": "1"})
    put(client, "a/bc", b"2")
    target = f"/storage/v1/b/{client.bucket}"
    assert client.ask("POST", f"{target}/folders/none%2F/renameTo/folders/d%2F").status == 404
    assert client.ask("POST", f"{target}/folders/a%2Fb%2F/renameTo/folders/none%2Fd%2F").status == 404
    operation = client.ask("POST", f"{target}/folders/a%2Fb%2F/renameTo/folders/a%2Fd%2F").json
    assert not operation["done"]
    number = operation["name"].rpartition("/")[2]
    assert client.ask("GET", f"{target}/operations/{number}").json["done"]
    assert [item["name"] for item in client.list()] == ["a/bc", "a/d/c"]
    assert client.stat("a/d/c").json["metadata"] == {"x": "1"}
    assert client.ask("POST", f"{target}/folders", '{"name": "a/e"}').status == 200
    names = [item["name"] for item in client.ask("GET", f"{target}/folders").json["items"]]
    assert names == ["a/", "a/d/", "a/e/"]
    assert client.ask("POST", f"{target}/folders/a%2Fd%2F/renameTo/folders/a%2Fe%2F").status == 409
    assert client.ask("DELETE", f"{target}/folders/a%2Fd%2F").status == 409
    assert client.ask("DELETE", f"{target}/folders/a%2Fe%2F").status == 204


# --- as a whole


def test_the_plain_helpers_work_through_it(strict_gcs: StrictGcs, strict_bucket: Bucket, bucket: Bucket) -> None:
    strict_bucket.put("a/b", b"data", {"x": "1"}, "text/plain")
    assert strict_bucket.get("a/b") == bucket.get("a/b") == b"data"
    assert bucket.stat("a/b")["contentType"] == "text/plain"
    resource = strict_bucket.patch_metadata("a/b", {"x": None, "y": "2"})
    assert resource["metadata"] == {"y": "2"}
    for link in ("selfLink", "mediaLink"):
        assert resource[link].startswith(strict_gcs.endpoint)
    assert strict_bucket.list() == [strict_bucket.stat("a/b")]
    strict_bucket.delete("a/b")
    assert bucket.list() == []
    assert strict_gcs.backdoor.endpoint == bucket.server.endpoint
    assert strict_bucket.environment["STORAGE_EMULATOR_HOST"] == strict_gcs.endpoint
    assert strict_gcs.count("DELETE", "/o/a/b") == 1


def test_names_and_writes_that_google_would_refuse(client: Client) -> None:
    for name in ("x" * 1025, "a\nb", ".."):
        assert client.multipart(name, b"").status == 400
    assert client.ask("PUT", f"/{client.bucket}/a", b"past the rules").status == 501
    assert client.list() == []


def test_a_listing_is_never_of_two_times(client: Client) -> None:
    put(client, "a", metadata={"count": "1"})
    with ThreadPoolExecutor(1) as threads:
        patches = threads.submit(lambda: [client.patch("a", {"count": str(number)}).status for number in range(2, 40)])
        seen = []
        while not patches.done():
            seen += client.list()
    assert set(patches.result()) == {200}
    assert {item["metageneration"] == item["metadata"]["count"] for item in seen} == {True}


def test_large_bodies_pass_in_reasonable_time(client: Client) -> None:
    data = bytes(64 << 20)
    started = time.monotonic()
    reply = client.send(client.session("big", {"crc32c": crc32c(data)}), data, f"0-{len(data) - 1}/{len(data)}")
    assert reply.status == 200
    assert client.read("big") == data
    assert time.monotonic() - started < 20
