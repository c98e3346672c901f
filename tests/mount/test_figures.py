"""The figures of a mount: by `octuefs status`, in .octuefs/status, for Prometheus; and the rates that it keeps to."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import mounting
from support.gcs import Bucket
from support.mounting import mounted, mounts_below, run_octuefs
from support.strict_gcs import StrictGcs

MIB = 1 << 20
DATA = os.urandom(3 * MIB)
PATIENCE = 30.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def dataset(strict_bucket: Bucket) -> Bucket:
    """A bucket with a dataset `d` of two files, through the strict server."""
    strict_bucket.put("d/a.bin", DATA)
    strict_bucket.put("d/b.txt", b"b\n")
    return strict_bucket


@pytest.fixture
def mount(dataset: Bucket, tmp_path: Path) -> Iterator[Path]:
    """Mounted with a cache of its own, which is empty, and with metrics."""
    options = ("--metrics-port", "0", "--cache-dir", tmp_path / "cache")
    with mounted(f"{dataset.url}/d", *options, environment=dataset.environment) as mount_point:
        yield mount_point


def status(mount_point: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((mount_point / ".octuefs" / "status").read_bytes())
    return found


def scraped(port: int) -> str:
    with _OPENER.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def metric(port: int, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", scraped(port), re.MULTILINE)
    assert found, name
    return float(found[1])


# --- status


def test_figures_move_when_files_are_read_and_written(mount: Path, strict_gcs: StrictGcs) -> None:
    before = status(mount)["traffic"]
    assert before["requests"]["list"]["count"] >= 1
    assert before["requests"]["read"]["count"] == 0
    assert (mount / "a.bin").read_bytes() == DATA
    (mount / "new.bin").write_bytes(DATA[:MIB])
    now = status(mount)["traffic"]
    assert now["requests"]["read"]["count"] == strict_gcs.count(kind="media") >= 1
    assert now["requests"]["read"]["p99_ms"] >= now["requests"]["read"]["p50_ms"] > 0
    assert now["received_bytes"] - before["received_bytes"] >= len(DATA)
    assert now["requests"]["upload"]["count"] == 1
    assert now["sent_bytes"] >= MIB
    assert (now["pending_files"], now["pending_bytes"]) == (0, 0)
    assert now["places"] == now["most_places"]


def test_what_the_store_refuses_for_overload_shows(mount: Path, strict_gcs: StrictGcs) -> None:
    strict_gcs.fail(503, lambda request: request.kind == "media")
    assert (mount / "b.txt").read_bytes() == b"b\n"
    traffic = status(mount)["traffic"]
    assert traffic["overloads"] == 1
    assert traffic["requests"]["read"]["retried"] == 1
    assert traffic["requests"]["read"]["failed"] == 0
    assert traffic["places"] < traffic["most_places"]


def test_what_is_not_stored_yet_shows(dataset: Bucket, strict_gcs: StrictGcs) -> None:
    with mounted(f"{dataset.url}/d", "--write-back", environment=dataset.environment) as mount_point:
        held = strict_gcs.hold(lambda request: request.kind == "upload")
        (mount_point / "behind.bin").write_bytes(b"12345")
        assert held.arrived.wait(PATIENCE)
        assert (status(mount_point)["traffic"]["pending_files"], status(mount_point)["traffic"]["in_flight"]) == (1, 1)
        assert "to store    1 file, 5 bytes" in run_octuefs("status", mount_point).stdout
        held.release()
        assert run_octuefs("sync", mount_point).returncode == 0
        assert status(mount_point)["traffic"]["pending_files"] == 0


def test_the_command_says_it_in_lines(mount: Path) -> None:
    (mount / "b.txt").read_bytes()
    said = run_octuefs("status", mount)
    assert said.returncode == 0
    assert re.search(r"^files       2 files, 3\.0 MiB$", said.stdout, re.MULTILINE)
    assert re.search(r"^read +1 +0 +0 ", said.stdout, re.MULTILINE)
    assert f"http://127.0.0.1:{status(mount)['metrics_port']}/metrics" in said.stdout
    assert "\x1b" not in said.stdout


def test_the_command_says_what_the_file_says(mount: Path) -> None:
    said = run_octuefs("status", mount / "b.txt", "--json")  # anywhere in the mount
    assert said.returncode == 0
    by_command, by_file = json.loads(said.stdout), status(mount)
    assert by_command.keys() == by_file.keys()
    assert by_command["traffic"].keys() == by_file["traffic"].keys()
    assert by_command["source"] == by_file["source"]


def test_a_folder_of_this_disk_has_figures_too(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    with mounted(tmp_path) as mount_point:
        assert status(mount_point)["traffic"]["requests"]["read"]["count"] == 0
        said = run_octuefs("status", mount_point)
        assert (said.returncode, said.stderr) == (0, "")
        assert "1 file, 1 byte" in said.stdout
        assert "requests" not in said.stdout


def test_what_is_no_mount_has_no_status(tmp_path: Path) -> None:
    said = run_octuefs("status", tmp_path)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == f"octuefs: {tmp_path} is not an octuefs mount point\n"


def watching(mount_point: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [mounting.OCTUEFS, "status", "--watch", *options, mount_point],
        env=mounting.environment_for(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_until(output: Any, wanted: str) -> list[str]:
    lines = []
    for line in output:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted} was never said: {lines}")


def test_it_is_said_anew_each_second_until_ctrl_c(mount: Path) -> None:
    with watching(mount) as command:
        assert command.stdout is not None
        lines_until(command.stdout, "files ")
        (mount / "a.bin").read_bytes()
        lines_until(command.stdout, "received    3.")
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=PATIENCE)
    assert (command.returncode, errors) == (0, "")


def test_with_json_it_is_a_line_each_second(mount: Path) -> None:
    with watching(mount, "--json") as command:
        assert command.stdout is not None
        said = [json.loads(command.stdout.readline()) for _ in range(2)]
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=PATIENCE)
    assert command.returncode == 0
    assert said[0]["mounted_seconds"] < said[1]["mounted_seconds"]


def test_watching_a_mount_ends_with_it(dataset: Bucket) -> None:
    with mounted(f"{dataset.url}/d", environment=dataset.environment) as mount_point:
        with watching(mount_point) as command:
            assert command.stdout is not None
            lines_until(command.stdout, "files ")
            assert run_octuefs("unmount", mount_point).returncode == 0
            _, errors = command.communicate(timeout=PATIENCE)
        assert command.returncode == 1
        assert errors.startswith("octuefs: ")


# --- metrics


def test_prometheus_reads_the_same_figures(mount: Path) -> None:
    (mount / "a.bin").read_bytes()
    said = status(mount)
    port = said["metrics_port"]
    assert metric(port, "octuefs_received_bytes_total") == said["traffic"]["received_bytes"]
    assert metric(port, 'octuefs_request_seconds_count{kind="read"}') == said["traffic"]["requests"]["read"]["count"]
    assert metric(port, "process_resident_memory_bytes") > MIB


def listening(pid: int) -> list[str]:
    """The addresses, in hexadecimal, at which a process listens."""
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if os.path.islink(entry)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].partition(":")[0])
    return found


def test_it_listens_on_this_machine_alone(mount: Path) -> None:
    assert listening(status(mount)["pid"]) == ["0100007F"]


def test_nothing_listens_without_the_option(dataset: Bucket) -> None:
    with mounted(f"{dataset.url}/d", environment=dataset.environment) as mount_point:
        said = status(mount_point)
        assert "metrics_port" not in said
        assert listening(said["pid"]) == []


def test_a_port_that_somebody_has_keeps_from_mounting(dataset: Bucket, tmp_path: Path, strict_gcs: StrictGcs) -> None:
    strict_gcs.forget_requests()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = ("mount", "--metrics-port", str(port), f"{dataset.url}/d", tmp_path)
        said = run_octuefs(*arguments, environment=dataset.environment)
    assert said.returncode == 1
    assert said.stderr.startswith(f"octuefs: --metrics-port {port}: something else listens there; choose another one")
    assert mounts_below(tmp_path) == []
    assert strict_gcs.requests == []


def test_the_port_is_free_again_when_the_mount_has_ended(dataset: Bucket) -> None:
    with mounted(f"{dataset.url}/d", "--metrics-port", "0", environment=dataset.environment) as mount_point:
        port = status(mount_point)["metrics_port"]
        assert scraped(port)
    with socket.create_server(("127.0.0.1", port)):
        pass


# --- rates


def test_reading_and_writing_keep_to_the_rates(dataset: Bucket, tmp_path: Path) -> None:
    options = ("--bwlimit", "1M:1M", "--cache-dir", tmp_path / "cache")
    with mounted(f"{dataset.url}/d", *options, environment=dataset.environment) as mount_point:
        began = time.monotonic()
        assert (mount_point / "a.bin").read_bytes() == DATA
        assert time.monotonic() - began > 2.5  # 3 MiB, of which a burst goes at once
        began = time.monotonic()
        (mount_point / "new.bin").write_bytes(DATA)
        assert time.monotonic() - began > 2.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bwlimit", "10"), "--bwlimit 10: less than 1K per second is none"),
        (("--cache-size", "much"), "--cache-size much: give a number of bytes, e.g. 500M"),
        (("--cache-dir", "/proc/1/nowhere/at/all", "--cache-size", "1G"), "/proc/1"),
        (("--memory-limit", "1M"), "--memory-limit: at least 32M"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(
    bucket: Bucket, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    said = run_octuefs("mount", *options, bucket.url, tmp_path, environment=bucket.environment)
    assert said.returncode == 1
    assert words in said.stderr
    assert said.stderr.count("\n") == 1
