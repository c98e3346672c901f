"""A bucket whose requester pays, by mount and by every command; and what is said where rights lack."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gcs import Bucket
from support.keys import service_account_key
from support.mounting import mounted, run_octuefs
from support.strict_gcs import StrictGcs

PAYER = "payer-1"
PAYING = ("--billing-project", PAYER)


@pytest.fixture
def paid(strict_gcs: StrictGcs, strict_bucket: Bucket) -> Iterator[Bucket]:
    """A bucket with a dataset, whose requester pays; in the end every request has named who does."""
    strict_bucket.put("data/a.csv", b"1,2\n", {"octue__labels": '{"_type": "set", "items": ["a"]}'})
    strict_bucket.put("data/sub/b.csv", b"3,4\n")
    strict_gcs.requester_pays(PAYER)
    strict_gcs.forget_requests()
    yield strict_bucket
    strict_gcs.requester_pays(None)


def check_all_paid(strict_gcs: StrictGcs) -> set[str]:
    """See that no request was without its payer, and return of what kinds they were."""
    requests = [request for request in strict_gcs.requests if request.bucket]
    assert [str(request) for request in requests if request.query.get("userProject") != PAYER] == []
    return {request.kind for request in requests}


def test_a_mount_of_a_paid_bucket_reads_and_writes(paid: Bucket, strict_gcs: StrictGcs) -> None:
    with mounted(f"{paid.url}/data", *PAYING, environment=paid.environment) as mount:
        assert (mount / "a.csv").read_bytes() == b"1,2\n"
        assert (mount / "by-label/a/a.csv").is_file()
        (mount / "new.csv").write_bytes(b"new")
        (mount / "large.bin").write_bytes(bytes(9 << 20))
        with (mount / "large.bin").open("ab") as file:
            file.write(b"more")
        (mount / "new.csv").rename(mount / "renamed.csv")
        (mount / "a.csv").unlink()
        (mount / "folder").mkdir()
    kinds = check_all_paid(strict_gcs)
    assert kinds >= {"list", "media", "upload", "rewrite", "delete", "bucket"}
    strict_gcs.requester_pays(None)
    assert paid.get("data/renamed.csv") == b"new"
    assert paid.get("data/large.bin") == bytes(9 << 20) + b"more"


def test_the_commands_on_a_paid_bucket(paid: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "c.csv").write_bytes(b"5,6\n")
    key = tmp_path / "key.json"
    key.write_text(json.dumps(service_account_key()))
    source = f"{paid.url}/data"
    for command in (
        ["info", source],
        ["ls", source],
        ["hash", source],
        ["verify", source],
        ["verify", str(local), source],
        ["download", source, str(tmp_path / "copy")],
        ["upload", str(local), f"{paid.url}/other"],
        ["share", source, "--key-file", str(key)],
    ):
        refused = run_octuefs(*command, environment=paid.environment)
        assert refused.returncode == 1, command
        assert "name the project that is to pay with --billing-project" in refused.stderr, command
        assert refused.stdout == "", command
    strict_gcs.forget_requests()
    for command in (
        ["info", source],
        ["ls", source],
        ["hash", source],
        ["verify", source],
        ["download", source, str(tmp_path / "copy")],
        ["verify", str(tmp_path / "copy"), source],
        ["upload", str(local), f"{paid.url}/other"],
        ["share", source, "--key-file", str(key)],
    ):
        done = run_octuefs(*command, *PAYING, environment=paid.environment)
        assert done.returncode == 0, (command, done.stderr)
    assert check_all_paid(strict_gcs) >= {"list", "media", "upload"}
    assert f"userProject={PAYER}" in done.stdout
    other = run_octuefs("hash", source, "--billing-project", "another-1", environment=paid.environment)
    assert other.returncode == 1
    assert "may not let the project of --billing-project pay; it needs serviceusage.services.use there" in other.stderr


def test_a_mount_without_who_pays_is_refused_in_words(paid: Bucket, tmp_path: Path) -> None:
    done = run_octuefs("mount", f"{paid.url}/data", tmp_path, environment=paid.environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "whoever asks has to pay; name the project that is to pay with --billing-project" in done.stderr
