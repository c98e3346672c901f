"""Where a cache may be."""

import os
from pathlib import Path

import pytest

from octuefs import mounts
from octuefs.disks import check_cache_folder, is_local
from octuefs.errors import BadValue


def mount_of(kind: str) -> mounts.Mount:
    return mounts.Mount("/m", kind, "x", "rw")


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "fuseblk", "fuse.mergerfs"]
)
def test_a_disk_of_this_machine_takes_a_cache(kind: str) -> None:
    assert is_local(mount_of(kind))


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "ceph",
        "lustre",
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.octuefs",
        "fuse",
        "smbfs",
    ],
)
def test_a_file_system_over_the_network_takes_none(kind: str) -> None:
    assert not is_local(mount_of(kind))


def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 259:1 / / rw - ext4 /dev/root rw\n31 22 0:40 / {tmp_path}/nfs rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", table)
    (tmp_path / "nfs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nfs")
    for path in (tmp_path / "nfs", tmp_path / "nfs" / "to" / "come", tmp_path / "link" / "c"):
        with pytest.raises(BadValue) as caught:
            check_cache_folder(str(path))
        assert f"the cache {path} lies on {tmp_path}/nfs, a network file system (nfs4)" in str(caught.value)
        assert "--cache-dir" in str(caught.value)
        assert "--cache-size 0" in str(caught.value)
    check_cache_folder(str(tmp_path / "here"))


def test_a_folder_that_is_not_there_yet_is_accepted_and_not_made(tmp_path: Path) -> None:
    check_cache_folder(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadValue, match="is no folder; give another with --cache-dir"):
            check_cache_folder(str(path))


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(BadValue, match=f"^no permission to write in {tmp_path}, where the cache"):
        check_cache_folder(str(tmp_path / "c"))
