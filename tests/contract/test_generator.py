"""The generator beside fake-gcs-server: 2,000 objects, asked for in the same words.

Where fake-gcs-server itself differs from what Google documents, it differs from the generator: it ignores `fields`;
without maxResults a page has no end, at Google it has 1,000 items; it tells all prefixes on every page and does not
count them; with a delimiter it compares prefixes with startOffset and endOffset, not the names of objects; of a
delimiter of several characters it cuts prefixes after the first.
"""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from support.gcs import GcsServer
from support.generated import BUCKET, Malformed, parse_fields, select
from support.generator import GeneratorServer

OBJECTS, PER_FOLDER = 2_000, 100
ALIKE = ("kind", "name", "id", "bucket", "size", "contentType", "crc32c", "md5Hash", "storageClass", "metadata")
"""What is told of an object that does not depend on when and where it was stored."""
LIST = f"/storage/v1/b/{BUCKET}/o"
NAME = "turbine-0013/part-0007.csv"
OBJECT = f"{LIST}/{quote(NAME, safe='')}"


@pytest.fixture(scope="module")
def generator() -> Iterator[GeneratorServer]:
    with GeneratorServer(OBJECTS, PER_FOLDER) as server:
        yield server


@pytest.fixture(scope="module")
def copy(generator: GeneratorServer) -> Iterator[GcsServer]:
    """A fake-gcs-server that was given what the generator has."""
    with GcsServer() as server:
        server.create_bucket(BUCKET)

        def store(item: dict[str, Any]) -> None:
            content = generator.get(BUCKET, item["name"])
            server.put(BUCKET, item["name"], content, item["metadata"], item["contentType"])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store, generator.list(BUCKET)))
        yield server


def ask(server: GcsServer, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """GET a path as it stands."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        with connection.getresponse() as answer:
            return answer.status, answer.headers, answer.read()


def pages(server: GcsServer, **query: object) -> Iterator[dict[str, Any]]:
    """Follow the tokens of a list."""
    token: dict[str, str] = {}
    while True:
        status, _, text = ask(server, f"{LIST}?{urlencode({**query, **token})}")
        assert status == 200
        page = json.loads(text)
        yield page
        if "nextPageToken" not in page:
            return
        token = {"pageToken": page["nextPageToken"]}


def items(page: dict[str, Any]) -> list[dict[str, Any]]:
    """What is told of the items, as far as it is alike."""
    return [{key: item.get(key) for key in ALIKE} for item in page.get("items", [])]


@pytest.mark.parametrize(
    "query",
    [
        {"maxResults": 300},
        {"maxResults": 1000},
        {"prefix": "turbine-0013/"},
        {"prefix": "turbine-001", "maxResults": 90},
        {"prefix": NAME},
        {"prefix": "nothing"},
        {"startOffset": "turbine-0004/part-0098.csv", "endOffset": NAME, "maxResults": 37},
        {"startOffset": "turbine-0004/part-0098.csv!", "endOffset": f"{NAME}!"},
        {"startOffset": "é"},
        {"endOffset": "a"},
        {"startOffset": "turbine-0005", "endOffset": "turbine-0004"},
        {"prefix": "turbine-0013/", "startOffset": "turbine-0013/part-005", "endOffset": "turbine-0014"},
        {"prefix": "turbine-0013/", "endOffset": "turbine-0012"},
        {"prefix": "turbine-0013/", "delimiter": "/", "maxResults": 30},
    ],
    ids=str,
)
def test_every_page_of_a_list_is_the_same(generator: GeneratorServer, copy: GcsServer, query: dict[str, Any]) -> None:
    ours, theirs = list(pages(generator, **query)), list(pages(copy, **query))
    assert [items(page) for page in ours] == [items(page) for page in theirs]
    assert [page.keys() for page in ours] == [page.keys() for page in theirs]


@pytest.mark.parametrize(
    "query",
    [
        {"delimiter": "/"},
        {"delimiter": "/", "prefix": "turbine-001"},
        {"delimiter": "-"},
        {"delimiter": "1", "prefix": "turbine-0013/part-00"},
        {"delimiter": "/", "startOffset": "turbine-0003/", "endOffset": "turbine-0007/"},
    ],
    ids=str,
)
def test_a_delimiter_makes_the_same_prefixes_and_leaves_the_same_items(
    generator: GeneratorServer, copy: GcsServer, query: dict[str, Any]
) -> None:
    [ours], [theirs] = pages(generator, **query), pages(copy, **query)
    assert ours.get("prefixes") == theirs.get("prefixes")
    assert items(ours) == items(theirs)


def test_a_page_has_a_thousand_items_where_nothing_is_said_and_at_most(generator: GeneratorServer) -> None:
    for query in ({}, {"maxResults": 5000}, {"maxResults": 0}):
        assert [len(page["items"]) for page in pages(generator, **query)] == [1000, 1000]


def test_prefixes_count_on_a_page_as_items_do(generator: GeneratorServer, copy: GcsServer) -> None:
    found = [page["prefixes"] for page in pages(generator, delimiter="/", maxResults=7)]
    assert [len(prefixes) for prefixes in found] == [7, 7, 6]
    [all_at_once] = pages(copy, delimiter="/", maxResults=7)
    assert [name for prefixes in found for name in prefixes] == all_at_once["prefixes"]


def test_a_prefix_is_told_where_any_object_of_it_is_between_the_offsets(generator: GeneratorServer) -> None:
    [page] = pages(generator, delimiter="/", startOffset="turbine-0003/part-0099.csv", endOffset=NAME)
    assert (page["prefixes"][0], page["prefixes"][-1]) == ("turbine-0003/", "turbine-0013/")


def test_ranges_of_names_make_up_the_whole(generator: GeneratorServer) -> None:
    borders = ["", "turbine-0002/part-0031.csv", "turbine-0009", NAME, ""]
    found: list[str] = []
    for start, end in pairwise(borders):
        for page in pages(generator, startOffset=start, endOffset=end, maxResults=111):
            found += [item["name"] for item in page["items"]]
    assert found == [item["name"] for item in generator.list(BUCKET)]
    assert len(found) == OBJECTS == len(set(found))


def test_fields_restrict_what_is_told(generator: GeneratorServer) -> None:
    """fake-gcs-server ignores them."""
    wanted = "nextPageToken,items(name,size,metadata/octue__labels)"
    full, some = (next(pages(generator, maxResults=3, **more)) for more in ({}, {"fields": wanted}))
    assert some == select(full, parse_fields(wanted))
    assert some.keys() == {"nextPageToken", "items"}
    assert [item.keys() for item in some["items"]] == [{"name", "size", "metadata"}] * 3
    assert some["items"][0]["metadata"].keys() == {"octue__labels"}
    assert list(pages(generator, fields="prefixes", maxResults=1000)) == [{}]
    status, _, text = ask(generator, f"{OBJECT}?fields=name,generation")
    assert (status, json.loads(text).keys()) == (200, {"name", "generation"})


@pytest.mark.parametrize("text", ["a(b", "a)", "a,,b", "(a)", "a/", "a(b))"])
def test_fields_that_cannot_be_read_are_refused(generator: GeneratorServer, text: str) -> None:
    with pytest.raises(Malformed):
        parse_fields(text)
    assert ask(generator, f"{LIST}?fields={quote(text)}")[0] == 400


def test_an_object_is_the_same(generator: GeneratorServer, copy: GcsServer) -> None:
    ours, theirs = (server.stat(BUCKET, NAME) for server in (generator, copy))
    assert {key: ours.get(key) for key in ALIKE} == {key: theirs.get(key) for key in ALIKE}
    assert ours.keys() == theirs.keys()
    assert ours == next(pages(generator, prefix=NAME))["items"][0]


@pytest.mark.parametrize(
    "path",
    [
        *("/storage/v1/b/elsewhere", "/storage/v1/b/elsewhere/o", f"{LIST}/nothing", f"{LIST}/nothing?alt=media"),
        *(f"{OBJECT}?generation=1", f"{OBJECT}?alt=media&generation=1", f"/download{OBJECT}?alt=media&generation=1"),
    ],
)
def test_what_is_not_there_is_not_found(generator: GeneratorServer, copy: GcsServer, path: str) -> None:
    assert (ask(generator, path)[0], ask(copy, path)[0]) == (404, 404)


@pytest.mark.parametrize("way", [f"{OBJECT}?alt=media", f"/download{OBJECT}?alt=media"])
@pytest.mark.parametrize("span", ["", "0-0", "2-4", "5-", "-3", "-300", "0-9999", "9-9999", "500-600"])
def test_ranges_of_content_are_the_same(generator: GeneratorServer, copy: GcsServer, way: str, span: str) -> None:
    answers = []
    for server in (generator, copy):
        pinned = f"{way}&generation={server.stat(BUCKET, NAME)['generation']}"
        more = {"Range": f"bytes={span}"} if span else {}
        status, headers, content = ask(server, pinned, Accept_Encoding="gzip", **more)
        told = {key: headers[key] for key in ("Content-Range", "Content-Type", "X-Goog-Hash", "Content-Length")}
        assert status == 416 or headers["X-Goog-Generation"] == server.stat(BUCKET, NAME)["generation"]
        answers.append((status, content if status != 416 else b"", told if status != 416 else {}))
    assert answers[0] == answers[1]


def test_requests_are_counted_by_what_they_ask_for(generator: GeneratorServer) -> None:
    before = generator.counts()
    for path in (f"/storage/v1/b/{BUCKET}", LIST, f"{LIST}?maxResults=1", OBJECT, f"{OBJECT}?alt=media"):
        assert ask(generator, path)[0] == 200
    after = generator.counts()
    assert {kind: after[kind] - before[kind] for kind in after} == {"bucket": 1, "list": 2, "object": 1, "media": 1}
