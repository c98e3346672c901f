"""With what rights buckets are asked: the options, the credentials they mean, and acting as a service account."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import google.auth
import google.auth.iam
import pytest
from typer.testing import CliRunner

from octuefs.cli import app
from octuefs.commands.options import access_of
from octuefs.errors import BadValue, OctuefsError, PermissionRefused, StoreUnavailable
from octuefs.model.paths import CloudLocation
from octuefs.stores.base import Access
from octuefs.stores.gcs import GcsStore
from octuefs.stores.gcs_credentials import READING, WRITING, credentials
from octuefs.stores.gcs_failures import failure
from support.gcs import CREDENTIALS
from support.keys import service_account_key

ROBOT = "robot@project-1.iam.gserviceaccount.com"
SECRET = "ya29.a-token-that-nobody-may-see"
PERMISSION_DENIED = {"code": 403, "message": f"Permission denied on {SECRET}", "status": "PERMISSION_DENIED"}


@pytest.fixture(autouse=True)
def at_google(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def user_file(tmp_path: Path) -> str:
    """A user's credentials, as `gcloud auth application-default login` writes them."""
    file = tmp_path / "user.json"
    file.write_text(json.dumps({**CREDENTIALS, "quota_project_id": "of-the-login"}))
    return str(file)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key()))
    return str(file)


# --- options


def test_the_options_make_an_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert access_of() == Access()
    assert access_of(anonymous=True) == Access(anonymous=True)
    assert access_of(False, Path("key.json"), "my-project-1", ROBOT) == Access(
        False, str(tmp_path / "key.json"), "my-project-1", ROBOT
    )
    for project in ("example.com:legacy-1", "123456789012"):
        assert access_of(billing_project=project).billing_project == project


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"anonymous": True, "key_file": Path("k")}, "--anonymous sends no credentials, and --key-file needs some"),
        ({"anonymous": True, "billing_project": "p"}, "and --billing-project needs some"),
        ({"anonymous": True, "impersonate": ROBOT}, "and --impersonate needs some"),
        ({"billing_project": ""}, "the ID of a project"),
        ({"billing_project": "My Project"}, "the ID of a project"),
        ({"billing_project": "p&x=1"}, "the ID of a project"),
        ({"impersonate": ""}, "the e-mail address of a service account"),
        ({"impersonate": "robot"}, "the e-mail address of a service account"),
        ({"impersonate": "a/b@project.iam.gserviceaccount.com"}, "the e-mail address of a service account"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(BadValue, match=text):
        access_of(**options)


@pytest.mark.parametrize(
    "command",
    [
        ["mount", "gs://b/p", "{folder}"],
        ["info", "gs://b/p"],
        ["ls", "gs://b/p"],
        ["hash", "gs://b/p"],
        ["upload", "{folder}", "gs://b/p"],
        ["download", "gs://b/p", "{folder}"],
        ["verify", "gs://b/p"],
        ["share", "gs://b/p"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_asks_a_bucket_takes_the_options(command: list[str], tmp_path: Path) -> None:
    arguments = [part.format(folder=tmp_path) for part in command]
    for options in (["--impersonate", "nobody"], ["--key-file", "k", "--billing-project", "no project"]):
        done = CliRunner().invoke(app, [*arguments, *options])
        assert done.exit_code == 1, done.output
        assert f"octuefs: {options[-2]} {options[-1]}: give the" in done.stderr
    if command[0] in ("upload", "share"):
        return
    done = CliRunner().invoke(app, [*arguments, "--anonymous", "--key-file", "k"])
    assert (done.exit_code, done.stderr) == (
        1,
        "octuefs: --anonymous sends no credentials, and --key-file needs some; leave one of them out\n",
    )


# --- credentials


def test_no_credentials_are_looked_for_where_none_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.auth.default", lambda **_: pytest.fail("the default credentials were asked for"))
    store = GcsStore(CloudLocation("b", "p"), access=Access(anonymous=True))
    assert store._connected().credentials.credentials is None
    emulated = GcsStore(
        CloudLocation("b", "p"),
        access=Access(key_file="/nowhere", billing_project="p", impersonate=ROBOT),
        endpoint="http://127.0.0.1:1",
    )
    assert emulated._connected().credentials.credentials is None
    assert emulated._connected().requester_pays == "p"


def test_a_users_own_project_gives_way_to_the_one_that_is_to_pay(user_file: str) -> None:
    plain = credentials(Access(key_file=user_file), READING)
    assert plain.quota_project_id == "of-the-login"
    paying = credentials(Access(key_file=user_file, billing_project="payer"), READING)
    headers: dict[str, str] = {}
    paying.apply(headers)
    assert headers["x-goog-user-project"] == "payer"


def test_a_key_names_no_project_in_a_header(key_file: str) -> None:
    paying = credentials(Access(key_file=key_file, billing_project="payer"), WRITING)
    headers: dict[str, str] = {}
    paying.apply(headers, token=SECRET)
    assert "x-goog-user-project" not in headers


# --- acting as another


class Iam:
    """Stands for Google's IAM Service Account Credentials API: gives tokens, or `answer`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        """Paths, authorizations and bodies."""
        self.answers: list[tuple[int, Any]] = []
        """What to answer first, in this order; then a token is given."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{{}}:generateAccessToken"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self) -> tuple[int, Any]:
        if self.answers:
            status, error = self.answers.pop(0)
            return status, {"error": error}
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 200, {"accessToken": SECRET, "expireTime": expires}

    def _handler(iam) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                iam.asked.append((self.path, self.headers["Authorization"], content))
                status, value = iam.answer()
                data = json.dumps(value).encode()
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[Iam]:
    iam = Iam()
    monkeypatch.setattr(google.auth.iam, "_IAM_ENDPOINT", iam.url)
    yield iam
    iam.close()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Access], tuple[GcsStore, list[str | None]]]]:
    """`gcs(access)`: a store on a server that counts as Google's, and what authorised the requests to it."""
    authorised: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorised.append(self.headers["Authorization"])
            self.send_response_only(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr("octuefs.stores.gcs_requests.is_google", lambda endpoint: True)
    stores: list[GcsStore] = []

    def gcs(access: Access) -> tuple[GcsStore, list[str | None]]:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        store = GcsStore(CloudLocation("b", "p"), access=access, endpoint=endpoint, read_only=True)
        stores.append(store)
        return store, authorised

    yield gcs
    for store in stores:
        store.close()
    server.shutdown()
    server.server_close()


Gcs = Callable[[Access], tuple[GcsStore, list[str | None]]]


def test_requests_are_made_as_the_service_account(iam: Iam, gcs: Gcs, user_file: str) -> None:
    store, authorised = gcs(Access(key_file=user_file, impersonate=ROBOT, billing_project="payer"))
    store.check()
    assert list(store.scan()) == []
    assert iam.asked == [
        (
            f"/{ROBOT}:generateAccessToken",
            f"Bearer {CREDENTIALS['token']}",
            {"delegates": None, "scope": [READING], "lifetime": "3600s"},
        )
    ]
    assert set(authorised) == {f"Bearer {SECRET}"}


def test_a_key_asks_iam_with_the_right_that_it_wants(key_file: str) -> None:
    found = credentials(Access(key_file=key_file, impersonate=ROBOT), WRITING)
    assert found.signer_email == ROBOT
    assert not found.requires_scopes


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PERMISSION_DENIED,
            f"your credentials needs the role Service Account Token Creator.* on {ROBOT}",
        ),
        ({"code": 404, "message": f"Not found; Gaia id {SECRET}"}, "there is no such service account"),
        ({"code": 400, "message": "Request contains an invalid argument."}, "there is no such service account"),
        (
            {"code": 403, "message": "x", "details": [{"reason": "SERVICE_DISABLED"}]},
            "gcloud services enable iamcredentials.googleapis.com",
        ),
    ],
)
def test_who_may_not_act_as_the_account_is_told_why(
    iam: Iam, gcs: Gcs, user_file: str, error: dict[str, Any], words: str
) -> None:
    iam.answers = [(error["code"], error)] * 3
    store, authorised = gcs(Access(key_file=user_file, impersonate=ROBOT))
    for act in (store.check, lambda: list(store.scan())):
        with pytest.raises(PermissionRefused, match=words) as caught:
            act()
        assert str(caught.value).startswith(f"cannot act as {ROBOT}: ")
        assert SECRET not in str(caught.value)
    assert authorised == []


def test_an_iam_that_is_overloaded_is_asked_again(iam: Iam, gcs: Gcs, user_file: str) -> None:
    iam.answers = [(503, {"code": 503, "message": "unavailable"})]
    store, authorised = gcs(Access(key_file=user_file, impersonate=ROBOT))
    store.check()
    assert len(iam.asked) == 2
    assert authorised == [f"Bearer {SECRET}"]


def test_an_iam_that_stays_overloaded_is_told_of(iam: Iam, gcs: Gcs, user_file: str) -> None:
    iam.answers = [(503, {"code": 503, "message": "unavailable"})] * 20
    store, _ = gcs(Access(key_file=user_file, impersonate=ROBOT))
    with pytest.raises(StoreUnavailable, match="try again later"):
        store.check()


def test_the_refusal_of_ones_own_credentials_is_not_taken_for_iams(
    monkeypatch: pytest.MonkeyPatch, user_file: str
) -> None:
    found = credentials(Access(key_file=user_file, impersonate=ROBOT), READING)

    def refused(_self: object, _request: object) -> None:
        raise google.auth.exceptions.RefreshError("invalid_grant: Bad Request", {"error": "invalid_grant"})

    monkeypatch.setattr(type(found).__mro__[1], "refresh", refused)
    with pytest.raises(google.auth.exceptions.RefreshError) as caught:
        found.refresh(None)
    failed = failure(caught.value, "gs://b")
    assert isinstance(failed, PermissionRefused)
    assert "gcloud auth application-default login" in str(failed)


def test_no_vendor_writes_to_the_terminal(
    iam: Iam, gcs: Gcs, user_file: str, capfd: pytest.CaptureFixture[str]
) -> None:
    iam.answers = [(403, PERMISSION_DENIED)]
    store, _ = gcs(Access(key_file=user_file, impersonate=ROBOT))
    with pytest.raises(OctuefsError):
        store.check()
    assert capfd.readouterr() == ("", "")
