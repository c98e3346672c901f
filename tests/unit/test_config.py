"""What the system says is mounted, and what a config refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octuefs import mounts
from octuefs.config import (
    MountConfig,
    SourceConfig,
    check_apart,
    check_driver,
    check_mount,
    check_mount_point,
    check_source,
    takes_kernel_driver,
)
from octuefs.errors import BadValue
from octuefs.model.paths import CloudLocation, LocalLocation
from octuefs.stores.base import Access, Ownership


def test_a_config_survives_the_way_to_the_daemon() -> None:
    config = MountConfig(
        SourceConfig(
            "/a/\udcff ,b", recursive=False, metadata_ttl=2.5, access=Access(anonymous=True, billing_project="p")
        ),
        "/m",
        read_only=True,
        allow_other=True,
        views=False,
        list_views=True,
        log_level="DEBUG",
        driver="kernel",
        io_uring="off",
        opens="daemon",
        cache_dir="/c",
        cache_size=0,
        read_ahead=1,
        memory_limit=1 << 30,
        upload_rate=1024.0,
        metrics_port=9100,
    )
    assert MountConfig.from_json(config.to_json()) == config


# --- sources and mount points


@pytest.mark.parametrize("ttl", [-1.0, float("inf"), float("nan")])
def test_a_time_to_live_that_is_no_duration_is_refused(tmp_path: Path, ttl: float) -> None:
    with pytest.raises(BadValue, match="--metadata-ttl"):
        check_source(SourceConfig(str(tmp_path), metadata_ttl=ttl))


def test_a_cloud_source_is_left_to_its_store() -> None:
    check_source(SourceConfig("gs://some-bucket/some/path"))


def test_a_good_folder_on_a_good_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "point").mkdir()
    check_mount(MountConfig(SourceConfig(str(tmp_path / "source")), str(tmp_path / "point")))


def test_a_mount_point_that_reaches_the_source_through_a_link_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(source / "inner")
    with pytest.raises(BadValue, match="lies in the source"):
        check_apart(str(tmp_path / "link"), LocalLocation(str(source)))


def test_a_mount_point_beside_the_source_with_a_longer_name_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    check_apart(str(tmp_path / "data2"), LocalLocation(str(tmp_path / "data")))
    check_mount_point(str(tmp_path / "data2"))


def test_a_mount_point_above_its_source_is_refused_because_it_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(BadValue, match="not empty"):
        check_mount_point(str(tmp_path))


def test_an_empty_folder_takes_a_cloud_source(tmp_path: Path) -> None:
    check_apart(str(tmp_path), CloudLocation("bucket", "path"))
    check_mount_point(str(tmp_path))


# --- limits, and the cache


def cloud_config(folder: Path, **options: Any) -> MountConfig:
    """A bucket that is to be mounted on a folder `point` in `folder`."""
    (folder / "point").mkdir(exist_ok=True)
    return MountConfig(SourceConfig("gs://bucket/d"), str(folder / "point"), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_dir": "/c"}, "--cache-dir"),
        ({"cache_size": 0}, "--cache-size"),
        ({"read_ahead": 0}, "--read-ahead"),
        ({"memory_limit": 1 << 30}, "--memory-limit"),
        ({"upload_rate": 1024.0}, "--bwlimit"),
        ({"download_rate": 1024.0}, "--bwlimit"),
        ({"write_back": True, "cache_size": 1}, "--write-back, --cache-size"),
        ({"ownership": Ownership(uid=1)}, "--uid, --gid, --file-mode and --dir-mode"),
    ],
)
def test_what_is_for_buckets_is_refused_for_a_folder(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "point").mkdir()
    with pytest.raises(BadValue, match=f"^{words}: for gs:// sources; a local folder is read and written as it is$"):
        check_mount(MountConfig(SourceConfig(str(tmp_path / "source")), str(tmp_path / "point"), **options))


def test_all_limits_are_accepted_for_a_bucket_and_metrics_for_a_folder_too(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    check_mount(
        cloud_config(tmp_path, cache_dir=cache, cache_size=1 << 30, read_ahead=0, upload_rate=1e6, metrics_port=65535)
    )
    (tmp_path / "source").mkdir()
    check_mount(MountConfig(SourceConfig(str(tmp_path / "source")), str(tmp_path / "point"), metrics_port=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_limit": 1 << 20}, "--memory-limit: at least 32M is needed"),
        ({"metrics_port": 65536}, "--metrics-port 65536: give a port from 1 to 65535, or 0"),
        ({"metrics_port": -1}, "--metrics-port -1: give a port"),
        ({"cache_dir": "/c", "cache_size": 0}, "--cache-dir means nothing with --cache-size 0"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=f"^{words}"):
        check_mount(cloud_config(tmp_path, **options))


def test_a_cache_that_lies_in_what_is_mounted_or_in_its_place_is_refused(tmp_path: Path) -> None:
    for cache in (tmp_path / "point" / "c", tmp_path / "point", tmp_path):
        with pytest.raises(BadValue, match="lie in one another"):
            check_mount(cloud_config(tmp_path, cache_dir=str(cache)))
    (tmp_path / "source").mkdir()
    config = cloud_config(tmp_path, cache_dir=str(tmp_path / "source" / "c"))
    both = replace(config, source=SourceConfig(""), named={"a": "gs://bucket/d", "b": str(tmp_path / "source")})
    with pytest.raises(BadValue, match="lies in the source"):
        check_mount(both)


def test_a_cache_on_a_network_file_system_is_refused_unless_there_is_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 259:1 / / rw - ext4 /dev/root rw\n31 22 0:40 / {tmp_path}/home rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", table)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    with pytest.raises(BadValue, match="a network file system \\(nfs4\\)"):
        check_mount(cloud_config(tmp_path))
    check_mount(cloud_config(tmp_path, cache_size=0))
    check_mount(cloud_config(tmp_path, cache_dir=str(tmp_path / "disk")))
    (tmp_path / "manifest.json").write_text("{}")
    check_mount(MountConfig(SourceConfig(str(tmp_path / "manifest.json")), str(tmp_path / "point")))


# --- drivers


def driver_config(**options: Any) -> MountConfig:
    return MountConfig(SourceConfig("/s"), "/m", **options)


@pytest.mark.parametrize(
    ("system", "driver", "native"),
    [
        ("Linux", "auto", True),
        ("Linux", "kernel", True),
        ("Linux", "libfuse", False),
        ("Darwin", "auto", False),
        ("Darwin", "libfuse", False),
    ],
)
def test_our_own_driver_is_taken_on_linux_unless_libfuse_is_asked_for(
    system: str, driver: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    config = driver_config(driver=driver)
    check_driver(config)
    assert config.takes_kernel_driver is takes_kernel_driver(driver) is native


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"driver": "fuse"}, "--driver fuse: choose one of auto, kernel, libfuse"),
        ({"driver": ""}, "--driver : choose one of"),
        ({"io_uring": "yes"}, "--io-uring yes: choose one of auto, on, off"),
        ({"opens": "Kernel"}, "--opens Kernel: choose one of auto, kernel, daemon"),
        ({"driver": "libfuse", "io_uring": "on"}, "--io-uring on is for --driver kernel"),
        ({"driver": "libfuse", "io_uring": "off"}, "--io-uring off is for --driver kernel"),
        ({"driver": "libfuse", "opens": "daemon"}, "--opens daemon is for --driver kernel"),
        ({"opens": "kernel"}, "add --read-only, or: --opens daemon"),
        ({"driver": "kernel", "opens": "kernel"}, "add --read-only, or: --opens daemon"),
    ],
)
def test_a_way_to_speak_to_the_kernel_that_cannot_be_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(BadValue) as caught:
        check_driver(driver_config(**options))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"driver": "libfuse"},
        {"driver": "kernel", "io_uring": "on", "opens": "daemon"},
        {"io_uring": "off"},
        {"opens": "kernel", "read_only": True},
    ],
)
def test_a_way_to_speak_to_the_kernel_that_can_be_is_taken(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    check_driver(driver_config(**options))


def test_our_own_driver_is_refused_where_there_is_no_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(BadValue, match="--driver kernel is for Linux, and this is Darwin"):
        check_driver(driver_config(driver="kernel"))
    with pytest.raises(BadValue, match="--io-uring on is for --driver kernel, and this mount takes libfuse"):
        check_driver(driver_config(io_uring="on"))


# --- mountinfo

MOUNTINFO = (
    rb"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:5 / /proc rw,nosuid shared:5 - proc proc rw
31 22 0:40 / /mnt/with\040space rw,nosuid,nodev,relatime shared:9 - fuse.octuefs gs://bucket/a\040path rw,user_id=0
32 22 0:41 / /mnt/tab\011and\134back\012line ro,nosuid shared:9 master:2 - fuse.octuefs /s\134ource ro,user_id=0
33 22 0:42 / /mnt/\303\251\040\377 rw - fuse.rclone remote: rw
34 22 0:43 / /mnt/twice rw - tmpfs tmpfs rw
35 34 0:44 / /mnt/twice rw - fuse.octuefs /on/top rw
36 22 0:45 / /mnt/raw"""
    + "é".encode()
    + rb""" rw - fuse.octuefs none rw
"""
)


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mountinfo"
    path.write_bytes(MOUNTINFO)
    monkeypatch.setattr(mounts, "_MOUNTINFO", path)


@pytest.mark.usefixtures("mountinfo")
def test_escaped_names_are_read_as_they_are() -> None:
    assert [mount.mount_point for mount in mounts.mounts()] == [
        "/",
        "/proc",
        "/mnt/with space",
        "/mnt/tab\tand\\back\nline",
        "/mnt/é \udcff",
        "/mnt/twice",
        "/mnt/twice",
        "/mnt/raw\xe9",
    ]


@pytest.mark.usefixtures("mountinfo")
def test_a_mount_tells_its_type_source_and_options() -> None:
    mount = mounts.mount_at("/mnt/with space")
    options = "rw,nosuid,nodev,relatime"
    assert mount == mounts.Mount("/mnt/with space", "fuse.octuefs", "gs://bucket/a path", options, "0:40")
    assert mount.is_ours
    assert mounts.mounts()[3].source == "/s\\ource"


@pytest.mark.usefixtures("mountinfo")
def test_other_file_systems_are_not_ours() -> None:
    assert [mount.is_ours for mount in mounts.mounts()] == [False, False, True, True, False, False, True, True]


@pytest.mark.usefixtures("mountinfo")
def test_the_topmost_of_two_mounts_on_one_point_is_told() -> None:
    mount = mounts.mount_at("/mnt/twice")
    assert mount is not None
    assert mount.source == "/on/top"


@pytest.mark.usefixtures("mountinfo")
def test_a_path_lies_in_the_deepest_mount_above_it() -> None:
    for path, source in (
        ("/mnt/with space", "gs://bucket/a path"),
        ("/mnt/with space/a/b", "gs://bucket/a path"),
        ("/mnt/with spaces/a", "/dev/root"),
        ("/mnt/twice/x", "/on/top"),
        ("/elsewhere", "/dev/root"),
        ("/", "/dev/root"),
    ):
        mount = mounts.mount_above(path)
        assert mount is not None
        assert (path, mount.source) == (path, source)


@pytest.mark.usefixtures("mountinfo")
def test_a_path_that_is_no_mount_point_has_no_mount() -> None:
    assert mounts.mount_at("/mnt/with space/a") is None
