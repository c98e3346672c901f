"""Mounts of several datasets: manifests and named sources, local, cloud and shared ones mixed."""

import base64
import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from support.gcs import Bucket
from support.mounting import mounted, mounts_below, run_folder, run_octuefs

SECRET = "c0ffee5ec4e7"
"""Stands in the query of each signed URL, and must stand nowhere else."""
MANIFEST_ID = "11111111-2222-4333-8444-555555555555"
LOCAL_ID = "0e4eb4a6-6a5a-4b0e-8d3a-6b6bf0d1d5a7"


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def set_hash(contents: Iterable[bytes]) -> str:
    return crc32c(str(sorted(map(crc32c, contents))).encode())


def manifest_hash(hashes: dict[str, str]) -> str:
    return crc32c(str(sorted(hashes.items())).encode())


LOCAL = {"a.csv": b"1500\n", "2024/b.csv": b"1600\n"}
CLOUD = {"c.csv": b"1500 cloud\n", "x/d.dat": b"\0\1"}
SHARED = {"e.csv": b"1500 shared\n", "deep/er/f.csv": b"f\n"}


@dataclass
class World:
    """A local, a cloud and a shared dataset, and a manifest of all three."""

    folder: Path
    bucket: Bucket
    link: str
    manifest: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.bucket.environment


def write_local(folder: Path, files: dict[str, bytes] = LOCAL) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / ".octue").write_text(
        json.dumps(
            {
                "datafiles": {"a.csv": {"labels": ["wind"], "tags": {"height": 80}}},
                "dataset": {"id": LOCAL_ID, "name": "the mast", "labels": ["met"], "tags": {}},
            }
        )
    )
    return folder


def signed(bucket: Bucket, name: str, **query: str) -> str:
    """The URL of an object as the SDK signs it; the server here looks at no signature."""
    more = "".join(f"&{key}={value}" for key, value in query.items())
    return f"{bucket.server.endpoint}/{bucket.name}/{name}?X-Goog-Signature={SECRET}{more}"


def share(bucket: Bucket, prefix: str, files: dict[str, bytes]) -> str:
    """Store a dataset and what shares it; return the link."""
    for path, data in files.items():
        bucket.put(f"{prefix}/{path}", data, {"octue__labels": '{"_type": "set", "items": ["wind"]}'})
    document = {
        "id": "2ed1ef0c-b1a2-4f83-a5d3-b6b8e3f5e1aa",
        "name": "given away",
        "tags": {},
        "labels": [],
        "path": f"gs://{bucket.name}/{prefix}",
        "files": [signed(bucket, f"{prefix}/{path}") for path in files],
    }
    slug = f"{prefix}/.signed_metadata_files/some-slug"
    bucket.put(slug, json.dumps(document).encode())
    return signed(bucket, slug)


@pytest.fixture
def cloud(bucket: Bucket) -> Iterator[Bucket]:
    """A bucket that is emptied in the end."""
    yield bucket
    for item in bucket.list():
        bucket.delete(item["name"])


@pytest.fixture
def world(tmp_path: Path, cloud: Bucket) -> World:
    folder = write_local(tmp_path / "mast")
    for path, data in CLOUD.items():
        cloud.put(f"turbines/{path}", data, {"octue__labels": '["wind"]'} if path == "c.csv" else None)
    link = share(cloud, "lent", SHARED)
    datasets = {"mast": str(folder), "turbines": f"gs://{cloud.name}/turbines", "lent": link}
    manifest = write_manifest(tmp_path / "manifest.json", datasets)
    return World(folder, cloud, link, manifest)


def write_manifest(path: Path, datasets: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({"id": MANIFEST_ID, "name": "m", "datasets": datasets, **more}))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder but metadata, as `find` sees them."""
    found = subprocess.run(
        ["find", folder, "-type", "f", "-printf", "%P\n"], capture_output=True, text=True, check=True
    )
    return {
        path: (folder / path).read_bytes() for path in found.stdout.splitlines() if os.path.basename(path) != ".octue"
    }


def expected(**datasets: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{path}": data for name, files in datasets.items() for path, data in files.items()}


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.octue.{name}").decode()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


# --- what is there


def test_a_manifest_shows_each_dataset_once_with_its_files(world: World) -> None:
    with mounted(world.manifest, environment=world.environment) as point:
        assert sorted(os.listdir(point)) == ["lent", "mast", "turbines"]
        assert tree(point) == expected(mast=LOCAL, turbines=CLOUD, lent=SHARED)


def test_programs_work_over_all_of_them(world: World, tmp_path: Path) -> None:
    everything = expected(mast=LOCAL, turbines=CLOUD, lent=SHARED)
    with mounted(world.manifest, environment=world.environment) as point:
        subprocess.run(["cp", "-r", point, tmp_path / "copied"], check=True)
        subprocess.run(["rsync", "-a", f"{point}/", tmp_path / "synced"], check=True)
        grep = subprocess.run(["grep", "-rl", "1500", "."], cwd=point, capture_output=True, text=True, check=True)
    assert tree(tmp_path / "copied") == tree(tmp_path / "synced") == everything
    assert {path[2:] for path in grep.stdout.split()} == {path for path, data in everything.items() if b"1500" in data}
    assert json.loads((tmp_path / "copied/mast/.octue").read_text())["dataset"]["name"] == "the mast"
    lent = json.loads((tmp_path / "copied/lent/.octue").read_text())
    assert lent["dataset"]["name"] == "given away"
    assert "e.csv" in lent["datafiles"]


def test_hashes_are_those_of_the_sdk(world: World) -> None:
    hashes = {name: set_hash(it.values()) for name, it in (("mast", LOCAL), ("turbines", CLOUD), ("lent", SHARED))}
    with mounted(world.manifest, environment=world.environment) as point:
        assert {name: (point / name / ".hash").read_text().strip() for name in hashes} == hashes
        assert (point / ".hash").read_text().strip() == manifest_hash(hashes) == attribute(point, "hash")
        lines = (point / ".hashes").read_text().splitlines()
    assert lines == [
        f"{crc32c(data)}  {path}" for path, data in sorted(expected(mast=LOCAL, turbines=CLOUD, lent=SHARED).items())
    ]


def test_the_root_tells_of_the_manifest(world: World) -> None:
    with mounted(world.manifest, environment=world.environment) as point:
        assert attribute(point, "id") == MANIFEST_ID
        assert attribute(point, "name") == "m"
        assert attribute(point, "count") == "6"
        assert attribute(point, "size_bytes") == str(sum(map(len, (LOCAL | CLOUD | SHARED).values())))
        assert attribute(point / "mast", "name") == "the mast"
        assert attribute(point / "turbines", "name") == "turbines"
        assert ".octue-manifest.json" not in os.listdir(point)
        text = (point / ".octue-manifest.json").read_text()
    assert text == json.dumps(
        {
            "id": MANIFEST_ID,
            "name": "m",
            "datasets": {
                "lent": f"gs://{world.bucket.name}/lent",
                "mast": str(world.folder),
                "turbines": f"gs://{world.bucket.name}/turbines",
            },
        },
        sort_keys=True,
        indent=4,
    )


def test_views_over_all_datasets(world: World) -> None:
    with mounted(world.manifest, environment=world.environment) as point:
        assert os.listdir(point / "by-label") == ["wind"]
        wind = expected(mast={"a.csv": LOCAL["a.csv"]}, turbines={"c.csv": CLOUD["c.csv"]}, lent=SHARED)
        assert tree(point / "by-label/wind") == wind
        assert (point / "by-label/wind/.hash").read_text().strip() == set_hash(wind.values())
        assert tree(point / "by-ext/dat") == expected(turbines={"x/d.dat": CLOUD["x/d.dat"]})
        assert tree(point / "not/by-label/wind") == expected(
            mast={"2024/b.csv": LOCAL["2024/b.csv"]}, turbines={"x/d.dat": CLOUD["x/d.dat"]}
        )
        assert tree(point / "by-label/wind/mast/by-ext/csv") == {"a.csv": LOCAL["a.csv"]}
        assert os.listdir(point / "by-label/wind/by-tag/height/80") == ["mast"]
        assert sorted(os.listdir(point / "order-by/-size_bytes"))[0] == "000001_e.csv"
        with pytest.raises(FileNotFoundError):
            os.listdir(point / "by-label/nobody")


# --- writing


def test_each_dataset_is_written_as_alone(world: World) -> None:
    with mounted(world.manifest, environment=world.environment) as point:
        (point / "mast/new.csv").write_bytes(b"new\n")
        (point / "turbines/new.csv").write_bytes(b"new\n")
        os.setxattr(point / "turbines/new.csv", "user.octue.labels", b"fresh")
        os.setxattr(point / "mast/new.csv", "user.octue.labels", b"fresh")
        assert tree(point / "by-label/fresh") == expected(mast={"new.csv": b"new\n"}, turbines={"new.csv": b"new\n"})
        for change in (
            lambda: (point / "lent/new.csv").write_bytes(b"no"),
            lambda: (point / "lent/e.csv").write_bytes(b"no"),
            lambda: (point / "lent/e.csv").unlink(),
            lambda: os.setxattr(point / "lent/e.csv", "user.octue.labels", b"mine"),
            lambda: (point / "lent/folder").mkdir(),
        ):
            with pytest.raises(OSError, match="Read-only") as refused:
                change()
            assert refused.value.errno == errno.EROFS
        subprocess.run(["mv", point / "mast/2024/b.csv", point / "turbines/moved.csv"], check=True)
        with pytest.raises(PermissionError):
            (point / "another").mkdir()
    assert (world.folder / "new.csv").read_bytes() == b"new\n"
    assert world.bucket.get("turbines/new.csv") == b"new\n"
    assert world.bucket.get("turbines/moved.csv") == LOCAL["2024/b.csv"]
    assert not (world.folder / "2024/b.csv").exists()


def test_two_names_of_one_dataset_see_what_is_written_through_either(world: World) -> None:
    source = f"gs://{world.bucket.name}/turbines"
    datasets = {"a": source, "b": f"{source}/", "whole": f"gs://{world.bucket.name}", "inner": f"{source}/x"}
    manifest = write_manifest(world.manifest.parent / "twice.json", datasets)
    with mounted(manifest, environment=world.environment) as point:
        assert tree(point / "a") == tree(point / "b") == CLOUD
        for number, (writer, reader) in enumerate((("a", "b"), ("b", "a"), ("a", "b"))):
            (point / writer / "c.csv").write_bytes(b"%d" % number)
            assert (point / reader / "c.csv").read_bytes() == b"%d" % number
        (point / "inner/new.csv").write_bytes(b"new")
        assert (point / "a/x/new.csv").read_bytes() == (point / "whole/turbines/x/new.csv").read_bytes() == b"new"
        (point / "whole/turbines/x/new.csv").unlink()
        assert not (point / "b/x/new.csv").exists()
        assert os.listdir(point / "inner") == ["d.dat"]


# --- the ways to give datasets


def test_several_sources_without_a_manifest(world: World) -> None:
    cloud = f"turbines=gs://{world.bucket.name}/turbines"
    with mounted(f"mast={world.folder}", cloud, environment=world.environment) as point:
        assert tree(point) == expected(mast=LOCAL, turbines=CLOUD)
        content = json.loads((point / ".octue-manifest.json").read_text())
        assert content["name"] is None
        assert content["datasets"]["mast"] == str(world.folder)


def test_a_single_source_may_have_a_name(world: World) -> None:
    with mounted(f"mast={world.folder}") as point:
        assert tree(point) == expected(mast=LOCAL)


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path: Path) -> None:
    write_local(tmp_path / "height=80")
    with mounted(tmp_path / "height=80") as point:
        assert tree(point) == LOCAL


def test_a_manifest_in_a_bucket_and_behind_a_url(world: World) -> None:
    relative = {"datasets": {"turbines": "../turbines", "lent": world.link}}
    world.bucket.put("manifests/all.json", json.dumps(relative).encode())
    for source in (f"gs://{world.bucket.name}/manifests/all.json", signed(world.bucket, "manifests/all.json")):
        with mounted(source, environment=world.environment) as point:
            assert tree(point) == expected(turbines=CLOUD, lent=SHARED)


def test_an_object_is_a_manifest_whatever_its_name_where_nothing_else_is_there(world: World, tmp_path: Path) -> None:
    world.bucket.put("manifests/all", json.dumps({"datasets": {"turbines": "../turbines"}}).encode())
    source = f"gs://{world.bucket.name}/manifests/all"
    with mounted(source, environment=world.environment) as point:
        assert tree(point) == expected(turbines=CLOUD)
    hashes = manifest_hash({"turbines": set_hash(CLOUD.values())})
    assert run_octuefs("hash", source, environment=world.environment).stdout.strip() == hashes
    for source, words in (("nope.json", "no such manifest"), ("turbines/c.csv", "not JSON")):
        result = run_octuefs("mount", f"{world.bucket.url}/{source}", tmp_path / "new", environment=world.environment)
        assert result.returncode == 1
        (tmp_path / "new").mkdir(exist_ok=True)
        result = run_octuefs("mount", f"{world.bucket.url}/{source}", tmp_path / "new", environment=world.environment)
        assert result.returncode == 1
        assert words in result.stderr
        result = run_octuefs("info", f"{world.bucket.url}/{source}", environment=world.environment)
        assert words in result.stderr


def test_paths_are_relative_to_the_manifest(world: World) -> None:
    manifest = write_manifest(
        world.manifest.parent / "relative.json", {"here": "mast", "up": f"../{world.folder.parent.name}/mast"}
    )
    with mounted(manifest) as point:
        assert tree(point) == expected(here=LOCAL, up=LOCAL)


def test_a_shared_dataset_alone(world: World) -> None:
    with mounted(world.link, environment=world.environment) as point:
        assert tree(point) == SHARED
        assert (point / ".hash").read_text().strip() == set_hash(SHARED.values())
        assert attribute(point, "name") == "given away"
        assert attribute(point / "e.csv", "cloud_path") == f"gs://{world.bucket.name}/lent/e.csv"
        assert attribute(point / "e.csv", "exists_in_cloud") == "true"
        assert tree(point / "by-label/wind") == SHARED
        with pytest.raises(OSError, match="Read-only") as refused:
            (point / "new").write_bytes(b"")
        assert refused.value.errno == errno.EROFS


def test_a_dataset_of_some_files_of_its_folder_can_be_edited(world: World) -> None:
    entry = {
        "path": str(world.folder),
        "files": [str(world.folder / "2024/b.csv")],
        "id": "7f9b0b0e-7f6c-4b0a-9d65-2f9ec2c0a0aa",
        "name": "some",
        "tags": {"chosen": True},
        "labels": ["few"],
    }
    cloud = {
        "path": f"gs://{world.bucket.name}/turbines",
        "files": [f"gs://{world.bucket.name}/turbines/c.csv"],
        "name": "no",
    }
    manifest = write_manifest(world.manifest.parent / "some.json", {"some": entry, "cloud": cloud})
    with mounted(manifest, environment=world.environment) as point:
        assert tree(point) == expected(some={"2024/b.csv": LOCAL["2024/b.csv"]}, cloud={"c.csv": CLOUD["c.csv"]})
        assert attribute(point / "some", "name") == "some"
        assert attribute(point / "some", "labels") == "few"
        assert attribute(point / "some", "id") == entry["id"]
        assert attribute(point / "cloud", "name") == "turbines"
        content = json.loads((point / ".octue-manifest.json").read_text())["datasets"]
        assert content["some"] == entry
        assert json.loads((point / "some/.octue").read_text())["dataset"]["name"] == "some"
        assert os.listdir(point / "some/2024") == ["b.csv"]
        for change in (
            lambda: (point / "some/new.csv").write_bytes(b""),
            lambda: (point / "cloud/new.csv").write_bytes(b""),
            lambda: os.setxattr(point / "some", "user.octue.labels", b"other"),
        ):
            with pytest.raises(PermissionError):
                change()
        (point / "some/2024/b.csv").write_bytes(b"edited\n")
        os.setxattr(point / "some/2024/b.csv", "user.octue.labels", b"edited")
        assert json.loads((point / "some/2024/.octue").read_text())["datafiles"]["b.csv"]["labels"]["items"] == [
            "edited"
        ]
        os.setxattr(point / "cloud/c.csv", "user.octue.labels", b"edited")
    assert (world.folder / "2024/b.csv").read_bytes() == b"edited\n"
    assert "edited" in (world.folder / "2024/.octue").read_text()
    assert json.loads((world.folder / ".octue").read_text())["dataset"]["name"] == "the mast"
    assert "edited" in world.bucket.stat("turbines/c.csv")["metadata"]["octue__labels"]


def test_files_from_anywhere_stand_at_the_top(world: World, tmp_path: Path) -> None:
    other = write_local(tmp_path / "other", {"a.csv": b"other\n"})
    entry = {
        "path": str(world.folder),
        "files": [
            {"path": str(world.folder / "2024/b.csv"), "labels": ["given"], "tags": {"n": 1}, "timestamp": 0},
            str(world.folder / "a.csv"),
            str(other / "a.csv"),
            f"gs://{world.bucket.name}/turbines/x/d.dat",
            signed(world.bucket, "lent/e.csv"),
        ],
    }
    manifest = write_manifest(tmp_path / "anywhere.json", {"all": entry})
    with mounted(manifest, environment=world.environment) as point:
        shown = {
            "2024/b.csv": LOCAL["2024/b.csv"],
            "a.csv": LOCAL["a.csv"],
            "a~2.csv": b"other\n",
            "d.dat": CLOUD["x/d.dat"],
            "e.csv": SHARED["e.csv"],
        }
        assert tree(point / "all") == shown
        assert (point / "all/.hash").read_text().strip() == set_hash(shown.values())
        assert attribute(point / "all/2024/b.csv", "labels") == "given"
        assert attribute(point / "all/a.csv", "labels") == "wind"
        assert attribute(point / "all/a~2.csv", "local_path") == str(other / "a.csv")
        assert attribute(point / "all/d.dat", "cloud_path") == f"gs://{world.bucket.name}/turbines/x/d.dat"
        assert sorted(os.listdir(point / "all/by-label")) == ["given", "wind"]
        record = json.loads((point / "all/2024/.octue").read_text())["datafiles"]["b.csv"]
        assert record["tags"] == {"n": 1}
        with pytest.raises(OSError, match="Read-only") as refused:
            (point / "all/a.csv").write_bytes(b"no")
        assert refused.value.errno == errno.EROFS


@pytest.mark.parametrize("within_manifest", [False, True])
def test_a_record_may_name_files_outside_of_its_folder(tmp_path: Path, within_manifest: bool) -> None:
    other = write_local(tmp_path / "other", {"far.csv": b"far\n"})
    folder = write_local(tmp_path / "mast")
    record = json.loads((folder / ".octue").read_text())
    record["dataset"]["files"] = [str(folder / "a.csv"), str(other / "far.csv")]
    (folder / ".octue").write_text(json.dumps(record))
    shown = {"a.csv": LOCAL["a.csv"], "far.csv": b"far\n"}
    source = write_manifest(tmp_path / "m.json", {"d": str(folder)}) if within_manifest else folder
    with mounted(source) as point:
        place = point / "d" if within_manifest else point
        assert tree(place) == shown
        assert attribute(place, "name") == "the mast"
        assert attribute(place / "a.csv", "labels") == "wind"
        assert (place / ".hash").read_text().strip() == set_hash(shown.values())


# --- what cannot be reached


def test_one_that_cannot_be_reached_does_not_stop_the_others(world: World, tmp_path: Path) -> None:
    datasets = {"mast": str(world.folder), "gone": str(tmp_path / "nowhere"), "lost": "gs://octuefs-no-such-bucket/x"}
    manifest = write_manifest(tmp_path / "m.json", datasets)
    result = run_octuefs("mount", "--strict", manifest, tmp_path, environment=world.environment)
    assert result.returncode == 1
    point = tmp_path / "strict"
    point.mkdir()
    result = run_octuefs("mount", "--strict", manifest, point, environment=world.environment)
    assert result.returncode == 1
    assert "gone cannot be reached" in result.stderr
    assert not mounts_below(point)
    with mounted(manifest, environment=world.environment) as point:
        assert sorted(os.listdir(point)) == ["gone", "lost", "mast"]
        assert (point / "gone").is_dir()
        for name in ("gone", "lost"):
            with pytest.raises(FileNotFoundError):
                os.listdir(point / name)
        assert tree(point / "mast") == LOCAL
        with pytest.raises(OSError, match="Input/output error"):
            (point / ".hash").read_text()
        assert os.listdir(point / "by-label/wind") == ["mast"]
        errors = (point / ".octuefs/errors").read_text()
        assert f"gone: the dataset cannot be reached: {tmp_path / 'nowhere'}" in errors
        assert "octuefs-no-such-bucket" in errors
        status = json.loads((point / ".octuefs/status").read_text())
        assert status["counts"]["unreachable"] == 2
        assert "nowhere" in status["datasets"]["gone"]["unreachable"]


def test_a_dataset_that_goes_away_and_comes_back(world: World, tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    late = tmp_path / "late" / "dataset"
    manifest = write_manifest(tmp_path / "m.json", {"mast": str(world.folder), "late": str(late)})

    def is_there(name: str) -> bool:
        try:
            return bool(os.listdir(point / name))
        except (FileNotFoundError, NotADirectoryError):
            return False

    with mounted(manifest) as point:
        assert not is_there("late")
        write_local(late)
        wait_for(lambda: is_there("late"))
        assert tree(point) == expected(mast=LOCAL, late=LOCAL)
        (point / "late/written.csv").write_bytes(b"w")
        assert (late / "written.csv").read_bytes() == b"w"
        late.rename(tmp_path / "away")
        wait_for(lambda: not is_there("late"))
        assert tree(point / "mast") == LOCAL
        (tmp_path / "away").rename(late)
        wait_for(lambda: is_there("late"))
        assert (point / "late/written.csv").read_bytes() == b"w"
        shutil.rmtree(late)
        wait_for(lambda: not is_there("late"))
        late.write_bytes(b"a file in its place")
        time.sleep(0.6)
        with pytest.raises(NotADirectoryError):
            os.listdir(point / "late")
        late.unlink()
        write_local(late, {"again.csv": b"again\n"})
        wait_for(lambda: is_there("late") and tree(point / "late") == {"again.csv": b"again\n"})
        assert run_octuefs("refresh", point).returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ("{}", 'no "datasets"'),
        ('{"datasets": []}', 'no "datasets"'),
        ('{"datasets": {"a/b": "/tmp"}}', "a/b"),
        ('{"datasets": {"..": "/tmp"}}', r"\.\."),
        ('{"datasets": {"": "/tmp"}}', "empty"),
        ('{"datasets": {"a": "/tmp", "a": "/var"}}', "two sources of one name"),
        ('{"datasets": {"a": 5}}', "dataset"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.json").write_text(text)
    (tmp_path / "point").mkdir()
    result = run_octuefs("mount", tmp_path / "m.json", tmp_path / "point")
    assert result.returncode == 1
    assert re.search(words, result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1
    assert not mounts_below(tmp_path / "point")


@pytest.mark.parametrize(
    "sources", [("a=/tmp", "a=/var"), ("a/b=/tmp", "c=/var"), ("..=/tmp", "c=/var"), ("=/tmp", "c=/var")]
)
def test_named_sources_that_cannot_be_are_refused(tmp_path: Path, sources: tuple[str, ...]) -> None:
    result = run_octuefs("mount", *sources, tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1


# --- looking


def test_info_hash_and_ls_of_a_manifest(world: World) -> None:
    hashes = {name: set_hash(it.values()) for name, it in (("mast", LOCAL), ("turbines", CLOUD), ("lent", SHARED))}
    assert run_octuefs("hash", world.manifest, environment=world.environment).stdout.strip() == manifest_hash(hashes)
    facts = json.loads(run_octuefs("info", "--json", world.manifest, environment=world.environment).stdout)
    assert {name: it["hash"] for name, it in facts["datasets"].items()} == hashes
    assert "the mast" in run_octuefs("info", "--json", world.manifest, environment=world.environment).stdout
    listed = run_octuefs("ls", world.manifest, environment=world.environment).stdout
    assert {line.split()[1] for line in listed.splitlines()} == set(expected(mast=LOCAL, turbines=CLOUD, lent=SHARED))
    assert run_octuefs("hash", world.link, environment=world.environment).stdout.strip() == hashes["lent"]


# --- secrets


def test_no_word_of_a_link_is_told_anywhere(world: World, tmp_path: Path) -> None:
    gone = signed(world.bucket, "lent/.signed_metadata_files/gone-slug")
    expired = signed(
        world.bucket,
        "lent/.signed_metadata_files/some-slug",
        **{"X-Goog-Date": "20200101T000000Z", "X-Goog-Expires": "600"},
    )
    missing = json.loads(world.bucket.get("lent/.signed_metadata_files/some-slug"))
    missing["files"].append(signed(world.bucket, "lent/not-there.csv"))
    world.bucket.put("lent/.signed_metadata_files/missing", json.dumps(missing).encode())
    datasets = {
        "lent": world.link,
        "gone": gone,
        "expired": expired,
        "missing": signed(world.bucket, "lent/.signed_metadata_files/missing"),
        "listed": {"path": str(world.folder), "files": [signed(world.bucket, "lent/e.csv")]},
    }
    manifest = write_manifest(tmp_path / "links.json", datasets)
    told = []
    with mounted(manifest, "--log-level", "debug", environment=world.environment) as point:
        with pytest.raises(PermissionError):
            os.listdir(point / "expired")
        assert "the link expired on 2020-01-01" in (point / ".octuefs/errors").read_text()
        for folder, _, names in os.walk(point):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                info = run_octuefs("info", path) if folder.endswith("lent") else None
                told += [info.stdout] if info else []
                with open(path, "rb") if os.path.isfile(path) else open(os.devnull, "rb") as file:
                    told.append(file.read().decode("latin-1"))
        for name in ("status", "errors", "views"):
            told.append((point / ".octuefs" / name).read_text())
        told.append((point / ".octue-manifest.json").read_text())
        told.append((point / "lent/.octue").read_text())
        told.append(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
        (point / "lent/e.csv").read_bytes()
        world.bucket.delete("lent/e.csv")
        result = run_octuefs("refresh", point)
        told += [result.stdout, result.stderr]
        result = run_octuefs("mount", world.link, point, environment=world.environment)
        told += [result.stdout, result.stderr]
    for arguments in (
        ("info", world.link),
        ("ls", gone),
        ("hash", expired),
        ("mount", expired, tmp_path),
        ("mount", gone, tmp_path),
    ):
        result = run_octuefs(*arguments, environment=world.environment)
        told += [result.stdout, result.stderr]
    assert not [text for text in told if SECRET in text]
    for file in (run_folder() / "user").rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


def test_a_link_in_the_wrong_place_is_not_told_either(tmp_path: Path) -> None:
    link = f"http://127.0.0.1:1/bucket/path/.signed_metadata_files/slug?X-Goog-Signature={SECRET}"
    for arguments in (
        ("hash", link, link),
        (link,),
        ("verify", tmp_path, link),
        ("mount", tmp_path, link),
        ("mount", f"a/b={link}", tmp_path),
        ("mount", "--log-level", link, tmp_path, tmp_path),
        ("info", f"./{link}"),
        ("unmount", link),
        ("download", "gs://bucket/path", link),
        ("ls", tmp_path, "--filter", link),
        ("manifest", link),
    ):
        result = run_octuefs(*arguments)
        assert result.returncode in (1, 2)
        assert result.stderr
        assert SECRET not in result.stdout + result.stderr.replace("\n", ""), arguments


# --- many


def test_two_hundred_datasets(tmp_path: Path) -> None:
    datasets = {}
    for number in range(200):
        folder = tmp_path / "many" / f"d{number}"
        folder.mkdir(parents=True)
        (folder / "file.csv").write_bytes(f"{number}\n".encode())
        datasets[f"d{number}"] = str(folder)
    manifest = write_manifest(tmp_path / "m.json", datasets)
    with mounted(manifest, timeout=120) as point:
        assert len(os.listdir(point)) == 200
        assert attribute(point, "count") == "200"
        assert tree(point) == {f"d{number}/file.csv": f"{number}\n".encode() for number in range(200)}
        (point / "d7/new.csv").write_bytes(b"new")
        (tmp_path / "many/d199/underneath.csv").write_bytes(b"u")
        wait_for(lambda: (point / "d199/underneath.csv").exists())
    assert (tmp_path / "many/d7/new.csv").read_bytes() == b"new"


def test_regression_files_reached_by_another_link_lie_in_their_folder(world: World) -> None:
    (world.folder.parent / "link").symlink_to(world.folder)
    entry = {"path": "link", "files": ["mast/2024/b.csv", "link/a.csv", "mast/a.csv"]}
    with mounted(write_manifest(world.manifest.parent / "linked.json", {"d": entry})) as point:
        assert tree(point) == expected(d=LOCAL)
        (point / "d/a.csv").write_bytes(b"edited\n")
        assert "listed before" in (point / ".octuefs/errors").read_text()
    assert (world.folder / "a.csv").read_bytes() == b"edited\n"
