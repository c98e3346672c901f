"""Manifests, read and written: what the SDK says of them, octuefs says, with a mount and without."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.world import Sdk, Sources

from octuefs.model.hashes import encode_crc32c, extend_crc32c, hash_of_manifest, hash_of_set
from octuefs.model.listed_files import place_files
from octuefs.model.manifest import parse_manifest
from support.gcs import Bucket
from support.golden import cases, manifests, materialise
from support.keys import service_account_key
from support.mounting import mounted, run_octuefs
from support.sdk import run_sdk

POOL = ["local written", "cloud written", "local case2", "cloud case8", "local nameless", "cloud case14"]
OUTSIDERS = {"jan.csv": b"another January", "data.csv": b"one", "no-metadata.bin": b""}
NUMBER = 12
ID = "11111111-2222-4333-8444-55555555555"


def text_in(mount: Path, name: str) -> str:
    return (mount / name).read_text()


def hash_in(mount: Path, path: str = "") -> str:
    return text_in(mount / path, ".hash").strip()


# --- manifests made at random


class World:
    """Manifests over the datasets of the interop tests, in files."""

    def __init__(self, folder: Path, sources: Sources, said: Mapping[str, Any]) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        """Of every file, by its full path."""
        self.below: dict[str, list[str]] = {}
        """The paths of each dataset's files, by its own."""
        for name in POOL:
            where = sources[name].location
            files = {f"{where}/{path}": file["hash"] for path, file in said[name]["files"].items()}
            self.hashes |= files
            self.below[where] = sorted(path for path in files if _can_be_listed(path))
        for name, content in OUTSIDERS.items():
            file = folder / "outside" / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            self.hashes[str(file)] = encode_crc32c(extend_crc32c(0, content))

    @property
    def paths(self) -> list[str]:
        return list(self.below)

    def manifest(self, number: int) -> dict[str, Any]:
        chance = random.Random(number)
        names = chance.sample(["turbines", "met-mast", "ünï", "it's", 'quote"d', "a b", "0", "Z"], chance.randint(1, 5))
        datasets = {name: self._dataset(chance) for name in names}
        return {"id": f"{ID}{number % 16:x}", "name": chance.choice([None, "all", ""]), "datasets": datasets}

    def _dataset(self, chance: random.Random) -> Any:
        path = chance.choice(self.paths)
        if chance.random() < 0.3:
            return path
        everything = [*self.below[path], *sorted(self.hashes.keys() - set(self.below[path]))]
        chosen = chance.sample(list(filter(_can_be_listed, everything)), max(0, chance.randint(-2, 6)))
        files: list[Any] = [self._file(chance, file) for file in chosen]
        record: dict[str, Any] = {"path": path, "files": files}
        if not path.startswith("gs://"):
            record |= chance.choice(
                [{}, {"id": f"{ID}f"}, {"name": "given", "labels": ["x", "y"], "tags": {"b": 1, "a": [None]}}]
            )
        if chance.random() < 0.3:
            record["recursive"] = False  # counts for a local folder without a list
        if files and chance.random() < 0.2:
            record["files"] = {"_type": "set", "items": [it for it in files if isinstance(it, str)] or [chosen[0]]}
        return record

    def _file(self, chance: random.Random, path: str) -> Any:
        if chance.random() < 0.7:
            return path
        given: dict[str, Any] = {
            "labels": ["given"],
            "timestamp": {"_type": "datetime", "value": "2020-01-01T00:00:00"},
        }
        if path.startswith("gs://"):
            # As the SDK writes it, and needs it: it forgets what it read of an object that a dictionary names.
            given["_cloud_metadata"] = {"crc32c": self.hashes[path]}
        return {"path": path, **given}


def _can_be_listed(path: str) -> bool:
    """Leave out odd names, and a link to nothing, which the SDK counts as an empty file wherever it is listed."""
    return path.isprintable() and path.isascii() and not path.endswith("/broken")


@pytest.fixture(scope="module")
def world(sources: Sources, said_of_sources: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("manifests"), sources, said_of_sources)


@pytest.fixture(scope="module")
def made(world: World, sdk: Sdk) -> list[tuple[Path, dict[str, Any], Any]]:
    """The file, the manifest, and what the SDK says of it."""
    written = []
    for number in range(NUMBER):
        file = world.folder / f"{number}.json"
        manifest = world.manifest(number)
        file.write_text(json.dumps(manifest))
        written.append((file, manifest))
    answers = sdk.ask([("describe_manifest", {"path": str(file)}) for file, _ in written])
    return [(file, manifest, answer) for (file, manifest), answer in zip(written, answers, strict=True)]


@pytest.mark.parametrize("number", range(NUMBER))
def test_a_manifest_is_read_as_the_sdk_reads_it(
    number: int, world: World, made: list[tuple[Path, dict[str, Any], Any]]
) -> None:
    file, _, said = made[number]
    manifest = parse_manifest(file.read_bytes(), str(world.folder))
    assert manifest.id == said["id"]
    assert manifest.name == said["name"]
    assert manifest.datasets.keys() == said["datasets"].keys()
    hashes = []
    for name, entry in manifest.datasets.items():
        expected = said["datasets"][name]
        assert entry.path == expected["path"]
        if entry.files is None:
            hashes.append((name, expected["hash"]))
            continue
        placed = dict(place_files(entry.path, entry.files))
        assert sorted(it.path for it in placed.values()) == expected["files"]
        for place, it in placed.items():
            if it.path.startswith(entry.path + "/"):
                assert place == it.path.removeprefix(entry.path + "/")
            else:
                assert "/" not in place
        value = hash_of_set(world.hashes[it.path] for it in placed.values())
        assert value == expected["hash"]
        hashes.append((name, value))
        if "id" in entry.given:
            assert entry.given["id"] == expected["id"]
        if "name" in entry.given:
            assert (expected["name"], expected["labels"]) == (entry.given["name"], sorted(entry.given["labels"]))
    assert hash_of_manifest(hashes) == said["hash"]


@pytest.mark.parametrize("number", range(0, NUMBER, 3))
def test_a_mounted_manifest_is_what_the_sdk_says(
    number: int, made: list[tuple[Path, dict[str, Any], Any]], bucket: Bucket, sdk: Sdk
) -> None:
    file, manifest, said = made[number]
    with mounted(file, environment=bucket.environment) as mount:
        assert sorted(it.name for it in mount.iterdir()) == sorted(said["datasets"])
        for name, expected in said["datasets"].items():
            assert hash_in(mount, name) == expected["hash"], text_in(mount / name, ".hashes")
            labels = mount / name / "by-label"
            assert sorted(it.name for it in labels.iterdir()) == expected["file_labels"]
        assert hash_in(mount) == said["hash"]
        assert text_in(mount, ".metadata_hash").strip() == said["metadata_hash"]
        copy = file.with_suffix(".shown.json")
        copy.write_text(text_in(mount, ".octue-manifest.json"))
    (again,) = sdk.ask([("describe_manifest", {"path": str(copy)})])
    assert (again["id"], again["name"]) == (said["id"], said["name"])
    for name, dataset in manifest["datasets"].items():
        # The SDK writes a whole folder as its path alone.
        if isinstance(dataset, str) or dataset["files"] or dataset.get("recursive", True):
            assert again["datasets"][name]["hash"] == said["datasets"][name]["hash"]


# --- golden


@pytest.mark.parametrize("golden", manifests(), ids=lambda golden: "+".join(golden["cases"]) or "empty")
def test_golden_manifests_are_mounted_as_the_sdk_says(golden: Mapping[str, Any], tmp_path: Path) -> None:
    text = json.dumps(golden["serialised"], sort_keys=True, indent=4).replace("{root}", str(tmp_path))
    for number in golden["cases"].values():
        materialise(cases()[number], tmp_path / f"c{number}")
    (tmp_path / "m.json").write_text(text)
    with mounted(tmp_path / "m.json") as mount:
        assert hash_in(mount) == golden["hash_value"]
        assert text_in(mount, ".octue-manifest.json") == text
        for name, number in golden["cases"].items():
            if "files" not in golden:
                assert hash_in(mount, name) == cases()[number].dataset["hash_value"]


# --- what `octuefs manifest` writes

WRITTEN: Mapping[str, str] = {
    "whole": "{local}",
    "cloud": "{cloud}",
    "mounted": "{mount}/local",
    "mounted cloud": "{mount}/cloud",
    "folder": "{mount}/local/2020",
    "folder in the cloud": "{mount}/cloud/2020/winter",
    "view": "{mount}/local/by-label/a",
    "view in the cloud": "{mount}/cloud/by-label/a",
    "view in a folder": "{mount}/local/2020/not/by-label/a",
    "folder in a view": "{mount}/cloud/by-ext/csv/2020",
    "views": "{mount}/local/by-label/a,b/by-tag/cluster/3,4/filter/size_bytes__lt=100",
    "hashes": "{mount}/local/order-by/-hash_value/by-ext/csv",
    "one of several": "{mount}/by-label/a/local",
    "listed": "{mount}/listed",
    "view of listed": "{mount}/listed/by-ext/csv",
}
"""By name: the source."""


@pytest.fixture(scope="module")
def written(
    sources: Sources, sdk: Sdk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Mapping[str, str], Path]]:
    """A mount of several datasets, the sources of WRITTEN, and the manifest that was written of them."""
    folder = tmp_path_factory.mktemp("written")
    local, cloud = sources["local written"], sources["cloud written"]
    listed = {
        "path": local.location,
        "files": [f"{local.location}/jan.csv", f"{cloud.location}/2020/late.csv", f"{cloud.location}/jan.csv"],
        "name": "listed",
        "labels": ["some"],
    }
    manifest = {"datasets": {"local": local.location, "cloud": cloud.location, "listed": listed}}
    (folder / "m.json").write_text(json.dumps(manifest))
    with mounted(folder / "m.json", environment=cloud.environment) as mount:
        where = {"local": local.location, "cloud": cloud.location, "mount": str(mount)}
        found = {name: source.format_map(where) for name, source in WRITTEN.items()}
        named = [f"{name}={source}" for name, source in found.items()]
        result = run_octuefs("manifest", *named, "-o", folder / "out.json", environment=cloud.environment)
        assert result.returncode == 0, result.stderr
        assert result.stdout == ""
        yield mount, found, folder / "out.json"


@pytest.fixture(scope="module")
def said_of_written(written: tuple[Path, Mapping[str, str], Path], sdk: Sdk) -> Any:
    (said,) = sdk.ask([("describe_manifest", {"path": str(written[2])})])
    return said


@pytest.mark.parametrize("name", WRITTEN)
def test_the_sdk_loads_a_written_dataset_with_the_hash_of_the_mount(
    name: str, written: tuple[Path, Mapping[str, str], Path], said_of_written: Any, said_of_sources: Mapping[str, Any]
) -> None:
    source = written[1][name]
    if source.startswith(str(written[0])):
        expected = hash_in(Path(source))
    else:
        expected = said_of_sources["cloud written" if source.startswith("gs://") else "local written"]["hash"]
    assert said_of_written["datasets"][name]["hash"] == expected


def test_whole_datasets_and_folders_are_written_as_places_and_parts_as_files(
    written: tuple[Path, Mapping[str, str], Path], sources: Sources
) -> None:
    datasets = json.loads(written[2].read_text())["datasets"]
    local, cloud = sources["local written"].location, sources["cloud written"].location
    for name, place in {
        "whole": local,
        "mounted": local,
        "cloud": cloud,
        "mounted cloud": cloud,
        "folder": f"{local}/2020",
        "folder in the cloud": f"{cloud}/2020/winter",
    }.items():
        assert datasets[name] == place
    for name in datasets.keys() - {"whole", "mounted", "cloud", "mounted cloud", "folder", "folder in the cloud"}:
        files = datasets[name]["files"]
        assert files
        assert files == sorted(files)
        assert all(file.startswith((local, cloud)) for file in files)
    assert datasets["view in a folder"]["path"] == f"{local}/2020"
    assert datasets["view"]["name"] == "Årø wind farm / 1"
    assert datasets["view"]["labels"] == ["north", "site"]
    assert datasets["listed"]["name"] == "listed"


def test_a_written_manifest_is_mounted_with_the_hash_that_the_sdk_gives(
    written: tuple[Path, Mapping[str, str], Path], said_of_written: Any, bucket: Bucket
) -> None:
    with mounted(written[2], environment=bucket.environment) as mount:
        assert hash_in(mount) == said_of_written["hash"]
        for name, said in said_of_written["datasets"].items():
            assert hash_in(mount, name) == said["hash"]


def test_a_manifest_is_written_as_the_sdk_serialises_it(
    written: tuple[Path, Mapping[str, str], Path], said_of_written: Any
) -> None:
    text, again = written[2].read_text(), json.loads(said_of_written["serialised"])
    assert text == json.dumps(json.loads(text), indent=4, sort_keys=True)
    ours = json.loads(text)
    for name, dataset in again["datasets"].items():
        if isinstance(dataset, dict) and dataset["path"].startswith("gs://"):
            for field in ("id", "name", "labels", "tags"):  # which the SDK does not read of a cloud dataset
                ours["datasets"][name].pop(field)
                dataset.pop(field)
    assert ours == again


def test_views_of_mounts_of_one_dataset_are_written_too(sources: Sources, sdk: Sdk, tmp_path: Path) -> None:
    cloud = sources["cloud written"]
    named = {"whole": "", "some": "not/by-ext/csv", "large": "filter/size_bytes__gt=0/not/by-label/a"}
    with mounted(cloud.location, environment=cloud.environment) as mount:
        hashes = {name: hash_in(mount, view) for name, view in named.items()}
        result = run_octuefs(
            "manifest", *(f"{name}={mount / named[name]}" for name in hashes), environment=cloud.environment
        )
    assert result.returncode == 0, result.stderr
    (tmp_path / "m.json").write_text(result.stdout)
    (said,) = sdk.ask([("describe_manifest", {"path": str(tmp_path / "m.json")})])
    assert {name: dataset["hash"] for name, dataset in said["datasets"].items()} == hashes
    assert said["hash"] == hash_of_manifest(hashes.items())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("local/filter/size_bytes__gt=1000000000", "x: there are no files in it"),
        ("", "several datasets are mounted here; name each of them"),
        ("by-label/a", "several datasets are mounted here; name each of them"),
        ("local/jan.csv", "it is no dataset"),
        ("local/by-label", "it is no dataset"),
        ("local/by-label/nothing", "nothing here has this value"),
    ],
)
def test_what_is_no_dataset_or_empty_is_not_written(
    source: str, words: str, written: tuple[Path, Mapping[str, str], Path], tmp_path: Path
) -> None:
    result = run_octuefs("manifest", f"x={written[0] / source}", "-o", tmp_path / "m.json")
    assert result.returncode == 1
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- manifests of signed URLs, as the SDK makes them

SIGN = """
import json, sys
from google.oauth2 import service_account
from octue.resources import Manifest

# The server wants no tokens, and nobody gives any: the SDK then signs with the key itself.
service_account.Credentials.before_request = lambda *_, **__: None

datasets, file = json.load(open(sys.argv[1]))
manifest = Manifest(datasets=datasets)
manifest.use_signed_urls_for_datasets()
manifest.to_file(file)
print(json.dumps(Manifest.from_file(file).hash_value))
"""


def test_a_manifest_that_the_sdk_signed_is_mounted_and_written_again(
    sources: Sources, sdk: Sdk, tmp_path: Path
) -> None:
    local, cloud = sources["local case2"], sources["cloud written"]
    nobody = f"{cloud.environment['STORAGE_EMULATOR_HOST']}/no-tokens-here"
    (tmp_path / "key.json").write_text(json.dumps({**service_account_key(), "token_uri": nobody}))
    (tmp_path / "datasets.json").write_text(
        json.dumps([{"mast": local.location, "wind": cloud.location}, str(tmp_path / "signed.json")])
    )
    signing = {**cloud.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    said = run_sdk(SIGN, environment=signing, arguments=[tmp_path / "datasets.json"])
    assert "Signature" in (tmp_path / "signed.json").read_text()
    with mounted(tmp_path / "signed.json", environment=cloud.environment) as mount:
        assert hash_in(mount) == said
        named = {"wind": "wind", "a": "wind/by-label/a", "winter": "wind/2020/winter", "mast": "mast"}
        hashes = {name: hash_in(mount, path) for name, path in named.items()}
        shown = "".join(text_in(mount / ".octuefs", name) for name in ("status", "errors"))
        shown += text_in(mount, ".octue-manifest.json")
        result = run_octuefs("manifest", *(f"{name}={mount / path}" for name, path in named.items()))
    assert result.returncode == 0, result.stderr
    assert "Signature" not in shown + result.stdout
    (tmp_path / "m.json").write_text(result.stdout)
    (again,) = sdk.ask([("describe_manifest", {"path": str(tmp_path / "m.json")})])
    assert {name: dataset["hash"] for name, dataset in again["datasets"].items()} == hashes
