"""Fixtures for all tests, and the proof that a run leaves nothing behind."""

import logging
import re
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest

from support import mounting
from support.commands import end_server
from support.gcs import Bucket, GcsServer
from support.strict_gcs import StrictGcs

run_folder = pytest.StashKey()


# --- the run ---------------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    for fault in mounting.sweep_earlier_runs():
        config.issue_config_time_warning(pytest.PytestWarning(f"left by an earlier run, now ended: {fault}"), 2)
    config.stash[run_folder] = mounting.start_run()
    if config.option.basetemp is None:
        config.option.basetemp = str(config.stash[run_folder] / "tmp")


LONGEST = (
    *("test_datasets.py", "test_mount_model.py", "test_refusals.py", "test_two_mounts.py", "test_crash.py"),
    *("test_transfer.py", "test_write_back.py", "test_posix_read.py", "test_posix_write.py", "test_manifests.py"),
    *("test_views_writing.py", "test_life_cycle.py", "test_metadata_write.py", "test_changes.py", "test_namespace.py"),
    *("test_share.py", "test_xattrs.py", "test_commands.py", "test_access.py", "test_views.py", "test_readme.py"),
)
"""Those that take over half a minute, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that nobody waits for one of them at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Last: xdist's workers, which carry this run's mark, have ended by then.
    folder = session.config.stash[run_folder]
    end_server()
    faults = mounting.sweep(folder, patience=5)
    if faults:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        _say(session.config, "left behind by the tests, which is a failure: " + "; ".join(faults), red=True)
    if session.testsfailed or faults:
        _say(session.config, f"files of failed tests are in {folder} until the next run")
    else:
        mounting.remove(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test says of odd names get to the process that reports: it is sent there as UTF-8."""
    report = yield
    report.sections = [(title, _encodable(text)) for title, text in report.sections]
    text = str(report.longrepr) if report.failed else ""
    if text != _encodable(text):
        report.longrepr = _encodable(text)
    return report


_SHORT = 200
"""Bytes, of which a difference is shown whole."""


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say where two contents differ first, instead of printing megabytes."""
    if op != "==" or not isinstance(left, bytes | bytearray) or not isinstance(right, bytes | bytearray):
        return None
    if max(len(left), len(right)) <= _SHORT:
        return None
    first = next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), None)
    if first is None:
        first = min(len(left), len(right))
    return [
        f"{len(left)} bytes == {len(right)} bytes",
        f"They differ from byte {first} on:",
        f"  {bytes(left[first : first + 40])!r}",
        f"  {bytes(right[first : first + 40])!r}",
        f"and end with {bytes(left[-20:])!r} and {bytes(right[-20:])!r}",
    ]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _say(config: pytest.Config, text: str, **markup: bool) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(text, **markup)


# --- logs ------------------------------------------------------------------------------------------------------------


class _Warnings(logging.Handler):
    """Keeps what octuefs logs in this process at WARNING or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self.expected: list[re.Pattern[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def unexpected(self) -> list[str]:
        texts = [(record, record.getMessage()) for record in self.records]
        return [
            f"{record.levelname} {record.name}: {text}"
            for record, text in texts
            if not any(regex.search(text) for regex in self.expected)
        ]


@pytest.fixture(autouse=True)
def _logs(request: pytest.FixtureRequest) -> Iterator[_Warnings]:
    """An unexpected warning or error of octuefs in this process fails the test."""
    handler = _Warnings()
    handler.expected += [
        re.compile(regex) for marker in request.node.iter_markers("expected_logs") for regex in marker.args
    ]
    logger = logging.getLogger("octuefs")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    if unexpected := handler.unexpected():
        pytest.fail(
            "octuefs logged what this test did not expect (expected_logs(regex) allows it):\n" + "\n".join(unexpected)
        )


@pytest.fixture
def expected_logs(_logs: _Warnings) -> Callable[[str], None]:
    """`expected_logs(regex)`: from now on and before, warnings and errors whose text the regex finds are right."""
    return lambda regex: _logs.expected.append(re.compile(regex))


# --- the drivers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    """The driver of all that a module mounts; see `support.drivers`."""
    with mounting.driven_by(request.param):
        yield request.param


# --- the cloud -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """A real GCS server on this machine."""
    with GcsServer() as server:
        yield server


@pytest.fixture
def bucket(gcs_server: GcsServer) -> Iterator[Bucket]:
    """An empty bucket of the test's own; `.name`, `.url`, `.environment`, `.put(...)` and so on."""
    name = f"octuefs-{uuid.uuid4().hex[:12]}"
    gcs_server.create_bucket(name)
    yield Bucket(gcs_server, name)
    gcs_server.delete_bucket(name)


@pytest.fixture
def gcs_environment(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The server's variables in this process itself, for tests that use the GCS store without a mount."""
    for key, value in gcs_server.environment.items():
        monkeypatch.setenv(key, value)
    return gcs_server.environment


@pytest.fixture
def strict_gcs(gcs_server: GcsServer) -> Iterator[StrictGcs]:
    """A front of the server as strict as Google's, whose failures are commanded; nothing of it is left afterwards."""
    with StrictGcs(gcs_server.environment) as front:
        yield front


@pytest.fixture
def strict_bucket(strict_gcs: StrictGcs, bucket: Bucket) -> Bucket:
    """The same as `bucket`, but its `.environment`, `.put(...)` and so on lead through `strict_gcs`."""
    return strict_gcs.bucket(bucket.name)
