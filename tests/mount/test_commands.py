"""The command line: what its commands print, and that wrong use ends with one clear line."""

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from octuefs.cli import app
from octuefs.commands import look, terminal
from octuefs.drivers.kernel.abilities import ENABLE_COMMAND, Abilities
from octuefs.errors import OctuefsError
from octuefs.model.hashes import encode_crc32c, extend_crc32c
from support import mounting
from support.gcs import Bucket
from support.mounting import mounted, run_octuefs

OCTUE = {
    "datafiles": {
        "a.csv": {
            "id": "2ed1ef0c-b1a2-4f83-a5d3-b6b8e3f5e1aa",
            "timestamp": {"_type": "datetime", "value": "2021-03-04T05:06:07"},
            "tags": {"height": 80, "site": "north"},
            "labels": {"_type": "set", "items": ["raw", "wind"]},
            "sdk_version": "0.69.1",
        },
        "b.csv": {"timestamp": None, "tags": {"height": 100}, "labels": {"_type": "set", "items": ["wind"]}},
    },
    "dataset": {
        "id": "0e4eb4a6-6a5a-4b0e-8d3a-6b6bf0d1d5a7",
        "name": "my-dataset",
        "tags": {"owner": "me"},
        "labels": ["published"],
    },
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "dataset"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("1\n")
    (folder / "b.csv").write_text("1,2\n" * 10)
    (folder / "sub" / "c.dat").write_bytes(bytes(2000))
    (folder / ".octue").write_text(json.dumps(OCTUE))
    return folder


@pytest.fixture(autouse=True)
def _each_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """How commands and daemons begin is tested here, too."""
    monkeypatch.setattr(mounting, "each_command_begins", True)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    folder = tmp_path / "point"
    folder.mkdir()
    return folder


@pytest.fixture
def ordinary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run octuefs without root's right to pass over permissions, where we are root."""
    if os.getuid() == 0:
        rights = "-dac_override,-dac_read_search"
        script = tmp_path / "octuefs"
        script.write_text(
            f'#!/bin/sh\nexec setpriv --bounding-set={rights} --inh-caps={rights} {mounting.OCTUEFS} "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setattr(mounting, "OCTUEFS", script)


def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which costs a tenth of the time of one of its own."""
    loggers = [logging.getLogger(name) for name in ("", "octuefs", "gcsfs")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        result = CliRunner().invoke(app, [os.fspath(argument) for argument in arguments], prog_name="octuefs")
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def refusal(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the one line that a command gave up with."""
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("octuefs: ")
    return line.removeprefix("octuefs: ")


def usage_error(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said to wrong use."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "Error" in result.stderr
    return result.stderr


# --- sources that cannot be


@pytest.mark.parametrize("command", ["mount", "info", "hash", "ls"])
def test_a_folder_that_is_not_there_is_named(command: str, tmp_path: Path, point: Path) -> None:
    arguments = [tmp_path / "nothing", *([point] if command == "mount" else [])]
    assert refusal(run_here(command, *arguments)) == f"no such folder: {tmp_path}/nothing"


@pytest.mark.parametrize("command", ["mount", "info", "hash", "ls"])
def test_a_file_that_is_no_manifest_is_no_source(command: str, dataset: Path, point: Path) -> None:
    arguments = [dataset / "a.csv", *([point] if command == "mount" else [])]
    assert refusal(run_here(command, *arguments)) == f"{dataset}/a.csv: the manifest is no JSON object"


@pytest.mark.parametrize("command", ["mount", "info"])
def test_a_bucket_that_is_not_there_is_named(command: str, bucket: Bucket, point: Path) -> None:
    arguments = ["gs://no-such-bucket-here/path", *([point] if command == "mount" else [])]
    line = refusal(run_octuefs(command, *arguments, environment=bucket.environment))
    assert line == "there is no such bucket: gs://no-such-bucket-here; check its name"


@pytest.mark.parametrize("command", ["mount", "info", "hash", "ls"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gs://", "names no bucket; write gs://bucket/path"),
        ("gs:///path", "names no bucket; write gs://bucket/path"),
        ("ftp://example.com/data", "gs://"),
        ("s3://bucket/path", "gs://"),
        ("", "empty"),
    ],
)
def test_a_text_that_is_no_source_is_refused_with_the_right_form(
    command: str, source: str, words: str, point: Path
) -> None:
    line = refusal(run_here(command, source, *([point] if command == "mount" else [])))
    assert words in line


@pytest.mark.usefixtures("ordinary_root")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, point: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    try:
        for command in (["mount", closed, point], ["info", closed]):
            assert refusal(run_octuefs(*command)) == f"no permission to read {closed}"
    finally:
        closed.chmod(0o700)


@pytest.mark.usefixtures("ordinary_root")
def test_a_source_below_a_folder_that_may_not_be_passed_is_named(tmp_path: Path, point: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "source").mkdir(parents=True)
    closed.chmod(0o000)
    try:
        line = refusal(run_octuefs("mount", closed / "source", point))
        assert line == f"{closed}/source cannot be read: Permission denied"
    finally:
        closed.chmod(0o700)


@pytest.mark.usefixtures("ordinary_root")
def test_a_mount_point_that_may_not_be_written_is_named(tmp_path: Path, dataset: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    line = refusal(run_octuefs("mount", dataset, closed))
    assert line == f"no permission to mount on {closed}; choose a folder of yours"


def test_a_cloud_source_without_credentials_is_refused_soon_and_says_how_to_log_in(tmp_path: Path, point: Path) -> None:
    # 192.0.2.1 is nobody's (RFC 5737): as on any machine outside of Google's cloud, nothing answers there.
    environment = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path / "none"), "GCE_METADATA_HOST": "192.0.2.1"}
    started = time.monotonic()
    line = refusal(run_octuefs("mount", "gs://some-bucket/path", point, environment=environment))
    assert line.startswith("no Google credentials found; run `gcloud auth application-default login`")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), ("{}", "not usable"), ("no", "not usable")])
def test_credentials_that_cannot_be_used_are_named_without_their_content(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    environment = {"HOME": str(tmp_path), "GOOGLE_APPLICATION_CREDENTIALS": str(file), "NO_GCE_CHECK": "true"}
    line = refusal(run_octuefs("info", "gs://some-bucket/path", environment=environment))
    assert line.endswith(f"cannot be used: {file} ({reason})")


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    environment = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}
    line = refusal(run_octuefs("info", "gs://some-bucket/path", environment=environment))
    assert line == "gs://some-bucket: cannot reach 127.0.0.1:1 (Connection refused); check the network"


def test_a_server_that_speaks_something_else_is_named() -> None:
    import http.server
    import threading

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{server.server_address[1]}"
        environment = {"STORAGE_EMULATOR_HOST": f"http://{address}"}
        line = refusal(run_octuefs("info", "gs://some-bucket/path", environment=environment))
        assert line == f"gs://some-bucket: {address} does not answer as Google Cloud Storage does; check the endpoint"
    finally:
        server.shutdown()
        server.server_close()


# --- no mounts


@pytest.mark.parametrize("command", ["unmount", "refresh"])
def test_a_folder_that_is_no_mount_point_is_named(command: str, point: Path) -> None:
    assert refusal(run_here(command, point)) == f"{point} is not an octuefs mount point"


@pytest.mark.parametrize("command", ["unmount", "refresh"])
def test_a_mount_point_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    line = refusal(run_here(command, tmp_path / "nothing"))
    assert line == f"{tmp_path}/nothing is not an octuefs mount point"


@pytest.mark.parametrize("command", ["unmount", "refresh"])
def test_the_mount_of_another_file_system_is_left_alone(command: str) -> None:
    assert refusal(run_here(command, "/proc")) == "/proc is not an octuefs mount point"
    assert os.path.exists("/proc/self")


# --- wrong options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["frobnicate"], "frobnicate"),
        (["mount"], "source"),
        (["mount", "/tmp"], "mount_point"),
        (["mount", "/tmp", "/tmp", "--frobnicate"], "--frobnicate"),
        (["mount", "/tmp", "/tmp", "--metadata-ttl", "soon"], "--metadata-ttl"),
        (["mount", "/tmp", "/tmp", "--log-level", "loud"], "loud"),
        (["mount", "/tmp", "/tmp", "/tmp"], "/tmp"),
        (["mount", "/tmp", "/tmp", "--driver", "fuse"], "fuse"),
        (["mount", "/tmp", "/tmp", "--io-uring", "yes"], "yes"),
        (["mount", "/tmp", "/tmp", "--opens", "never"], "never"),
        (["unmount"], "mount_point"),
        (["refresh"], "mount_point"),
        (["info"], "source"),
        (["hash"], "source"),
        (["ls", "/tmp", "--filter"], "--filter"),
        (["doctor", "now"], "now"),
    ],
)
def test_wrong_use_ends_with_2_and_names_what_is_wrong(arguments: list[str], words: str) -> None:
    assert words in usage_error(run_here(*arguments)).lower()


def test_a_time_to_live_below_zero_is_refused(dataset: Path, point: Path) -> None:
    line = refusal(run_here("mount", dataset, point, "--metadata-ttl", "-1"))
    assert line == "--metadata-ttl is a number of seconds, 0 or more"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--opens", "kernel"], "--opens kernel is for mounts that change nothing; add --read-only"),
        (["--driver", "libfuse", "--io-uring", "on"], "--io-uring on is for --driver kernel"),
        (["--driver", "libfuse", "--opens", "daemon"], "--opens daemon is for --driver kernel"),
    ],
)
def test_options_of_the_driver_that_contradict_each_other_are_refused(
    options: list[str], words: str, dataset: Path, point: Path
) -> None:
    assert words in refusal(run_here("mount", dataset, point, *options))


def test_the_driver_of_the_environment_is_taken_where_no_option_names_one(
    dataset: Path, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTUEFS_DRIVER", "libfuse")
    assert "this mount takes libfuse" in refusal(run_here("mount", dataset, point, "--io-uring", "off"))
    named = run_here("mount", dataset, point, "--io-uring", "off", "--driver", "kernel", "--opens", "kernel")
    assert "add --read-only" in refusal(named)
    monkeypatch.setenv("OCTUEFS_DRIVER", "frobnicate")
    assert "frobnicate" in usage_error(run_here("mount", dataset, point))


@pytest.mark.parametrize("text", ["nmae=x", "name__frobnicate=x", "name", "=x", "labels__contains"])
def test_a_filter_that_means_nothing_is_refused_before_anything_is_read(text: str, dataset: Path) -> None:
    line = refusal(run_here("ls", dataset, "--filter", text))
    assert text.split("=")[0] in line or text in line


@pytest.mark.parametrize("text", ["nmae", "labels", "tags", "-"])
def test_an_order_that_means_nothing_is_refused(text: str, dataset: Path) -> None:
    assert text in refusal(run_here("ls", dataset, "--order-by", text))


# --- info, hash, ls


def test_info_says_what_a_dataset_is(dataset: Path) -> None:
    result = run_octuefs("info", dataset, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    hash_value = run_octuefs("hash", dataset).stdout.strip()
    assert facts.pop("metadata_hash").endswith("==")
    assert facts == {
        "source": str(dataset),
        "name": "my-dataset",
        "id": "0e4eb4a6-6a5a-4b0e-8d3a-6b6bf0d1d5a7",
        "labels": ["published"],
        "tags": {"owner": "me"},
        "files": 3,
        "size_bytes": 2042,
        "hash": hash_value,
        "file_labels": {"raw": 1, "wind": 2},
        "file_tags": {"height": 2, "site": 1},
        "extensions": {"csv": 2, "dat": 1},
    }


def test_info_as_text_has_a_line_for_each_fact(dataset: Path) -> None:
    result = run_octuefs("info", dataset)
    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["name"] == "my-dataset"
    assert lines["files"] == "3"
    assert lines["size_bytes"] == "2042 (2.0 KiB)"
    assert lines["file_labels"] == "raw: 1, wind: 2"


def test_info_of_the_files_directly_in_it_leaves_the_others_out(dataset: Path) -> None:
    facts = json.loads(run_octuefs("info", dataset, "--json", "--no-recursive").stdout)
    assert (facts["files"], facts["extensions"]) == (2, {"csv": 2})


def test_the_cloud_dataset_has_the_same_facts_as_the_local_one(dataset: Path, bucket: Bucket) -> None:
    for path in ("a.csv", "b.csv"):
        record = OCTUE["datafiles"][path]
        metadata = {f"octue__{key}": json.dumps(value) for key, value in record.items()}
        bucket.put(f"some/where/{path}", (dataset / path).read_bytes(), metadata)
    bucket.put("some/where/sub/c.dat", (dataset / "sub/c.dat").read_bytes())
    bucket.put("some/where/.octue", json.dumps({"dataset": OCTUE["dataset"]}).encode())
    cloud = run_octuefs("info", f"{bucket.url}/some/where", "--json", environment=bucket.environment)
    assert (cloud.returncode, cloud.stderr) == (0, "")
    facts = json.loads(cloud.stdout)
    assert facts.pop("source") == f"{bucket.url}/some/where"
    expected = json.loads(run_octuefs("info", dataset, "--json").stdout)
    del expected["source"]
    assert facts == expected


def test_info_of_a_path_in_a_mount_tells_its_attributes(dataset: Path) -> None:
    with mounted(dataset) as point:
        file = json.loads(run_octuefs("info", point / "by-label" / "raw" / "a.csv", "--json").stdout)
        folder = json.loads(run_octuefs("info", point / "sub", "--json").stdout)
        root = run_octuefs("info", point)
        missing = run_octuefs("info", point / "nothing")
    assert file["path"] == f"{point}/by-label/raw/a.csv"
    assert (file["mount"], file["source"]) == (str(point), str(dataset))
    assert file["id"] == "2ed1ef0c-b1a2-4f83-a5d3-b6b8e3f5e1aa"
    assert file["labels"] == "raw wind"
    assert json.loads(file["tags"]) == {"height": 80, "site": "north"}
    assert file["timestamp"] == "2021-03-04T05:06:07"
    assert file["local_path"] == f"{dataset}/a.csv"
    assert (folder["count"], folder["size_bytes"]) == ("1", "2000")
    assert root.returncode == 0
    assert "my-dataset" in root.stdout
    assert "no such" in refusal(missing).lower()


def test_hash_of_nothing_is_that_of_the_empty_list(tmp_path: Path) -> None:
    result = run_octuefs("hash", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, encode_crc32c(extend_crc32c(0, b"[]")) + "\n", "")


def listed(*arguments: str | Path) -> list[str]:
    """Return the paths that `octuefs ls` lists, in order."""
    result = run_here("ls", *arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line)["path"] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ([], ["a.csv", "b.csv", "sub/c.dat"]),
        (["--no-recursive"], ["a.csv", "b.csv"]),
        (["--filter", "labels__contains=wind"], ["a.csv", "b.csv"]),
        (["--filter", "labels__contains=wind", "--filter", "tags__height__gt=90"], ["b.csv"]),
        (["--filter", "timestamp__year_equals=2021"], ["a.csv"]),
        (["--filter", "name__ends_with=.dat"], ["sub/c.dat"]),
        (["--filter", "extension=xyz"], []),
        (["--order-by", "-size_bytes"], ["sub/c.dat", "b.csv", "a.csv"]),
        (["--order-by", "size_bytes"], ["a.csv", "b.csv", "sub/c.dat"]),
        (["--order-by", "-tags.height"], ["b.csv", "a.csv", "sub/c.dat"]),
        (["--filter", "extension=csv", "--order-by", "-name"], ["b.csv", "a.csv"]),
    ],
)
def test_ls_lists_what_the_filters_leave_in_the_order_asked_for(
    options: list[str], paths: list[str], dataset: Path
) -> None:
    assert listed(dataset, *options) == paths


def test_ls_filters_by_hash(dataset: Path) -> None:
    with mounted(dataset) as point:
        hash_value = os.getxattr(point / "sub" / "c.dat", "user.octue.hash").decode()
    assert listed(dataset, "--filter", f"hash_value={hash_value}") == ["sub/c.dat"]


def test_ls_as_text_shows_size_path_and_labels(dataset: Path) -> None:
    lines = run_octuefs("ls", dataset).stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        ["2", "a.csv", "[raw wind]"],
        ["40", "b.csv", "[wind]"],
        ["2000", "sub/c.dat"],
    ]


def test_ls_shows_a_name_of_any_bytes_on_one_line(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\nb\xff")).write_text("1")
    lines = run_octuefs("ls", tmp_path).stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [["1", "a\\nb\\xff"]]


def test_warnings_of_a_dataset_go_to_stderr(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / ".octue").write_text("{")
    result = run_octuefs("hash", tmp_path)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 1
    assert ".octue: malformed" in result.stderr


@pytest.mark.parametrize("command", ["info", "hash"])
def test_one_progress_ends_before_the_next_begins(command: str, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    @contextmanager
    def progress(text: str) -> Iterator[Callable[[int], None]]:
        told.append(f"{text} begins")
        yield lambda _: None
        told.append(f"{text} ends")

    for module in (look, terminal):
        monkeypatch.setattr(module, "counting", progress)
    assert run_here(command, dataset).returncode == 0
    assert told == [f"{text}, files: {event}" for text in ("reading", "hashing") for event in ("begins", "ends")]


def test_output_that_nobody_reads_any_more_ends_quietly(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:0100}").touch()
    pipeline = f"{mounting.OCTUEFS} ls {tmp_path} | head -n 1"
    result = subprocess.run(
        ["sh", "-c", pipeline], env=mounting.environment_for(), capture_output=True, text=True, timeout=60, check=False
    )
    assert len(result.stdout.splitlines()) == 1
    assert "Traceback" not in result.stderr


# --- doctor, help


def test_doctor_finds_all_in_order_where_mounts_work() -> None:
    result = run_octuefs("doctor", environment={"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"})
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[0] == "ok      /dev/fuse is there"
    assert any(line.startswith("ok      libfuse 2") for line in lines)
    assert any("mounts for users and unmounts" in line for line in lines)
    assert any("the emulator at http://127.0.0.1:1" in line for line in lines)


def test_doctor_says_which_driver_is_taken_and_what_would_make_it_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTUEFS_DRIVER", raising=False)
    monkeypatch.setattr(
        "octuefs.drivers.kernel.abilities.find_abilities",
        lambda: Abilities(passthrough="it takes root", io_uring=f"switch it on with: {ENABLE_COMMAND}"),
    )
    lines = run_here("doctor").stdout.splitlines()
    assert lines[1:4] == [
        "ok      mounts take our own driver for Linux (--driver auto)",
        "note    files are not passed through, which is slower: it takes root",
        "note    requests do not come over io_uring, which is slower: switch it on with:"
        " echo Y | sudo tee /sys/module/fuse/parameters/enable_uring",
    ]
    monkeypatch.setattr("octuefs.drivers.kernel.abilities.find_abilities", lambda: Abilities("", ""))
    lines = run_here("doctor").stdout.splitlines()
    assert [line[:8] for line in lines[2:4]] == ["ok      ", "ok      "]


def test_doctor_needs_libfuse_only_where_it_is_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise OctuefsError("libfuse 2 is not installed")

    monkeypatch.setattr("octuefs.drivers.binding.library_version", missing)
    for driver, code, start in (("auto", 0, "note    "), ("libfuse", 1, "MISSING ")):
        monkeypatch.setenv("OCTUEFS_DRIVER", driver)
        result = run_here("doctor")
        (line,) = [line for line in result.stdout.splitlines() if "libfuse 2" in line]
        assert (line[:8], result.returncode) == (start, code)


def test_doctor_without_credentials_notes_it_and_says_how_to_get_some(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path / "none"), "GCE_METADATA_HOST": "192.0.2.1"}
    started = time.monotonic()
    result = run_octuefs("doctor", environment=environment)
    assert time.monotonic() - started < 10
    assert result.returncode == 0
    (line,) = [line for line in result.stdout.splitlines() if "credentials" in line]
    assert line.startswith("note    Google credentials: none found")
    assert "gcloud auth application-default login" in line


@pytest.mark.parametrize("content", [None, "[]", "{", "\\0"])
def test_credentials_that_cannot_be_used_are_named(content: str | None, tmp_path: Path, point: Path) -> None:
    file = tmp_path / "key.json"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    result = run_octuefs("doctor", environment=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"note    Google credentials: GOOGLE_APPLICATION_CREDENTIALS names {file}" in result.stdout
    assert str(file) in refusal(run_octuefs("mount", "gs://some-bucket/x", point, environment=environment))


def test_doctor_without_fusermount_says_what_to_install(tmp_path: Path) -> None:
    result = run_octuefs("doctor", environment={"PATH": str(tmp_path), "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"})
    assert "apt-get install fuse3" in result.stdout
    assert result.returncode == (0 if os.getuid() == 0 else 1)


def test_doctor_does_not_print_credentials(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    secret = {"client_id": "c", "client_secret": "s3cret", "refresh_token": "t0ken", "type": "authorized_user"}
    file.write_text(json.dumps(secret))
    result = run_octuefs("doctor", environment={"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    assert "Google credentials were found" in result.stdout
    assert "s3cret" not in result.stdout + result.stderr
    assert "t0ken" not in result.stdout + result.stderr


def test_the_version_is_printed() -> None:
    from octuefs import __version__

    result = run_octuefs("--version")
    assert (result.returncode, result.stdout) == (0, f"octuefs {__version__}\n")


@pytest.mark.parametrize("command", ["mount", "unmount", "info", "hash", "ls", "refresh", "doctor"])
def test_every_command_has_help(command: str) -> None:
    result = run_here(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"octuefs {command}" in result.stdout


def test_help_names_all_commands_and_the_exit_codes() -> None:
    result = run_octuefs("--help")
    assert result.returncode == 0
    for word in ("mount", "unmount", "info", "hash", "ls", "refresh", "doctor", "Exit codes"):
        assert word in result.stdout


def test_the_command_line_is_imported_without_what_costs_time() -> None:
    code = "import sys, octuefs.cli; print('\\n'.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    heavy = {
        "aiohttp",
        "fsspec",
        "fuse",
        "gcsfs",
        "google.auth",
        "google_crc32c",
        "pyroaring",
        "requests",
        "rich.progress",
        "sqlite3",
        "watchdog",
    }
    assert heavy & set(output.split()) == set()


# --- through a command that changes nothing


def test_looking_at_a_dataset_leaves_no_trace_in_it(dataset: Path) -> None:
    def facts() -> dict[str, Any]:
        return {
            str(path): (stat.S_IFMT(path.lstat().st_mode), path.lstat().st_mtime_ns, path.lstat().st_ctime_ns)
            for path in [dataset, *sorted(dataset.rglob("*"))]
        }

    before = facts()
    for command in ("info", "hash", "ls"):
        assert run_octuefs(command, dataset).returncode == 0
    assert facts() == before


@pytest.fixture(autouse=True)
def _nothing_is_mounted(tmp_path: Path) -> Iterator[None]:
    """A refused mount must leave none."""
    yield
    assert mounting.mounts_below(tmp_path) == []
    if tmp_path.exists():
        shutil.rmtree(tmp_path, ignore_errors=True)
