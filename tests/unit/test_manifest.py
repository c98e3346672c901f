"""Manifests: what may stand in one, where the files of a dataset have their places, and how one is written."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from octuefs.errors import BadValue
from octuefs.model.hashes import hash_of_manifest, hash_of_set
from octuefs.model.listed_files import FileEntry, absolute_path, cloud_path_of_url, place_below, place_files
from octuefs.model.manifest import (
    MANIFEST_NAME,
    DatasetEntry,
    Manifest,
    check_dataset_name,
    dataset_dictionary,
    describes_one_dataset,
    manifest_text,
    parse_manifest,
)
from octuefs.model.paths import METADATA_NAME
from octuefs.tree.namespace import NAMES
from support.golden import cases, manifests

SECRET = "X-Goog-Signature=5ec2e7"
LINK = f"https://storage.googleapis.com/bucket/wind/.signed_metadata_files/slug?{SECRET}"
ID = "11111111-2222-4333-8444-555555555555"


def parsed(datasets: Any, base: str = "/data", **others: Any) -> Manifest:
    return parse_manifest(json.dumps({"datasets": datasets, **others}).encode(), base)


def only(dataset: Any, base: str = "/data") -> DatasetEntry:
    return parsed({"d": dataset}, base).datasets["d"]


# --- what may stand in one


def test_the_datasets_keep_their_order_and_the_manifest_its_id_and_name() -> None:
    manifest = parsed({"z": "/z", "a": "gs://bucket/a", "m": LINK}, id=ID.upper(), name="all of them")
    assert manifest.id == ID
    assert manifest.name == "all of them"
    assert [(name, entry.path) for name, entry in manifest.datasets.items()] == [
        ("z", "/z"),
        ("a", "gs://bucket/a"),
        ("m", LINK),
    ]
    assert parsed({}) == Manifest(None, None, {})


@pytest.mark.parametrize(
    ("text", "base", "path"),
    [
        ("turbines", "/data", "/data/turbines"),
        ("../turbines/", "/data/manifests", "/data/turbines"),
        (".", "/data", "/data"),
        ("/else//where/../here/", "/data", "/else/here"),
        ("~/mine", "/data", "/data/~/mine"),
        ("httpdata", "/data", "/data/httpdata"),
        ("turbines", "gs://bucket", "gs://bucket/turbines"),
        ("../turbines", "gs://bucket/a/b", "gs://bucket/a/turbines"),
        ("/local", "gs://bucket/a", "/local"),
        ("gs://other/wind/", "gs://bucket/a", "gs://other/wind"),
        ("shared.json", "https://host/folder", "https://host/folder/shared.json"),
        ("a:b", "https://host/folder/", "https://host/folder/a:b"),
        (" " + LINK + "\n", "/data", LINK),
        ("HTTPS://host/x", "/data", "HTTPS://host/x"),
    ],
)
def test_a_path_is_relative_to_the_manifest(text: str, base: str, path: str) -> None:
    assert only(text, base).path == path


@pytest.mark.parametrize("files", [None, [], {}, "", False])
def test_an_object_without_files_is_the_whole_folder_as_in_the_sdk(files: Any) -> None:
    assert only({"path": "wind", "files": files}) == DatasetEntry("/data/wind")


def test_an_object_lists_files_by_path_or_with_their_own_metadata() -> None:
    entry = only(
        {
            "path": "wind",
            "files": [
                "wind/a.csv",
                {"path": "gs://b/c.csv", "labels": ["x"], "id": None, "name": "c", "cloud_path": "?"},
            ],
            "id": ID,
            "tags": {"a": {"_type": "set", "items": [1]}},
            "unknown": 1,
        }
    )
    assert entry.files == (FileEntry("/data/wind/a.csv"), FileEntry("gs://b/c.csv", {"labels": ["x"]}))
    assert entry.given == {"id": ID, "tags": {"a": {"_type": "set", "items": [1]}}}


def test_of_a_cloud_dataset_only_path_and_files_are_taken_as_in_the_sdk() -> None:
    for path in ("gs://bucket/wind", LINK):
        entry = only({"path": path, "files": [path], "id": ID, "name": "n", "labels": ["a"], "recursive": False})
        assert entry == DatasetEntry(path, (FileEntry(path),))


def test_files_without_a_path_are_those_of_a_dataset_in_the_folder_of_the_manifest() -> None:
    assert only({"files": ["/x/a"]}) == DatasetEntry("/data", (FileEntry("/x/a"),))


def test_a_set_as_the_sdk_encodes_it_is_a_list_of_files() -> None:
    assert only({"path": "/p", "files": {"_type": "set", "items": ["/p/a"]}}).files == (FileEntry("/p/a"),)


def test_a_local_folder_can_be_taken_without_its_sub_folders() -> None:
    assert not only({"path": "/p", "recursive": False}).recursive
    assert only({"path": "/p", "recursive": False, "files": ["/p/sub/a"]}).recursive, "as in the SDK"


def test_a_listed_object_may_have_a_name_that_no_file_can_have() -> None:
    assert only({"path": "gs://b/p", "files": ["gs://b/p//a", "gs://b/p/../c"]}).files == (
        FileEntry("gs://b/p//a"),
        FileEntry("gs://b/p/../c"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"datasets": {"a": ' + "[" * 400 + "]" * 400 + "}}", "nested too deeply"),
        ("[]", "no JSON object"),
        ('"x"', "no JSON object"),
        ("{}", 'no "datasets"'),
        ('{"datasets": null}', 'no "datasets"'),
        ('{"datasets": ["a"]}', 'no "datasets"'),
        ('{"datasets": {"a": "/x", "b": "/y", "a": "/z"}}', "two sources of one name.*'a'"),
        ('{"datasets": {}, "id": "x"}', "id: 'x' is no UUID"),
        ('{"datasets": {}, "name": 1}', "name: 1 is no text"),
        ('{"datasets": {"": "/x"}}', "empty"),
        ('{"datasets": {"a/b": "/x"}}', "'a/b' .*slash"),
        ('{"datasets": {"/": "/x"}}', "slash"),
        ('{"datasets": {"..": "/x"}}', r"'\.\.'"),
        ('{"datasets": {".": "/x"}}', r"'\.'"),
        ('{"datasets": {"a\\u0000": "/x"}}', "NUL"),
        ('{"datasets": {"a\\ud800": "/x"}}', "Unicode"),
        (json.dumps({"datasets": {"ü" * 128: "/x"}}), "256 bytes"),
        ('{"datasets": {"a": 1}}', "dataset 'a': .*neither"),
        ('{"datasets": {"a": null}}', "dataset 'a': .*neither"),
        ('{"datasets": {"a": ["/x"]}}', "dataset 'a': .*neither"),
        ('{"datasets": {"a": {}}}', "neither `path` nor `files`"),
        ('{"datasets": {"a": {"path": 1}}}', "`path` is no text"),
        ('{"datasets": {"a": {"path": "/x", "files": "/x/a"}}}', "`files` are no list"),
        ('{"datasets": {"a": {"path": "/x", "files": {"a": 1}}}}', "`files` are no list"),
        ('{"datasets": {"a": {"path": "/x", "files": [1]}}}', "one of its `files`"),
        ('{"datasets": {"a": {"path": "/x", "files": [{"name": "a"}]}}}', "one of its `files`"),
        ('{"datasets": {"a": {"path": "/x", "files": [""]}}}', "empty"),
        ('{"datasets": {"a": ""}}', "empty"),
        ('{"datasets": {"a": "/x\\u0000"}}', "NUL"),
        ('{"datasets": {"a": "/x\\ud800"}}', "Unicode"),
        ('{"datasets": {"a": "gs://"}}', "no bucket"),
        ('{"datasets": {"a": "gs:///x"}}', "no bucket"),
        ('{"datasets": {"a": "gs://b/x/../y"}}', "no empty"),
        ('{"datasets": {"a": "s3://b/x"}}', "neither local nor"),
        ('{"datasets": {"a": "https://host"}}', "not complete"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadValue, match=words) as caught:
        parse_manifest(text.encode(), "/data")
    assert "\n" not in str(caught.value)


def test_what_is_not_utf8_is_no_manifest() -> None:
    with pytest.raises(BadValue, match="UTF-8"):
        parse_manifest(b'{"datasets": {"\xff": "/x"}}', "/data")


def test_a_relative_path_cannot_lead_out_of_the_bucket_of_the_manifest() -> None:
    with pytest.raises(BadValue, match="leads out of the bucket"):
        only("../../other/wind", "gs://bucket/manifests")


@pytest.mark.parametrize(
    "dataset",
    [
        LINK.replace("bucket/wind/.signed_metadata_files/slug", ""),
        " " + LINK.replace("https://", "https:///"),
        "x" + LINK,
        {"path": LINK, "files": [1]},
        {"path": LINK, "files": LINK},
        {"path": "/x", "files": [LINK, {"path": [LINK]}]},
        [LINK],
        {"path": [LINK]},
        {"files": [{"paths": LINK}]},
    ],
)
def test_no_message_tells_what_authorises_a_link(dataset: Any) -> None:
    with pytest.raises(BadValue) as caught:
        only(dataset)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_repr_tells_what_authorises_a_link() -> None:
    manifest = parsed({"a": LINK, "b": {"path": LINK, "files": [LINK, {"path": LINK, "labels": ["a"]}]}})
    assert SECRET not in repr(manifest)


def test_a_dataset_may_have_the_name_of_a_view_which_it_hides() -> None:
    for name in {name.partition("/")[0] for name in NAMES} - {METADATA_NAME} | {MANIFEST_NAME}:
        check_dataset_name(name)
    with pytest.raises(BadValue, match="metadata alone"):
        check_dataset_name(METADATA_NAME)


def test_a_shared_dataset_is_told_from_a_manifest() -> None:
    assert describes_one_dataset(b'{"files": [], "path": "gs://b/p"}')
    assert not describes_one_dataset(b'{"datasets": {}, "path": "x"}')
    assert not describes_one_dataset(b"{}")
    assert not describes_one_dataset(b"[")


# --- places


def places(path: str, *files: str) -> list[tuple[str, str]]:
    return [(place, entry.path) for place, entry in place_files(path, map(FileEntry, files))]


def test_files_below_the_dataset_keep_their_places_and_others_stand_at_the_top() -> None:
    assert places("/d", "/x/a.csv", "/d/a.csv", "/d/sub/a.csv", "/y/a.csv", "gs://b/a.csv", "/d2/b") == [
        ("a~2.csv", "/x/a.csv"),
        ("a.csv", "/d/a.csv"),
        ("sub/a.csv", "/d/sub/a.csv"),
        ("a~3.csv", "/y/a.csv"),
        ("a~4.csv", "gs://b/a.csv"),
        ("b", "/d2/b"),
    ]


def test_a_number_that_is_taken_is_passed_over() -> None:
    assert [place for place, _ in places("/d", "/d/a~2.csv", "/x/a.csv", "/y/a.csv", "/z/a~2.csv")] == [
        "a~2.csv",
        "a.csv",
        "a~3.csv",
        "a~2~2.csv",
    ]


def test_a_file_from_elsewhere_does_not_hide_a_folder() -> None:
    assert [place for place, _ in places("/d", "/x/sub", "/d/sub/f", "/x/.bashrc", "/y/.bashrc", "/x/t.tar.gz")] == [
        "sub~2",
        "sub/f",
        ".bashrc",
        ".bashrc~2",
        "t.tar.gz",
    ]
    assert places("/d", "/x/t.tar.gz", "/y/t.tar.gz")[1][0] == "t.tar~2.gz"


def test_the_very_same_file_comes_once() -> None:
    link = "https://storage.googleapis.com/b/p/a%20b.csv"
    files = (
        "gs://b/p/a b.csv",
        link + "?X-Goog-Signature=1",
        link + "?X-Goog-Signature=2",
        "https://b.storage.googleapis.com/p/a%20b.csv",
    )
    assert places("gs://b/p", *files) == [("a b.csv", "gs://b/p/a b.csv")]
    assert [place for place, _ in places("/d", "/d/a", "/d//x/../a")] == ["a"]


@pytest.mark.parametrize(
    ("path", "file", "place"),
    [
        ("/d", "/d/a/b", "a/b"),
        ("/d", "/d", None),
        ("/d", "/dd/a", None),
        ("/", "/a", "a"),
        ("/d", "gs://d/a", None),
        ("gs://b", "gs://b/a", "a"),
        ("gs://b/p", "gs://b/p/a//b", "a//b"),
        ("gs://b/p", "gs://b/p/", None),
        ("gs://b/p", "gs://b/pq/a", None),
        ("gs://b/p", "https://storage.googleapis.com/b/p/a?x=/y", "a"),
        ("gs://b/p", "http://127.0.0.1:4443/b/p/a", "a"),
        ("gs://b/p", "https://b.storage.googleapis.com/p/a", "a"),
        (
            LINK,
            "https://storage.googleapis.com/bucket/wind/2024/j%C3%A4n%2Fa%2520b.csv?" + SECRET,
            "2024/jän/a%20b.csv",
        ),
        (LINK, "https://storage.googleapis.com/bucket/wind/%2E%2E/x", "../x"),
        (LINK, "https://storage.googleapis.com/bucket/wind/a%00", "a\0"),
        (LINK, "https://storage.googleapis.com/bucket/other/x", None),
        ("https://h/b/.signed_metadata_files/slug", "https://h/b/x", "x"),
        ("https://h/b/p/doc", "https://h/b/p/doc/x", "x"),
    ],
)
def test_a_place_is_what_follows_the_dataset(path: str, file: str, place: str | None) -> None:
    assert place_below(path, file) == place


def test_names_stay_as_short_as_names_must_be() -> None:
    long = "ü" * 125 + ".csv"
    assert [len(place.encode()) for place, _ in places("/d", f"/x/{long}", f"/y/{long}")] == [254, 254]


def test_many_files_of_one_name_are_placed_at_once() -> None:
    begin = time.monotonic()
    placed = places("/d", *(f"/x/{number}/data.csv" for number in range(50_000)))
    assert len({place for place, _ in placed}) == 50_000
    assert placed[-1][0] == "data~50000.csv"
    assert time.monotonic() - begin < 10


def test_the_gs_path_of_an_object_follows_from_its_url() -> None:
    assert cloud_path_of_url("https://storage.googleapis.com/b/p/a%20b?x") == "gs://b/p/a b"
    assert cloud_path_of_url("https://b.storage.googleapis.com/p/a") == "gs://b/p/a"
    assert cloud_path_of_url("http://127.0.0.1:4443/b/p/a") == "gs://b/p/a"


def test_a_path_in_a_document_is_relative_to_its_folder() -> None:
    assert absolute_path("a/../b", "/d") == "/d/b"
    assert absolute_path("a//b", "gs://b/p") == "gs://b/p/a/b"
    assert absolute_path("gs://b/p//a/", "/d") == "gs://b/p//a/"


# --- golden: the SDK's own


@pytest.mark.parametrize("golden", manifests(), ids=lambda golden: "+".join(golden["cases"]) or "empty")
def test_golden_manifests_are_read_and_written_as_the_sdk_writes_them(
    golden: Mapping[str, Any], tmp_path: Path
) -> None:
    text = json.dumps(golden["serialised"], sort_keys=True, indent=4).replace("{root}", str(tmp_path))
    manifest = parse_manifest(text.encode(), "/else/where")
    datasets: dict[str, str | dict[str, Any]] = {}
    hashes = []
    for name, entry in manifest.datasets.items():
        number = golden["cases"][name]
        assert entry.path == f"{tmp_path}/c{number}"
        datafiles = cases()[number].datafiles
        if entry.files is None:
            members = list(datafiles)
            datasets[name] = entry.path
        else:
            placed = place_files(entry.path, entry.files)
            members = [place for place, _ in placed]
            assert members == golden["files"]
            datasets[name] = dataset_dictionary(entry.path, [file.path for _, file in reversed(placed)], **entry.given)
        hashes.append((name, hash_of_set(datafiles[path]["hash_value"] for path in members)))
    assert manifest.datasets.keys() == golden["cases"].keys()
    assert hash_of_manifest(hashes) == golden["hash_value"]
    assert manifest.id is not None
    assert manifest_text(manifest.id, manifest.name, datasets) == text


def test_tags_and_labels_are_written_as_the_sdk_writes_them() -> None:
    dictionary = dataset_dictionary(
        "/d", ["/d/b", "/d/a"], id=ID, name=None, tags={"z": {1}, "a": "ü"}, labels={"b", "a"}
    )
    assert json.loads(manifest_text(ID, None, {"d": dictionary})) == {
        "id": ID,
        "name": None,
        "datasets": {
            "d": {
                "path": "/d",
                "files": ["/d/a", "/d/b"],
                "id": ID,
                "name": None,
                "tags": {"z": {"_type": "set", "items": [1]}, "a": "ü"},
                "labels": ["a", "b"],
            }
        },
    }
