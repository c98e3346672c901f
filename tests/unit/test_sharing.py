"""Sharing by a link: what is signed and by whom, what is stored, and what is said where it cannot be done."""

import base64
import binascii
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import google.auth.compute_engine
import google.auth.exceptions
import google.auth.iam
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.cloud.storage import _signing

from octuefs.commands.sharing import Shared, find_source, parse_lifetime, share
from octuefs.errors import BadValue, OctuefsError, PermissionRefused, StoreUnavailable
from octuefs.model.paths import CloudLocation
from octuefs.stores.base import Access, ObjectInfo
from octuefs.stores.gcs_signing import GcsSigner
from octuefs.stores.writing import Body, ObjectProperties, Precondition
from support.gcs import CREDENTIALS
from support.keys import EMAIL, service_account_key

ROBOT = "robot@project-1.iam.gserviceaccount.com"
SECRET = "ya29.a-token-that-nobody-may-see"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def at_google(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key()))
    return str(file)


@pytest.fixture
def user_file(tmp_path: Path) -> str:
    file = tmp_path / "user.json"
    file.write_text(json.dumps(CREDENTIALS))
    return str(file)


# --- how long


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [
        ("7d", timedelta(days=7)),
        ("168h", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("3600s", HOUR),
        ("1s", timedelta(seconds=1)),
    ],
)
def test_a_link_lasts_as_long_as_is_asked(text: str, lifetime: timedelta) -> None:
    assert parse_lifetime(text) == lifetime


@pytest.mark.parametrize("text", ["", "7", "d", "7 days", "-1d", "1.5h", "1w", "٣d", "9999999999d"])
def test_a_time_in_other_words_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="write a number and d, h, m or s"):
        parse_lifetime(text)


@pytest.mark.parametrize("text", ["0s", "0d", "8d", "169h", "604801s", "999999999d"])
def test_no_time_and_more_than_a_signature_lasts_are_refused(text: str) -> None:
    with pytest.raises(BadValue, match="at least a second and at most 7 days"):
        parse_lifetime(text)


# --- what


def test_only_what_lies_in_a_bucket_can_be_shared(tmp_path: Path) -> None:
    assert find_source("gs://b/p/q") == CloudLocation("b", "p/q")
    with pytest.raises(BadValue, match=f"octuefs upload {tmp_path} gs://bucket/path"):
        find_source(str(tmp_path))
    with pytest.raises(BadValue, match="a link already") as caught:
        find_source("https://storage.googleapis.com/b/p/.signed_metadata_files/x?X-Goog-Signature=secret")
    assert "secret" not in str(caught.value)


# --- signatures


def verify(link: str) -> dict[str, str]:
    """Prove a link's v4 signature with the key, by Google's description of it, and return its query."""
    parts = urlsplit(link)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    signature = query.pop("X-Goog-Signature")
    canonical_query = "&".join(sorted(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in query.items()))
    request = f"GET\n{parts.path}\n{canonical_query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    scope = query["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
    key = load_pem_private_key(service_account_key()["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    key.public_key().verify(binascii.unhexlify(signature), signed.encode(), padding.PKCS1v15(), SHA256())
    return query


@pytest.mark.parametrize("name", ["data/f.csv", "ä b/#?&+%20~'(1).csv", "a//b"])
def test_a_key_signs_links_that_google_takes(key_file: str, name: str) -> None:
    signer = GcsSigner(Access(key_file=key_file))
    assert (signer.account, signer.asks) == (EMAIL, False)
    link = signer.link("some-bucket", name, timedelta(days=7))
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc) == ("https", "storage.googleapis.com")
    assert unquote(parts.path) == f"/some-bucket/{name}"
    query = verify(link)
    assert query["X-Goog-Expires"] == "604800"
    assert query["X-Goog-Credential"].startswith(f"{EMAIL}/")


def test_links_lead_to_the_server_in_use(key_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:4443")
    link = GcsSigner(Access(key_file=key_file)).link("b", "f", HOUR)
    assert link.startswith("http://127.0.0.1:4443/b/f?")
    assert verify(link)["X-Goog-Expires"] == "3600"


def test_the_project_that_pays_is_part_of_what_is_signed(key_file: str) -> None:
    link = GcsSigner(Access(key_file=key_file, billing_project="payer")).link("b", "f", HOUR)
    assert verify(link)["userProject"] == "payer"


def test_the_default_credentials_sign_where_they_are_a_key(key_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file)
    verify(GcsSigner(Access()).link("b", "f", HOUR))


class Answer:
    def __init__(self, status: int, value: Any) -> None:
        self.status = self.status_code = status
        self.data = json.dumps(value).encode()

    def json(self) -> Any:
        return json.loads(self.data)


def refused(code: int, message: str) -> Answer:
    return Answer(code, {"error": {"code": code, "message": f"{message} {SECRET}"}})


def sign(payload: str) -> Answer:
    key = load_pem_private_key(service_account_key()["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(base64.b64decode(payload), padding.PKCS1v15(), SHA256())
    return Answer(200, {"signedBlob": base64.b64encode(signature).decode()})


@pytest.fixture
def by_iam(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Impersonated credentials ask this for signatures: what was asked, where; an Answer put in front is given once."""
    asked: list[Any] = []

    def post(self: object, url: str, headers: object, json: dict[str, Any]) -> Answer:
        answer = asked.pop(0) if asked and isinstance(asked[0], Answer) else sign(json["payload"])
        asked.append(url)
        return answer

    monkeypatch.setattr("google.auth.transport.requests.AuthorizedSession.post", post)
    return asked


def test_google_signs_as_the_account_that_is_acted_as(by_iam: list[Any], user_file: str) -> None:
    signer = GcsSigner(Access(key_file=user_file, impersonate=ROBOT))
    assert (signer.account, signer.asks) == (ROBOT, True)
    assert verify(signer.link("b", "f", HOUR))["X-Goog-Credential"].startswith(f"{ROBOT}/")
    assert by_iam == [f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ROBOT}:signBlob"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused(403, "Permission 'iam.serviceAccounts.signBlob' denied"), f"needs the role .* on {ROBOT}"),
        (refused(403, "IAM API has not been used in project 1 before"), "gcloud services enable iamcredentials"),
        (refused(404, "Not found"), "there is no such service account"),
    ],
)
def test_why_google_does_not_sign_is_told(by_iam: list[Any], user_file: str, answer: Answer, words: str) -> None:
    by_iam.append(answer)
    with pytest.raises(PermissionRefused, match=words) as caught:
        GcsSigner(Access(key_file=user_file, impersonate=ROBOT)).link("b", "f", HOUR)
    assert str(caught.value).startswith(f"no link can be signed as {ROBOT}: ")
    assert SECRET not in str(caught.value)


def test_that_iam_is_out_of_reach_is_told(user_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def post(*_: object, **__: object) -> None:
        raise google.auth.exceptions.TransportError(f"no way, {SECRET}")

    monkeypatch.setattr("google.auth.transport.requests.AuthorizedSession.post", post)
    with pytest.raises(StoreUnavailable, match="no connection") as caught:
        GcsSigner(Access(key_file=user_file, impersonate=ROBOT)).link("b", "f", HOUR)
    assert SECRET not in str(caught.value)


@pytest.fixture
def on_google(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """This is a machine of Google's, with an account and no key: what was asked of IAM, as `by_iam`."""
    asked: list[Any] = []

    def refresh(self: Any, request: object) -> None:
        self.token, self._service_account_email = SECRET, ROBOT

    def request(*, url: str, method: str, body: str, headers: dict[str, str]) -> Answer:
        answer = asked.pop(0) if asked and isinstance(asked[0], Answer) else sign(json.loads(body)["payload"])
        asked.append((method, url, headers["Authorization"]))
        return answer

    credentials = google.auth.compute_engine.Credentials(universe_domain="googleapis.com")
    monkeypatch.setattr(google.auth.compute_engine.Credentials, "refresh", refresh)
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials, "project"))
    monkeypatch.setattr(_signing.requests, "Request", lambda: request)
    return asked


def test_the_account_of_a_machine_of_googles_signs(on_google: list[Any]) -> None:
    signer = GcsSigner(Access())
    assert (signer.account, signer.asks) == (ROBOT, True)
    assert verify(signer.link("b", "f", HOUR))["X-Goog-Credential"].startswith(f"{ROBOT}/")
    url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ROBOT}:signBlob?alt=json"
    assert on_google == [("POST", url, f"Bearer {SECRET}")]


def test_a_machines_account_that_may_not_sign_is_told_what_it_lacks(on_google: list[Any]) -> None:
    on_google.append(refused(403, "Permission denied"))
    with pytest.raises(
        PermissionRefused, match=f"as {ROBOT}: .* needs the role Service Account Token Creator"
    ) as caught:
        GcsSigner(Access()).link("b", "f", HOUR)
    assert SECRET not in str(caught.value)


def test_a_user_cannot_sign_and_is_told_what_can(user_file: str) -> None:
    with pytest.raises(PermissionRefused) as caught:
        GcsSigner(Access(key_file=user_file))
    assert "a user's credentials, and only service accounts sign links" in str(caught.value)
    assert "--key-file" in str(caught.value)
    assert "--impersonate" in str(caught.value)


def test_who_has_no_credentials_is_told_which_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(scopes: object) -> None:
        raise google.auth.exceptions.DefaultCredentialsError("none")

    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(PermissionRefused) as caught:
        GcsSigner(Access())
    assert str(caught.value).startswith("no Google credentials found, and some must sign the link; give --key-file")
    assert "--anonymous" not in str(caught.value)


# --- dead links


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, bytes], str]]:
    """`tried(status, content)`: the URL of a server that answers so."""
    servers: list[ThreadingHTTPServer] = []

    def tried(status: int, content: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.headers["Range"] == "bytes=0-0"
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/b/f?X-Goog-Signature={SECRET}"

    yield tried
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (403, f"<Error><Code>AccessDenied</Code><Details>{SECRET}</Details></Error>", f"as {EMAIL} are refused"),
        (403, f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{SECRET}</StringToSign></Error>", "the clock"),
        (
            400,
            "<Error><Code>UserProjectMissing</Code><Message>Bucket is a requester pays bucket but no user project "
            "provided.</Message></Error>",
            "name the project that is to pay with --billing-project",
        ),
    ],
)
def test_a_link_that_is_refused_is_not_handed_out(
    key_file: str, tried: Callable[[int, bytes], str], status: int, content: str, words: str
) -> None:
    with pytest.raises(PermissionRefused, match=words) as caught:
        GcsSigner(Access(key_file=key_file)).check(tried(status, content.encode()), "gs://b/f")
    assert str(caught.value).startswith("gs://b/f: ")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [200, 206, 404, 416, 429, 503])
def test_what_says_nothing_of_a_link_is_no_refusal(
    key_file: str, tried: Callable[[int, bytes], str], status: int
) -> None:
    GcsSigner(Access(key_file=key_file)).check(tried(status, b"x"), "gs://b/f")


def test_a_server_out_of_reach_says_nothing_of_a_link(key_file: str) -> None:
    GcsSigner(Access(key_file=key_file)).check("http://127.0.0.1:1/b/f?X-Goog-Signature=secret", "gs://b/f")


# --- the document


class Store:
    """Notes what is stored."""

    def __init__(self) -> None:
        self.location = CloudLocation("b", "data/set")
        self.stored: dict[str, tuple[bytes, ObjectProperties, Precondition]] = {}

    def upload(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> ObjectInfo | None:
        self.stored[path] = (body(0, size), properties, condition)
        return None


class Signer:
    """Signs in words; `fail` may raise."""

    account, asks = ROBOT, True

    def __init__(self, fail: Callable[[str], None] = lambda name: None, pause: float = 0) -> None:
        self.fail = fail
        self.pause = pause
        self.asked = 0
        self.checked: list[str] = []

    def check(self, link: str, subject: str) -> None:
        self.checked.append(subject)

    def link(self, bucket: str, name: str, lifetime: timedelta) -> str:
        self.asked += 1
        self.fail(name)
        time.sleep(self.pause)
        return f"https://{bucket}/{name}?for={lifetime.total_seconds():.0f}"


def shared(*files: str) -> Shared:
    return Shared("gs://b/data/set", "an-id", "set", {"a": {"_type": "set", "items": [1]}}, ("b", "a"), files)


def test_the_document_is_the_sdks_and_its_link_is_the_answer() -> None:
    store, counts = Store(), []
    signer = Signer()
    link = share(shared("gs://other/x", "gs://b/data/set/y"), store, signer, HOUR, counts.append)  # type: ignore[arg-type]
    assert counts == [1, 2]
    assert signer.checked == ["gs://b/data/set/y"]
    ((place, (data, properties, condition)),) = store.stored.items()
    assert re.fullmatch(r"\.signed_metadata_files/[0-9a-f]{32}", place)
    assert link == f"https://b/data/set/{place}?for=3600"
    assert (properties.fixed, condition) == ({"contentType": "application/json"}, Precondition(0))
    assert json.loads(data) == {
        "id": "an-id",
        "name": "set",
        "tags": {"a": {"_type": "set", "items": [1]}},
        "labels": ["a", "b"],
        "path": "gs://b/data/set",
        "files": ["https://b/data/set/y?for=3600", "https://other/x?for=3600"],
    }


def test_links_stand_in_the_order_of_the_files_however_many() -> None:
    store = Store()
    files = [f"gs://b/data/set/{number:04}" for number in range(500)]
    share(shared(*reversed(files)), store, Signer(), HOUR, lambda done: None)  # type: ignore[arg-type]
    ((data, _, _),) = store.stored.values()
    assert [urlsplit(link).path for link in json.loads(data)["files"]] == [file[6:] for file in files]


def test_two_shares_have_names_of_their_own() -> None:
    store = Store()
    for _ in range(2):
        share(shared("gs://b/data/set/f"), store, Signer(), HOUR, lambda done: None)  # type: ignore[arg-type]
    assert len(store.stored) == 2


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ((), "there are no files in it, and a link to none would show the whole folder"),
        (("gs://b/data/set/f", "/data/f"), "/data/f is not in a bucket; upload it first"),
        (("https://host/f?X-Goog-Signature=secret",), "shared with you by links"),
    ],
)
def test_what_cannot_be_shared_stores_nothing(files: tuple[str, ...], text: str) -> None:
    store, signer = Store(), Signer()
    with pytest.raises(BadValue, match=text) as caught:
        share(shared(*files), store, signer, HOUR, lambda done: None)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert (store.stored, signer.asked) == ({}, 0)


def test_a_signature_that_fails_ends_it_before_anything_is_stored() -> None:
    def fail(name: str) -> None:
        if name.endswith("/10"):
            raise StoreUnavailable("IAM fails")

    store, signer = Store(), Signer(fail, pause=0.005)
    files = [f"gs://b/data/set/{number}" for number in range(2000)]
    with pytest.raises(OctuefsError, match="IAM fails"):
        share(shared(*files), store, signer, HOUR, lambda done: None)  # type: ignore[arg-type]
    assert store.stored == {}
    assert signer.asked < 2000


def test_a_refusal_is_asked_for_once() -> None:
    def fail(name: str) -> None:
        raise PermissionRefused("no link can be signed")

    signer = Signer(fail)
    with pytest.raises(PermissionRefused):
        share(shared(*(f"gs://b/{number}" for number in range(100))), Store(), signer, HOUR, lambda done: None)  # type: ignore[arg-type]
    assert signer.asked == 1
