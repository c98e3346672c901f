"""Listing a prefix in parallel, over a real server: which requests are made, and what is left when it ends early."""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from contract.places import Prefix, Proxy

from octuefs.errors import PermissionRefused, StoreUnavailable
from octuefs.stores import gcs_listing
from octuefs.stores.base import ObjectInfo, Skipped
from octuefs.stores.gcs import GcsStore
from support.gcs import Bucket, GcsServer
from support.strict_gcs import Request, StrictGcs

PAGE = 10
PATIENCE = 20.0

NAMES = [f"{folder}/{number:03}.csv" for folder in ("a", "b/c", "é") for number in range(70)] + ["z"]
PAGES = -(-len(NAMES) // PAGE)


@pytest.fixture(scope="module")
def filled(gcs_server: GcsServer) -> Iterator[Bucket]:
    """A bucket that no test changes, as it takes a while to fill."""
    name = f"octuefs-{uuid.uuid4().hex[:12]}"
    gcs_server.create_bucket(name)
    bucket = Bucket(gcs_server, name)
    for path in NAMES:
        bucket.put(f"data/{path}", b"1", {"octue__id": '"x"'})
    for path in ("", "b/c/", "b//c"):
        bucket.put(f"data/{path}", b"")
    yield bucket
    gcs_server.delete_bucket(name)


@pytest.fixture
def store(filled: Bucket, strict_gcs: StrictGcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsStore]:
    """A store whose pages are small."""
    monkeypatch.setattr(gcs_listing, "PAGE_SIZE", PAGE)
    place = Prefix(filled, strict_gcs.endpoint)
    yield place.store
    place.store.close()
    assert listing_threads() == []


def listing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "octuefs-list"]


def is_part(request: Request) -> bool:
    return request.kind == "list" and "startOffset" in request.query


def test_all_is_listed_once_in_few_more_requests_than_pages(store: GcsStore, strict_gcs: StrictGcs) -> None:
    found = list(store.scan())
    files = Counter(item.path for item in found if isinstance(item, ObjectInfo))
    assert files == Counter([*NAMES, "b/c"])
    assert [item.name for item in found if isinstance(item, Skipped)] == ["b//c"]
    assert strict_gcs.count() <= 1.5 * PAGES + 16
    assert any(map(is_part, strict_gcs.requests))
    assert {request.kind for request in strict_gcs.requests} == {"list"}


def test_what_a_parallel_listing_says_of_objects_is_what_each_says_of_itself(store: GcsStore) -> None:
    found = {item.path: item for item in store.scan() if isinstance(item, ObjectInfo)}
    for path in ("a/000.csv", "b/c/069.csv", "é/035.csv", "z"):
        assert found[path] == store.stat(path)


def test_a_prefix_of_one_page_is_one_request(
    store: GcsStore, strict_gcs: StrictGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_listing, "PAGE_SIZE", 1000)
    assert len(list(store.scan())) == len(NAMES) + 2
    assert strict_gcs.count() == 1


def test_a_listing_of_two_pages_is_two_requests(
    store: GcsStore, strict_gcs: StrictGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_listing, "PAGE_SIZE", 150)
    assert len(list(store.scan())) == len(NAMES) + 2
    assert strict_gcs.count() == 2


def test_parts_are_asked_for_at_the_same_time(store: GcsStore, strict_gcs: StrictGcs) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)
    strict_gcs.before(is_part, together.wait, times=3)
    assert len(list(store.scan())) == len(NAMES) + 2


def test_a_folder_is_listed_in_parallel_too(store: GcsStore, strict_gcs: StrictGcs) -> None:
    assert sorted(item.path for item in store.scan("a") if isinstance(item, ObjectInfo)) == NAMES[:70]
    assert {request.query["prefix"] for request in strict_gcs.requests} == {"data/a/"}


def test_what_stands_directly_in_a_folder_comes_page_by_page_in_order(store: GcsStore, strict_gcs: StrictGcs) -> None:
    found = [item.path for item in store.scan("a", recursive=False) if isinstance(item, ObjectInfo)]
    assert found == NAMES[:70]
    assert strict_gcs.count() == 7
    assert not any(map(is_part, strict_gcs.requests))


def test_only_what_is_used_is_asked_for_also_of_parts(store: GcsStore, strict_gcs: StrictGcs) -> None:
    list(store.scan())
    assert {request.query["fields"] for request in strict_gcs.requests} == {gcs_listing.LIST_FIELDS}
    assert {request.query["maxResults"] for request in strict_gcs.requests} == {str(PAGE)}


# --- failures


def test_a_part_that_fails_for_a_while_is_asked_for_again(store: GcsStore, strict_gcs: StrictGcs) -> None:
    failed = strict_gcs.fail(503, is_part)
    assert len(list(store.scan())) == len(NAMES) + 2
    assert failed.hits == 1


def test_a_part_that_is_refused_ends_the_listing_and_all_requests(store: GcsStore, strict_gcs: StrictGcs) -> None:
    strict_gcs.fail(403, is_part)
    with pytest.raises(PermissionRefused, match="access is refused"):
        list(store.scan())
    assert listing_threads() == []
    assert store.stat("z").size == 1
    assert strict_gcs.count(kind="list") < PAGES


def test_who_stops_early_leaves_no_thread_and_no_request(store: GcsStore, strict_gcs: StrictGcs) -> None:
    held = strict_gcs.hold(is_part, times=None)
    found = store.scan()
    next(found)
    assert held.arrived.wait(PATIENCE)
    assert listing_threads()
    found.close()  # type: ignore[attr-defined]
    assert listing_threads() == []
    held.release()
    assert store.stat("z").size == 1
    assert strict_gcs.count(kind="list") < PAGES


def test_a_listing_that_is_forgotten_ends_too(store: GcsStore) -> None:
    for _ in store.scan():
        break
    assert listing_threads() == []


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b'{"items": 5}',
        b'{"items": [{"name": 5}]}',
        b'{"items": [{"name": "data/f", "size": "large"}]}',
        b'"\xff"',
    ],
)
def test_an_answer_that_is_no_page_is_told(proxied: Prefix, proxy: Proxy, answer: bytes, *, recursive: bool) -> None:
    proxy.answer = lambda path: (200, {"Content-Type": "application/json"}, answer)
    with pytest.raises(StoreUnavailable, match=r"gs://.*does not answer as Google Cloud Storage does"):
        list(proxied.store.scan(recursive=recursive))


def test_an_object_under_a_customers_key_is_listed_without_a_hash(proxied: Prefix, proxy: Proxy) -> None:
    resource = {"name": "data/f", "size": "7", "generation": "5", "customerEncryption": {"keySha256": "x"}}
    answer = json.dumps({"items": [resource]}).encode()
    proxy.answer = lambda path: (200, {"Content-Type": "application/json"}, answer)
    (info,) = proxied.store.scan()
    assert isinstance(info, ObjectInfo)
    assert (info.path, info.size, info.crc32c, info.version) == ("f", 7, None, (5, 0, 0))
