"""The SDK loads what `octuefs share` made, and sees the dataset that it sees in the bucket."""

import json
import os
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from interop import datasets
from interop.world import Sources

from support.gcs import Bucket
from support.keys import service_account_key
from support.mounting import mounted, run_octuefs
from support.sdk import run_sdk

DATASETS = ["written", "nameless", "case2", "case14", "case17", "case21"]

ASK = """
import json, sys, urllib.parse
from google.oauth2 import service_account
from octue.resources import Dataset
from octue.utils.encoders import OctueJSONEncoder

# The server wants no tokens, and nobody gives any: the SDK then signs with the key itself.
service_account.Credentials.before_request = lambda *_, **__: None

said = []
for path, shares in json.load(open(sys.argv[1])):
    dataset = Dataset(path=path)
    link = None
    if shares:
        link = dataset.generate_signed_url()
        dataset = Dataset(path=link)
    tags = dict(dataset.tags)
    said.append({
        "link": link,
        "hash": dataset.hash_value,
        "name": dataset.name,
        "labels": sorted(map(str, dataset.labels)),
        "tags": json.dumps(tags, sort_keys=True, cls=OctueJSONEncoder),
        "files": sorted(
            [
                urllib.parse.unquote(urllib.parse.urlsplit(file.cloud_path).path).lstrip("/")
                if file.cloud_path.startswith("http") else file.cloud_path.removeprefix("gs://"),
                file.hash_value, sorted(map(str, file.labels)), file.size_bytes,
            ]
            for file in dataset.files
        ),
    })
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def key(places: tuple[Path, Bucket], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away key, for which nobody gives tokens."""
    file = tmp_path_factory.mktemp("keys") / "key.json"
    nobody = f"{places[1].environment['STORAGE_EMULATOR_HOST']}/no-tokens-here"
    file.write_text(json.dumps({**service_account_key(), "token_uri": nobody}))
    return file


def link_of(source: str | Path, key: Path, environment: Mapping[str, str], *options: str) -> str:
    done = run_octuefs("share", source, "--key-file", key, *options, environment=environment)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[\d,]+ files? shared until \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", done.stderr)
    return done.stdout.removesuffix("\n")


def ask_sdk(
    paths: list[str], environment: Mapping[str, str], folder: Path, *, shares: bool = False
) -> list[dict[str, Any]]:
    """What the SDK says of datasets; where it `shares` them first, of what it sees by its own links."""
    request = folder / "paths.json"
    request.write_text(json.dumps([(path, shares) for path in paths]))
    answers: list[dict[str, Any]] = run_sdk(ASK, environment=environment, arguments=[request])
    return answers


def document_of(link: str) -> dict[str, Any]:
    with urllib.request.urlopen(link) as reply:
        document: dict[str, Any] = json.load(reply)
    return document


def unsigned(document: dict[str, Any], *, with_id: bool) -> dict[str, Any]:
    """A document without what differs each time: signatures, their order, and an ID that was made for it."""
    files = sorted(link.partition("?")[0] for link in document["files"])
    return {**document, "files": files, "id": document["id"] if with_id else None}


def test_a_link_is_to_the_sdk_what_its_own_is(
    sources: Sources, places: tuple[Path, Bucket], key: Path, tmp_path: Path
) -> None:
    environment = places[1].environment
    plain = [sources[f"cloud {name}"].location for name in DATASETS]
    links = [link_of(source, key, environment) for source in plain]
    with_key = {**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    by_sdk = ask_sdk(plain, with_key, tmp_path, shares=True)
    by_us = ask_sdk(links, environment, tmp_path)
    seen = ask_sdk(plain, environment, tmp_path)
    for name, link, theirs, ours, in_bucket in zip(DATASETS, links, by_sdk, by_us, seen, strict=True):
        their_link = theirs.pop("link")
        assert {**ours, "link": None} == {**theirs, "link": None}, name
        assert ours["hash"] == in_bucket["hash"], name
        assert len(ours["files"]) == len(in_bucket["files"]), name
        with_id = name != "nameless"
        documents = [unsigned(document_of(it), with_id=with_id) for it in (link, their_link)]
        assert documents[0] == documents[1], name


def test_a_link_tells_nobody_anything_but_the_document(
    sources: Sources, places: tuple[Path, Bucket], key: Path
) -> None:
    bucket = places[1]
    source = sources["cloud written"].location
    before = {it["name"] for it in bucket.list()}
    link = link_of(source, key, bucket.environment, "--expires", "90m")
    assert "X-Goog-Expires=5400" in link
    (name,) = {it["name"] for it in bucket.list()} - before
    prefix = source.removeprefix(f"{bucket.url}/")
    assert re.fullmatch(re.escape(prefix) + r"/\.signed_metadata_files/[0-9a-f]{32}", name)
    assert link.startswith(f"{bucket.environment['STORAGE_EMULATOR_HOST']}/{bucket.name}/{name}?")
    document = document_of(link)
    assert list(document) == ["id", "name", "tags", "labels", "path", "files"]
    assert document["path"] == source
    assert bucket.stat(name)["contentType"] == "application/json"
    for secret in ("X-Goog-Signature", "private_key", service_account_key()["private_key"]):
        assert secret not in json.dumps(bucket.stat(name))


def test_a_shared_dataset_shows_no_link_of_its_own(
    sources: Sources, places: tuple[Path, Bucket], key: Path, tmp_path: Path
) -> None:
    """What is shared twice is the same twice: the documents are no datafiles."""
    bucket = places[1]
    source = sources["cloud case2"].location
    first, second = (link_of(source, key, bucket.environment) for _ in range(2))
    one, other = ask_sdk([first, second], bucket.environment, tmp_path)
    assert one == other
    done = run_octuefs("hash", source, environment=bucket.environment)
    assert done.stdout == f"{one['hash']}\n"


def test_a_view_in_a_mount_is_shared_with_its_files_alone(
    sources: Sources, places: tuple[Path, Bucket], key: Path, tmp_path: Path
) -> None:
    bucket = places[1]
    source = sources["cloud written"].location
    with mounted(source, environment=bucket.environment) as mount:
        view = mount / "by-label" / sorted(path.name for path in (mount / "by-label").iterdir())[0]
        expected = (view / ".hash").read_text().strip()
        whole = (mount / ".hash").read_text().strip()
        links = [link_of(path, key, bucket.environment) for path in (view, mount)]
        nothing = run_octuefs(
            "share", mount / "filter" / "name" / "no-such", "--key-file", key, environment=bucket.environment
        )
        empty = run_octuefs(
            "share", mount / "filter/size_bytes__lt=0", "--key-file", key, environment=bucket.environment
        )
    said = ask_sdk(links, bucket.environment, tmp_path)
    assert [it["hash"] for it in said] == [expected, whole]
    assert expected != whole
    assert 0 < len(said[0]["files"]) < len(said[1]["files"])
    assert (nothing.returncode, empty.returncode) == (1, 1)
    assert "there are no files in it, and a link to none would show the whole folder" in empty.stderr
    assert nothing.stdout == empty.stdout == ""


def test_a_mount_takes_the_link_and_shows_the_same_dataset(
    sources: Sources, places: tuple[Path, Bucket], key: Path
) -> None:
    bucket = places[1]
    source = sources["cloud written"].location
    link = link_of(source, key, bucket.environment)
    secret = link.partition("X-Goog-Signature=")[2]
    expected = run_octuefs("hash", source, environment=bucket.environment).stdout
    with mounted(link, environment=bucket.environment) as mount:
        assert f"{(mount / '.hash').read_text().strip()}\n" == expected
        shown = (mount / ".octuefs/status").read_text() + (mount / ".octuefs/errors").read_text()
        assert os.getxattr(mount, "user.octue.name").decode() == datasets.DATASET["name"]
    assert secret not in shown


def test_an_empty_place_and_a_local_folder_are_not_shared(
    sources: Sources, places: tuple[Path, Bucket], key: Path
) -> None:
    bucket = places[1]
    before = {it["name"] for it in bucket.list()}
    local = sources["local written"].location
    for source, words in ((f"{bucket.url}/nothing/here", "there are no files"), (local, f"octuefs upload {local}")):
        done = run_octuefs("share", source, "--key-file", key, environment=bucket.environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    done = run_octuefs("share", sources["cloud written"].location, environment=bucket.environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a user's credentials" in done.stderr
    assert {it["name"] for it in bucket.list()} == before
