"""The commands say of a source, without a mount, what the SDK says of it; in whatever zone they run."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from interop.world import Sdk, Sources

from support.mounting import run_octuefs

DATASETS = ["local written", "cloud written", "local nameless", "cloud case2"]
LISTED = ["local written", "cloud written"]
FILTERS = (
    ("labels__contains=a",),
    ("tags__cluster__gte=3", "labels__any_label_starts_with=a"),
    ("timestamp__gt=2021-01-01T00:00:00Z",),
)
ZONES = {"local": "America/New_York", "cloud": "Asia/Kolkata"}


def options_of(filters: tuple[str, ...]) -> list[str]:
    return [part for text in filters for part in ("--filter", text)]


@pytest.fixture(scope="module")
def said(sources: Sources) -> Mapping[tuple[str, ...], Any]:
    """By dataset and arguments: the output of the commands, all of them run once, two at a time."""
    runs = [
        *((name, "info", "--json") for name in DATASETS),
        *((name, "hash") for name in DATASETS),
        *((name, "hash", "--no-recursive") for name in LISTED),
        *((name, "ls", "--json") for name in LISTED),
        *((name, "ls", "--json", "--order-by", "-size_bytes") for name in LISTED),
        *((name, "ls", "--json", *options_of(those)) for name in LISTED for those in FILTERS),
    ]

    def run(arguments: tuple[str, ...]) -> Any:
        name, command, *options = arguments
        source = sources[name]
        zone = ZONES[name.split()[0]]
        result = run_octuefs(command, source.location, *options, environment=source.environment, zone=zone)
        assert result.returncode == 0, result.stderr
        assert result.stderr == "" or name == "local nameless"
        if command == "ls":
            return [json.loads(line) for line in result.stdout.splitlines()]
        return json.loads(result.stdout) if command == "info" else result.stdout

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(runs, pool.map(run, runs), strict=True))


@pytest.mark.parametrize("name", DATASETS)
def test_info_says_what_the_sdk_says(
    name: str, said: Mapping[tuple[str, ...], Any], said_of_sources: Mapping[str, Any]
) -> None:
    facts, expected = said[name, "info", "--json"], said_of_sources[name]
    files = expected["files"].values()
    assert facts["name"] == expected["name"]
    assert facts["id"] == (expected["id"] or facts["id"])
    assert facts["labels"] == expected["labels"]
    assert json.dumps(facts["tags"]) == expected["tags"]
    assert facts["files"] == len(files)
    assert facts["size_bytes"] == sum(file["size_bytes"] or 0 for file in files)
    assert facts["hash"] == expected["hash"]
    assert facts["metadata_hash"] == expected["metadata_hash"]
    labels = sorted({label for file in files for label in file["labels"]})
    assert facts["file_labels"] == {label: sum(label in file["labels"] for file in files) for label in labels}
    extensions = sorted({file["extension"] for file in files})
    assert facts["extensions"] == {it: sum(file["extension"] == it for file in files) for it in extensions}


@pytest.mark.parametrize("name", DATASETS)
def test_hash_says_what_the_sdk_says(
    name: str, said: Mapping[tuple[str, ...], Any], said_of_sources: Mapping[str, Any]
) -> None:
    assert said[name, "hash"] == said_of_sources[name]["hash"] + "\n"


@pytest.mark.parametrize("name", LISTED)
def test_hash_without_subfolders_is_the_sdk_s(
    name: str, said: Mapping[tuple[str, ...], Any], sources: Sources, sdk: Sdk
) -> None:
    (expected,) = sdk.describe([sources[name].location], recursive=False)
    assert said[name, "hash", "--no-recursive"] == expected["hash"] + "\n"


@pytest.mark.parametrize("name", LISTED)
def test_ls_says_of_each_file_what_the_sdk_says(
    name: str, said: Mapping[tuple[str, ...], Any], said_of_sources: Mapping[str, Any]
) -> None:
    expected = said_of_sources[name]["files"]
    listed = {facts["path"]: facts for facts in said[name, "ls", "--json"]}
    assert set(listed) == set(expected)
    for path, facts in listed.items():
        file = expected[path]
        assert facts["id"] == (file["id"] or facts["id"])
        assert {key: facts[key] for key in ("size_bytes", "timestamp", "labels")} == {
            key: file[key] for key in ("size_bytes", "timestamp", "labels")
        }
        assert json.dumps(facts["tags"]) == file["tags"]


@pytest.mark.parametrize("name", LISTED)
def test_ls_filters_and_orders_as_the_sdk_does(
    name: str, said: Mapping[tuple[str, ...], Any], sources: Sources, sdk: Sdk
) -> None:
    location = sources[name].location
    *subsets, order = sdk.ask(
        [
            *(("select", {"path": location, "steps": [{"any": [it]} for it in those]}) for those in FILTERS),
            ("order", {"path": location, "attribute": "size_bytes", "reverse": True, "expressions": []}),
        ]
    )
    for those, subset in zip(FILTERS, subsets, strict=True):
        listed = sorted(facts["path"] for facts in said[(name, "ls", "--json", *options_of(those))])
        assert listed == subset["files"]
        assert listed
    sizes = [str(facts["size_bytes"]) for facts in said[name, "ls", "--json", "--order-by", "-size_bytes"]]
    assert sizes == [value for _, value in order]
