"""Who pays: a bucket whose requester pays is told a project in every request, whatever is asked of it."""

import os
from collections.abc import Callable, Iterator

import google_crc32c
import pytest

from octuefs.errors import OctuefsError, PermissionRefused
from octuefs.model.paths import CloudLocation
from octuefs.stores.base import Access, ObjectInfo
from octuefs.stores.gcs import GcsStore
from octuefs.stores.gcs_failures import failure, refusal
from octuefs.stores.writing import Body, ObjectProperties, Precondition
from support.gcs import Bucket
from support.strict_gcs import StrictGcs

PROJECT = "example.com:payer-1"
MIB = 1 << 20
PLAIN = ObjectProperties()
ANY = Precondition()

KINDS = {
    "list",
    "get",
    "media",
    "upload",
    "start",
    "send",
    "cancel",
    "patch",
    "delete",
    "rewrite",
    "compose",
    "bucket",
    "folder",
}
"""All kinds of requests that a store makes."""


def body(data: bytes) -> Body:
    return lambda offset, size: data[offset : offset + size]


Opener = Callable[[Access], GcsStore]


@pytest.fixture
def opened(strict_gcs: StrictGcs, bucket: Bucket) -> Iterator[Opener]:
    """`opened(access)`: a store on a bucket whose requester pays."""
    stores: list[GcsStore] = []

    def opened(access: Access) -> GcsStore:
        store = GcsStore(CloudLocation(bucket.name, "data"), access=access, endpoint=strict_gcs.endpoint)
        stores.append(store)
        return store

    strict_gcs.requester_pays(PROJECT)
    yield opened
    for store in stores:
        store.close()


def generation(info: ObjectInfo) -> int:
    assert isinstance(info.version, tuple)
    return info.version[0]


def upload(store: GcsStore, path: str, data: bytes) -> ObjectInfo:
    return store.upload(path, body(data), len(data), google_crc32c.value(data), PLAIN, ANY)


def use_everything(store: GcsStore, strict: StrictGcs) -> None:
    """Call all of a store that asks its server anything."""
    strict.enable_folders()
    strict.rewrite_in_steps(2)
    store.check()
    assert store.bucket_facts().has_folders
    one = upload(store, "f", b"content")
    two = upload(store, "large", os.urandom(3 * MIB))
    session = store.begin_upload("session", PLAIN, ANY)
    data = os.urandom(2 * MIB)
    assert store.send("session", session, body(data), 0, MIB, total=None).offset == MIB
    assert store.upload_state("session", session).offset == MIB
    assert store.send("session", session, body(data), MIB, 2 * MIB, total=2 * MIB).done is not None
    store.cancel_upload(store.begin_upload("given-up", PLAIN, ANY))
    store.compose("joined", [("f", generation(one)), ("large", generation(two))], PLAIN, ANY)
    store.rewrite("f", generation(one), "copy", ANY)
    store.patch("f", {"key": "value"}, ANY)
    assert store.open(store.stat("f")).read(0, 100) == b"content"
    assert store.read_small("copy", 100) == b"content"
    store.make_marker("folder")
    assert {found.path for found in store.scan() if isinstance(found, ObjectInfo)} >= {"f", "joined", "session"}
    assert list(store.scan("folder", recursive=False)) == []
    store.rename_folder("folder", "other")
    store.delete_marker("other")
    store.delete("f", ANY)


def test_every_kind_of_request_names_the_project_that_pays(opened: Opener, strict_gcs: StrictGcs) -> None:
    use_everything(opened(Access(billing_project=PROJECT)), strict_gcs)
    assert {request.kind for request in strict_gcs.requests} == KINDS
    for request in strict_gcs.requests:
        assert request.target.count("userProject=") == 1, str(request)
        assert request.query["userProject"] == PROJECT, str(request)


def test_without_a_project_no_request_names_one(opened: Opener, strict_gcs: StrictGcs) -> None:
    strict_gcs.requester_pays(None)
    use_everything(opened(Access()), strict_gcs)
    assert strict_gcs.count(contains="userProject") == 0


def test_a_session_that_names_who_pays_is_not_told_again(opened: Opener, strict_gcs: StrictGcs) -> None:
    store = opened(Access(billing_project=PROJECT))
    session = store.begin_upload("f", PLAIN, ANY) + "&userProject=example.com%3Apayer-1"
    assert store.send("f", session, body(b"1"), 0, 1, total=1).done is not None
    assert strict_gcs.requests[-1].target.count("userProject=") == 1


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access(), "whoever asks has to pay; name the project that is to pay with --billing-project"),
        (Access(billing_project="another"), "may not let the project of --billing-project pay"),
    ],
)
def test_who_does_not_pay_is_told_what_lacks(opened: Opener, access: Access, words: str) -> None:
    store = opened(access)
    actions: list[Callable[[], object]] = [
        store.check,
        lambda: list(store.scan()),
        lambda: store.stat("f"),
        lambda: upload(store, "f", b"1"),
        lambda: store.begin_upload("f", PLAIN, ANY),
        lambda: store.delete("f", ANY),
    ]
    for act in actions:
        with pytest.raises(PermissionRefused, match=words):
            act()


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (400, "User project specified in the request is invalid.", "check --billing-project"),
        (400, "UserProjectMissing", "name the project"),
        (
            403,
            "a@b.c does not have serviceusage.services.use access to the Google Cloud project. Permission "
            "'serviceusage.services.use' denied on resource (or it may not exist).",
            "serviceusage.services.use there",
        ),
        (403, "userProjectAccountProblem", "check its billing account"),
    ],
)
def test_the_servers_words_on_paying_become_ours(status: int, message: str, words: str) -> None:
    from gcsfs.retry import validate_response

    content = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'.encode()
    failures: list[OctuefsError] = [refusal(status, content, "gs://b/f", "", "anything")]
    try:
        validate_response(status, content, "b/b/o/f")
    except Exception as error:
        failures.append(failure(error, "gs://b/f"))
    assert len(failures) == 2
    for failed in failures:
        assert isinstance(failed, PermissionRefused)
        assert str(failed).startswith("gs://b/f: ")
        assert words in str(failed)


def test_an_objects_name_is_not_taken_for_the_servers_words() -> None:
    failed = failure(ValueError("Bad Request: b/requester-pays/o/userProject-invalid\nsome invalid thing"), "gs://b/f")
    assert not isinstance(failed, PermissionRefused)
