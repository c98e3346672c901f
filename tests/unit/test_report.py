"""What the report tells, and the log with it."""

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from octuefs import mount, report
from octuefs.mount import start_logging
from octuefs.report import Report, printable


@pytest.fixture
def _loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", "octuefs", "gcsfs")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb", "a\\nb"), ("\udcff", "\\xff"), ("\ud800", "\\xed\\xa0\\x80"), ("名 前", "名 前")]
)
def test_a_name_of_any_characters_is_printable(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(shown) == shown


@pytest.mark.expected_logs("forged")
def test_no_text_forges_a_line(caplog: pytest.LogCaptureFixture) -> None:
    told = Report()
    told.set_problems("a\n", ["x\nforged \udcff"])
    told.skip("b\n", "y\nforged \ud800")
    told.failure("z\nforged")
    assert len(told.text().splitlines()) == 3
    told.text().encode()
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert len(caplog.records) == 3


@pytest.mark.expected_logs("bad|over 2 things")
def test_problems_beyond_those_kept_are_not_logged_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(report, "_KEPT_PROBLEMS", 2)
    told = Report()
    for _ in range(3):
        for subject in "abcd":
            told.set_problems(subject, ["bad"])
    assert [record.getMessage() for record in caplog.records] == [
        "a: bad",
        "b: bad",
        "over 2 things have problems; those of others are not told",
    ]


@pytest.mark.expected_logs("is skipped")
def test_the_text_can_be_read_while_a_scan_replaces_what_is_skipped() -> None:
    told = Report()
    done = threading.Event()

    def scan() -> None:
        for number in range(30):
            told.replace_skipped({f"{number} {index}": "odd" for index in range(50)})
        done.set()

    scanner = threading.Thread(target=scan)
    scanner.start()
    while not done.is_set():
        told.text()
    scanner.join()
    assert len(told.text().splitlines()) == 50


@pytest.mark.expected_logs("line")
@pytest.mark.usefixtures("_loggers_as_before")
def test_the_log_stays_small_and_private_and_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_LOG_BYTES", 500)
    path = tmp_path / "x.log"
    mask = os.umask(0)
    try:
        start_logging(path, "INFO")
        for number in range(50):
            logging.getLogger("octuefs").warning("line %s \udcff", number)
    finally:
        os.umask(mask)
    assert "line 49 \\udcff" in path.read_text()
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    assert all(file.stat().st_size <= 500 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
