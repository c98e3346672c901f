"""One suite of what POSIX promises writers, over a local folder and over a real GCS server, each really mounted.

Whatever a test does in its folder, at its end the store holds exactly what the mount shows (`writing.Place.check`).
"""

import contextlib
import errno
import fcntl
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mount.conftest import SourceMaker
from mount.trees import KIB, MIB, contents, run, some_bytes
from mount.writing import (
    COLLAPSE_RANGE,
    KEEP_SIZE,
    PUNCH_HOLE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    UTIME_NOW,
    UTIME_OMIT,
    Place,
    Workplace,
    eventually,
    fails_with,
    fallocate,
    get,
    opened,
    pread_fully,
    put,
    python,
    renameat2,
    state_folder,
    utimensat,
    workplace_of,
    write_fully,
)

from support.drivers import over_each_driver
from support.mounting import mounted

pytestmark = over_each_driver

BASE = some_bytes(300 * KIB + 11)


@pytest.fixture(scope="module", params=["local", "cloud"])
def workplace(request: pytest.FixtureRequest, new_source: SourceMaker, driver: str) -> Iterator[Workplace]:
    with workplace_of(request.param, new_source, lambda: request.getfixturevalue("gcs_server")) as it:
        yield it


@pytest.fixture
def here(workplace: Workplace) -> Iterator[Place]:
    with workplace.place() as it:
        yield it


@pytest.fixture
def disk(here: Place) -> Place:
    """For what only a disk can hold."""
    if here.in_cloud:
        pytest.skip("an object store cannot hold this; what it says instead has a test of its own")
    return here


@pytest.fixture
def cloud(here: Place) -> Place:
    """For what is different in a bucket."""
    if not here.in_cloud:
        pytest.skip("about buckets")
    return here


# --- creating and opening --------------------------------------------------------------------------------------------


def test_a_new_file_shows_at_once_and_is_in_the_store_when_it_is_closed(here: Place) -> None:
    with opened(here / "new", os.O_CREAT | os.O_WRONLY) as fd:
        assert os.listdir(here.folder) == ["new"]
        assert os.write(fd, b"some") == 4
        assert os.write(fd, b" bytes") == 6
        assert os.fstat(fd).st_size == 10
        assert (here / "new").stat().st_size == 10
    assert here.stored() == {b"new": b"some bytes"}
    assert (here / "new").read_bytes() == b"some bytes"


def test_a_file_without_bytes_is_stored_too(here: Place) -> None:
    (here / "empty").touch()
    assert here.stored() == {b"empty": b""}
    os.mknod(here / "made by mknod", stat.S_IFREG | 0o600)
    assert stat.S_IMODE((here / "made by mknod").stat().st_mode) == 0o600
    # libfuse 2 makes it by CREATE and RELEASE, without the FLUSH that a program waits for.
    assert eventually(lambda: here.stored() == {b"empty": b"", b"made by mknod": b""})


def test_exclusive_creation_fails_where_anything_stands(here: Place) -> None:
    (here / "file").write_bytes(b"first")
    (here / "folder").mkdir()
    for name in ("file", "folder"):
        with fails_with(errno.EEXIST):
            os.open(here / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with opened(here / "new", os.O_CREAT | os.O_EXCL | os.O_RDWR) as fd:
        os.write(fd, b"mine")
    assert here.stored() == {b"file": b"first", b"new": b"mine"}


def test_opening_what_cannot_be_opened_says_why(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    (here / "folder").mkdir()
    for path, flags, number in (
        ("nothing", os.O_WRONLY, errno.ENOENT),
        ("nothing", os.O_WRONLY | os.O_TRUNC, errno.ENOENT),
        ("nowhere/new", os.O_CREAT | os.O_WRONLY, errno.ENOENT),
        ("file/new", os.O_CREAT | os.O_WRONLY, errno.ENOTDIR),
        ("folder", os.O_WRONLY, errno.EISDIR),
        ("folder", os.O_RDWR, errno.EISDIR),
        ("folder", os.O_CREAT | os.O_WRONLY, errno.EISDIR),
        ("file", os.O_RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
        (".", os.O_TMPFILE | os.O_RDWR, errno.EOPNOTSUPP),
    ):
        with fails_with(number):
            os.close(os.open(here / path, flags))
    assert here.stored() == {b"file": b"x"}


def test_creating_an_existing_file_keeps_its_bytes_and_truncating_it_does_not(here: Place) -> None:
    (here / "file").write_bytes(b"0123456789")
    with opened(here / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.pwrite(fd, b"ab", 2)
    assert here.stored_data("file") == b"01ab456789"
    with opened(here / "file", os.O_CREAT | os.O_WRONLY | os.O_TRUNC) as fd:
        assert (here / "file").stat().st_size == 0
        os.write(fd, b"new")
    assert here.stored_data("file") == b"new"
    with opened(here / "file", os.O_WRONLY | os.O_TRUNC):
        pass
    assert here.stored_data("file") == b""


def test_a_descriptor_does_only_what_it_was_opened_for(here: Place) -> None:
    (here / "file").write_bytes(b"0123456789")
    with opened(here / "file", os.O_WRONLY) as writer, opened(here / "file", os.O_RDONLY) as reader:
        with fails_with(errno.EBADF):
            os.read(writer, 1)
        with fails_with(errno.EBADF):
            os.write(reader, b"x")
        with fails_with(errno.EINVAL):
            os.ftruncate(reader, 0)
    assert here.stored_data("file") == b"0123456789"


def test_one_descriptor_reads_what_it_has_written(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, BASE)
        assert pread_fully(fd, 0, len(BASE)) == BASE
        os.pwrite(fd, b"changed", 131_070)
        assert os.pread(fd, 9, 131_069) == BASE[131_069:131_070] + b"changed" + BASE[131_077:131_078]
        os.lseek(fd, -3, os.SEEK_END)
        assert os.read(fd, 10) == BASE[-3:]
    assert here.stored_data("file") == BASE[:131_070] + b"changed" + BASE[131_077:]


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC, os.O_NOATIME, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_CLOEXEC])
def test_other_flags_do_no_harm(here: Place, flag: int) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR | flag) as fd:
        os.write(fd, b"0123456789")
        os.pwrite(fd, b"ab", 3)
        assert os.pread(fd, 20, 0) == b"012ab56789"
    assert here.stored_data("file") == b"012ab56789"


def test_a_file_is_written_and_read_past_the_page_cache(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT) as fd:
        write_fully(fd, BASE, 0)
        write_fully(fd, b"at an odd place", 200_001)
        expected = BASE[:200_001] + b"at an odd place" + BASE[200_016:]
        assert pread_fully(fd, 0, len(BASE)) == expected
        with opened(here / "file", os.O_RDONLY) as cached:
            assert pread_fully(cached, 0, len(BASE)) == expected
    assert here.stored_data("file") == expected


def test_the_mode_and_the_umask_of_a_new_file_count(here: Place) -> None:
    # In a process of its own: a umask is a whole process's.
    python(
        "import os, sys\nos.umask(0o027)\nos.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o666))\n"
        "os.close(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY, 0o750))",
        here / "plain",
        here / "program",
    )
    assert stat.S_IMODE((here / "plain").stat().st_mode) == 0o640
    assert stat.S_IMODE((here / "program").stat().st_mode) == 0o750


def test_a_file_created_read_only_can_be_written_by_who_created_it(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444) as fd:
        os.write(fd, b"written")
    assert here.stored_data("file") == b"written"


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", [0, 4 * KIB, 128 * KIB, 256 * KIB, len(BASE)])
def test_writes_around_a_boundary_change_exactly_those_bytes(here: Place, boundary: int) -> None:
    expected = bytearray(BASE)
    (here / "file").write_bytes(BASE)
    with opened(here / "file", os.O_RDWR) as fd:
        for number, more in enumerate((-131_073, -4097, -1, 0, 1, 13)):
            offset = max(0, boundary + more)
            for size in (1, 4097, 131_073):
                data = some_bytes(size, number + 1)
                write_fully(fd, data, offset)
                expected[offset : offset + size] = data
            assert pread_fully(fd, 0, MIB) == expected, more
    assert here.stored_data("file") == expected


def test_what_is_left_out_reads_as_zeros(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"an island", MIB + 5)
        assert os.fstat(fd).st_size == MIB + 14
        assert pread_fully(fd, 0, 2 * MIB) == bytes(MIB + 5) + b"an island"
        os.pwrite(fd, b"another", 2 * MIB)
        os.pwrite(fd, b"start", 0)
        expected = b"start" + bytes(MIB) + b"an island" + bytes(MIB - 14) + b"another"
        assert pread_fully(fd, 0, 3 * MIB) == expected
    assert here.stored_data("file") == expected


def test_writing_beyond_the_end_of_a_stored_file_leaves_a_hole(here: Place) -> None:
    (here / "file").write_bytes(b"the beginning")
    with opened(here / "file", os.O_WRONLY) as fd:
        os.pwrite(fd, b"the end", 200_000)
    expected = b"the beginning" + bytes(200_000 - 13) + b"the end"
    assert here.stored_data("file") == expected
    assert (here / "file").read_bytes() == expected


def test_seek_finds_no_hole_where_there_is_data(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"x" * 4096, MIB)
        # A filesystem need not know of holes: what it must not do is to take data for one.
        assert os.lseek(fd, 0, os.SEEK_DATA) <= MIB
        assert os.lseek(fd, MIB, os.SEEK_DATA) == MIB
        assert os.lseek(fd, MIB, os.SEEK_HOLE) == MIB + 4096
        with fails_with(errno.ENXIO):
            os.lseek(fd, MIB + 4096, os.SEEK_DATA)


@pytest.mark.parametrize("seed", range(2))
def test_random_operations_on_one_file_give_what_they_give_in_memory(here: Place, seed: int) -> None:
    dice = random.Random(seed)
    model = bytearray()
    handles = [os.open(here / "file", os.O_CREAT | os.O_RDWR) for _ in range(2)]
    try:
        for step in range(60):
            fd = handles[dice.randrange(2)]
            match dice.choice(["write", "write", "read", "read", "truncate", "path", "append", "sync", "reopen"]):
                case "write":
                    offset, data = dice.randrange(400_000), some_bytes(dice.choice([1, 100, 5000, 140_000]), step)
                    write_fully(fd, data, offset)
                    model.extend(bytes(max(0, offset + len(data) - len(model))))
                    model[offset : offset + len(data)] = data
                case "read":
                    offset, size = dice.randrange(500_000), dice.randrange(1, 200_000)
                    assert pread_fully(fd, offset, size) == model[offset : offset + size], step
                case "truncate" | "path" as how:
                    length = dice.randrange(500_000)
                    os.truncate(fd if how == "truncate" else here / "file", length)
                    del model[length:]
                    model.extend(bytes(length - len(model)))
                case "append":
                    with (here / "file").open("ab") as file:
                        file.write(b"appended %d" % step)
                    model += b"appended %d" % step
                case "sync":
                    os.fsync(fd)
                    assert here.stored_data("file") == model, step
                case "reopen":
                    handles.remove(fd)
                    os.close(fd)
                    assert here.stored_data("file") == model, step
                    handles.append(os.open(here / "file", os.O_RDWR))
            assert os.fstat(handles[0]).st_size == len(model), step
    finally:
        for fd in handles:
            os.close(fd)
    assert here.stored_data("file") == model


def test_vectored_writes_and_copies_within_the_kernel_arrive(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        parts = [some_bytes(size) for size in (1, 4095, 130_000, 3)]
        assert os.pwritev(fd, parts, 5) == sum(map(len, parts))
    expected = bytes(5) + b"".join(parts)
    assert here.stored_data("file") == expected
    with opened(here / "file") as source, opened(here / "sent", os.O_CREAT | os.O_WRONLY) as target:
        done = 0
        while more := os.sendfile(target, source, done, 1 << 20):
            done += more
    with opened(here / "file") as source, opened(here / "copied", os.O_CREAT | os.O_WRONLY) as target:
        while os.copy_file_range(source, target, 1 << 20):
            pass
    with opened(here / "file") as source, opened(here / "part", os.O_CREAT | os.O_WRONLY) as target:
        assert os.copy_file_range(source, target, 1000, 4000, 77) == 1000
    assert here.stored_data("sent") == here.stored_data("copied") == expected
    assert here.stored_data("part") == bytes(77) + expected[4000:5000]


def test_a_large_file_written_in_order_arrives_whole(here: Place) -> None:
    block = some_bytes(MIB)
    with opened(here / "large", os.O_CREAT | os.O_WRONLY) as fd:
        for number in range(24):
            write_fully(fd, number.to_bytes(8, "big") + block[8:], number * MIB)
        # Behind what may be on its way already.
        write_fully(fd, b"changed later", 3 * MIB)
    expected = bytearray(b"".join(number.to_bytes(8, "big") + block[8:] for number in range(24)))
    expected[3 * MIB : 3 * MIB + 13] = b"changed later"
    assert here.stored_data("large") == expected
    assert (here / "large").read_bytes() == expected


def test_many_files_written_at_once_all_arrive(here: Place) -> None:
    def write(number: int) -> None:
        (here / f"file {number:02}").write_bytes(some_bytes(1000 + number, number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))
    assert here.stored() == {b"file %02d" % number: some_bytes(1000 + number, number) for number in range(40)}


# --- appending -------------------------------------------------------------------------------------------------------


def test_appending_goes_to_the_end_whatever_the_position(here: Place) -> None:
    (here / "file").write_bytes(b"first")
    with opened(here / "file", os.O_WRONLY | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b" second")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b" third")
    assert here.stored_data("file") == b"first second third"


def test_two_appenders_of_one_process_never_overwrite_each_other(here: Place) -> None:
    expected = b""
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(opened(here / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)) for _ in range(2))
        for number in range(30):
            for name, fd in ((b"one", one), (b"two", two)):
                line = name + b" %d\n" % number
                os.write(fd, line)
                expected += line
    assert here.stored_data("log") == expected


APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for number in range(100):
    os.write(fd, b"%s %d\\n" % (sys.argv[2].encode() * 20, number))
os.close(fd)
"""


def test_two_appending_processes_lose_no_line(here: Place) -> None:
    (here / "log").write_bytes(b"")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda name: python(APPENDER, here / "log", name), "ab"))
    lines = here.stored_data("log").decode().splitlines()
    assert len(lines) == 200
    for name in "ab":
        assert [line for line in lines if name in line] == [f"{name * 20} {number}" for number in range(100)]


def test_an_appender_goes_on_at_the_end_that_another_handle_cut(here: Place) -> None:
    with (
        opened(here / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND) as appender,
        opened(here / "log", os.O_RDWR) as other,
    ):
        os.write(appender, b"0123456789")
        os.ftruncate(other, 4)
        os.write(appender, b"after")
        assert os.pread(other, 100, 0) == b"0123after"
        os.truncate(here / "log", 1)
        os.write(appender, b"end")
        os.ftruncate(other, 6)
        os.write(appender, b"!")
        assert os.pread(other, 100, 0) == b"0end\0\0!"
    assert here.stored_data("log") == b"0end\0\0!"


def test_each_close_of_an_appender_stores_what_came(here: Place) -> None:
    expected = b""
    for number in range(5):
        with (here / "log").open("ab") as file:
            file.write(b"line %d\n" % number)
        expected += b"line %d\n" % number
        assert here.stored_data("log") == expected


def test_what_is_appended_to_a_large_object_goes_out_alone(cloud: Place) -> None:
    base = some_bytes(9 * MIB)
    (cloud / "log").write_bytes(base)
    cloud.requests.forget_requests()
    with (cloud / "log").open("ab") as file:
        file.write(b"one more line\n")
    assert cloud.requests.count(kind="compose") == 1
    assert sum(request.size for request in cloud.requests.requests) < MIB
    assert cloud.requests.count(kind="media") == 0
    assert cloud.stored_data("log") == base + b"one more line\n"
    assert (cloud / "log").read_bytes() == base + b"one more line\n"


# --- truncating and allocating ---------------------------------------------------------------------------------------

LENGTHS = [0, 1, 4096, 131_071, 131_072, 131_073, len(BASE) - 1, len(BASE), len(BASE) + 1, len(BASE) + MIB]


@pytest.mark.parametrize("length", LENGTHS)
def test_truncate_cuts_and_extends_with_zeros(here: Place, length: int) -> None:
    expected = BASE[:length] + bytes(max(0, length - len(BASE)))
    for name in ("by path", "by descriptor"):
        (here / name).write_bytes(BASE)
    os.truncate(here / "by path", length)
    assert here.stored_data("by path") == expected
    with opened(here / "by descriptor", os.O_RDWR) as fd:
        os.ftruncate(fd, length)
        assert os.fstat(fd).st_size == length
        assert pread_fully(fd, 0, 2 * MIB) == expected
    assert here.stored_data("by descriptor") == expected


def test_what_was_cut_off_does_not_come_back(here: Place) -> None:
    (here / "file").write_bytes(BASE)
    with opened(here / "file", os.O_RDWR) as fd:
        os.ftruncate(fd, 1000)
        os.ftruncate(fd, 200_000)
        assert pread_fully(fd, 0, MIB) == BASE[:1000] + bytes(199_000)
        os.ftruncate(fd, 500)
        os.pwrite(fd, b"x", 150_000)
        assert pread_fully(fd, 0, MIB) == BASE[:500] + bytes(149_500) + b"x"
    assert here.stored_data("file") == BASE[:500] + bytes(149_500) + b"x"


def test_truncate_says_what_cannot_be_cut(here: Place) -> None:
    (here / "folder").mkdir()
    (here / "file").write_bytes(b"123")
    with fails_with(errno.EISDIR):
        os.truncate(here / "folder", 0)
    with fails_with(errno.ENOENT):
        os.truncate(here / "nothing", 0)
    with fails_with(errno.EINVAL):
        os.truncate(here / "file", -1)
    assert here.stored_data("file") == b"123"


def test_allocating_extends_a_file_and_changes_no_byte(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"0123456789")
        fallocate(fd, 0, 0, 5)
        assert os.fstat(fd).st_size == 10
        fallocate(fd, 0, 4, 300_000)
        assert os.fstat(fd).st_size == 300_004
        assert pread_fully(fd, 0, MIB) == b"0123456789" + bytes(299_994)
        os.posix_fallocate(fd, 300_000, 1000)
        with fails_with(errno.EINVAL):
            fallocate(fd, 0, 0, 0)
    assert here.stored_data("file") == b"0123456789" + bytes(300_990)


def test_punching_a_hole_works_as_in_the_source_and_is_refused_in_the_cloud(here: Place) -> None:
    (here / "file").write_bytes(BASE)
    with opened(here / "file", os.O_RDWR) as fd:
        if here.in_cloud:
            for mode in (PUNCH_HOLE | KEEP_SIZE, KEEP_SIZE):
                with fails_with(errno.ENOTSUP):
                    fallocate(fd, mode, 4096, 8192)
            expected = BASE
        else:
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 4096, 8192)
            fallocate(fd, KEEP_SIZE, 0, MIB)
            expected = BASE[:4096] + bytes(8192) + BASE[12_288:]
        with fails_with(errno.EOPNOTSUPP):
            fallocate(fd, COLLAPSE_RANGE, 0, 4096)
        assert pread_fully(fd, 0, MIB) == expected
    assert here.stored_data("file") == expected


# --- several handles, dup, fsync -------------------------------------------------------------------------------------


def test_two_handles_on_one_file_see_each_others_writes(here: Place) -> None:
    (here / "file").write_bytes(BASE)
    with opened(here / "file", os.O_RDWR) as one, opened(here / "file", os.O_RDWR) as two:
        for step, (writer, reader) in enumerate([(one, two), (two, one)] * 5):
            at = step * 30_000
            os.pwrite(writer, b"step %d" % step, at)
            assert os.pread(reader, 6, at) == b"step %d" % step
        os.ftruncate(one, 10)
        assert os.fstat(two).st_size == 10
        assert os.pread(two, 100, 0) == b"step 0" + BASE[6:10]
        os.pwrite(two, b"grown", 20)
        assert os.pread(one, 100, 0) == b"step 0" + BASE[6:10] + bytes(10) + b"grown"


def test_a_reader_sees_what_is_written_while_it_has_the_file_open(here: Place) -> None:
    (here / "file").write_bytes(b"old")
    with opened(here / "file") as reader, opened(here / "file", os.O_WRONLY) as writer:
        assert os.pread(reader, 10, 0) == b"old"
        os.pwrite(writer, b"newer", 0)
        assert os.pread(reader, 10, 0) == b"newer"
    assert (here / "file").read_bytes() == b"newer"


def test_each_close_of_a_duplicated_descriptor_stores_what_is_dirty(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"one")
        os.close(os.dup(fd))
        assert here.stored_data("file") == b"one"
        os.write(fd, b" two")
        os.close(os.dup(fd))
        os.close(os.dup(fd))
        assert here.stored_data("file") == b"one two"
        os.write(fd, b" three")
    assert here.stored_data("file") == b"one two three"


def test_a_subshell_that_shares_a_descriptor_stores_what_it_wrote(here: Place) -> None:
    run("sh", "-c", '{ echo one; (echo two); echo three | cat; } > "$1"', "sh", here / "file")
    assert here.stored_data("file") == b"one\ntwo\nthree\n"


def test_closing_a_clean_file_costs_no_request(cloud: Place) -> None:
    (cloud / "file").write_bytes(b"stored")
    cloud.requests.forget_requests()
    with opened(cloud / "file", os.O_RDWR) as fd:
        for _ in range(3):
            os.close(os.dup(fd))
        os.fsync(fd)
    assert [str(request) for request in cloud.requests.requests if request.method != "GET"] == []


def test_a_new_small_file_costs_one_request(cloud: Place) -> None:
    cloud.requests.forget_requests()
    (cloud / "file").write_bytes(b"small")
    assert [request.kind for request in cloud.requests.requests] == ["upload"]
    cloud.requests.forget_requests()
    (cloud / "file").write_bytes(b"small again")
    assert [request.kind for request in cloud.requests.requests] == ["upload"]


CONDITIONS = {
    **{kind: {"ifGenerationMatch"} for kind in ("upload", "start", "delete", "compose", "rewrite")},
    "patch": {"ifGenerationMatch", "ifMetagenerationMatch"},
}


def test_whatever_changes_a_file_in_the_cloud_names_the_version_that_it_may_change(cloud: Place) -> None:
    cloud.requests.forget_requests()
    path = cloud / "file"
    path.write_bytes(some_bytes(9 * MIB))
    with path.open("ab") as file:
        file.write(b"appended")
    os.chmod(path, 0o640)
    os.utime(path, ns=(10**18, 10**18))
    put(path, "labels", "a")
    path.write_bytes(b"overwritten")
    os.rename(path, cloud / "moved")
    (cloud / "other").write_bytes(b"x")
    os.rename(cloud / "moved", cloud / "other")
    (cloud / "folder").mkdir()
    os.rename(cloud / "other", cloud / "folder" / "deep")
    os.rename(cloud / "folder", cloud / "renamed")
    os.unlink(cloud / "renamed" / "deep")
    changing = [it for it in cloud.requests.requests if not it.name.endswith(("/", ".octue"))]
    assert {"upload", "start", "compose", "patch", "rewrite", "delete"} <= {it.kind for it in changing}
    assert [str(it) for it in changing if not CONDITIONS.get(it.kind, set()) <= set(it.query)] == []


@pytest.mark.parametrize("sync", [os.fsync, os.fdatasync])
def test_what_was_synchronised_is_in_the_store_while_the_file_is_open(here: Place, sync: Callable[[int], None]) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"first")
        sync(fd)
        assert here.stored_data("file") == b"first"
        os.write(fd, b" second")
        os.pwrite(fd, b"F", 0)
        sync(fd)
        assert here.stored_data("file") == b"First second"
        sync(fd)
    with opened(here / "file") as reader:
        sync(reader)


def test_a_folder_can_be_synchronised(here: Place) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "file").write_bytes(b"x")
    for folder in ("", "folder"):
        here.sync(folder)
    run("sync", here.folder, here / "folder", here / "folder" / "file")
    run("sync", "-f", here / "folder" / "file")


def test_a_write_to_a_full_pipe_of_uploads_never_mixes_versions(here: Place) -> None:
    """A reader that opens while another rewrites sees one version or the other, from close to open."""
    versions = [bytes([number]) * (50_000 + number) for number in range(1, 6)]
    (here / "file").write_bytes(versions[0])
    for version in versions:
        with (here / "file.new").open("wb") as file:
            file.write(version)
        os.replace(here / "file.new", here / "file")
        assert (here / "file").read_bytes() == version
    assert here.stored() == {b"file": versions[-1]}


# --- removed or renamed while open -----------------------------------------------------------------------------------


def test_a_file_that_is_removed_while_open_goes_on_without_a_name(here: Place) -> None:
    (here / "file").write_bytes(b"0123456789")
    with opened(here / "file", os.O_RDWR) as fd:
        os.unlink(here / "file")
        assert os.listdir(here.folder) == []
        assert here.stored() == {}
        assert os.pread(fd, 20, 0) == b"0123456789"
        os.pwrite(fd, b"ab", 5)
        assert os.pread(fd, 20, 0) == b"01234ab789"
        assert os.lseek(fd, 0, os.SEEK_END) in (10, 12)
        os.ftruncate(fd, 6)
        assert os.pread(fd, 20, 0) == b"01234a"
        os.fsync(fd)
        assert not os.path.lexists(here / "file")
    assert here.stored() == {}
    assert os.listdir(here.folder) == []


def test_fstat_of_a_removed_open_file_is_right_or_over_libfuse_enoent(here: Place, driver: str) -> None:
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"0123")
        os.unlink(here / "file")
        try:
            at = os.fstat(fd)
        except FileNotFoundError:
            assert driver == "libfuse"
        else:
            assert (at.st_size, at.st_nlink) == (4, 0)


def test_a_new_file_that_is_removed_before_it_is_closed_never_reaches_the_store(here: Place) -> None:
    if here.in_cloud:
        here.requests.forget_requests()
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"secret")
        os.unlink(here / "file")
        os.write(fd, b" more")
        assert os.pread(fd, 100, 0) == b"secret more"
    assert here.stored() == {}
    if here.in_cloud:
        assert here.requests.count(kind="upload") == here.requests.count(kind="send") == 0


def test_a_name_can_be_used_again_while_the_removed_file_is_open(here: Place) -> None:
    (here / "file").write_bytes(b"the old one")
    with opened(here / "file", os.O_RDWR) as old:
        os.unlink(here / "file")
        (here / "file").write_bytes(b"the new one")
        os.pwrite(old, b"THE", 0)
        assert os.pread(old, 100, 0) == b"THE old one"
        assert (here / "file").read_bytes() == b"the new one"
    assert here.stored() == {b"file": b"the new one"}


def test_a_file_that_is_replaced_while_open_stays_what_it_was_to_who_has_it_open(here: Place) -> None:
    (here / "file").write_bytes(BASE)
    (here / "other").write_bytes(b"the other")
    with opened(here / "file", os.O_RDWR) as old:
        os.rename(here / "other", here / "file")
        assert pread_fully(old, 0, MIB) == BASE
        os.pwrite(old, b"into the void", 0)
        assert (here / "file").read_bytes() == b"the other"
    assert here.stored() == {b"file": b"the other"}


def test_a_file_that_is_renamed_while_open_is_written_under_its_new_name(here: Place) -> None:
    (here / "folder").mkdir()
    with opened(here / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"before")
        os.rename(here / "file", here / "folder" / "moved")
        os.write(fd, b" after")
        assert os.fstat(fd).st_size == 12
        assert not os.path.lexists(here / "file")
        assert (here / "folder" / "moved").read_bytes() == b"before after"
    assert here.stored() == {b"folder/moved": b"before after"}


def test_a_folder_that_is_renamed_while_a_file_in_it_is_open_takes_it_along(here: Place) -> None:
    (here / "old" / "deep").mkdir(parents=True)
    (here / "old" / "deep" / "stored").write_bytes(b"stored")
    with opened(here / "old" / "deep" / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"before")
        os.rename(here / "old", here / "new")
        os.write(fd, b" after")
        assert os.pread(fd, 100, 0) == b"before after"
    assert here.stored() == {b"new/deep/file": b"before after", b"new/deep/stored": b"stored"}


# --- renaming --------------------------------------------------------------------------------------------------------


def test_a_file_is_renamed_within_and_between_folders(here: Place) -> None:
    (here / "folder").mkdir()
    (here / "a").write_bytes(BASE)
    os.rename(here / "a", here / "b")
    assert here.stored() == {b"b": BASE}
    os.rename(here / "b", here / "folder" / "c")
    assert here.stored() == {b"folder/c": BASE}
    assert (here / "folder" / "c").read_bytes() == BASE
    with fails_with(errno.ENOENT):
        os.rename(here / "b", here / "x")
    with fails_with(errno.ENOENT):
        os.rename(here / "folder" / "c", here / "nowhere" / "c")
    with fails_with(errno.ENOTDIR):
        os.rename(here / "folder" / "c", here / "folder" / "c" / "d")


def test_a_rename_keeps_mode_times_and_inode(here: Place) -> None:
    (here / "a").write_bytes(b"x")
    os.chmod(here / "a", 0o640)
    os.utime(here / "a", ns=(1_111_111_111_000_000_000, 1_222_222_222_123_456_789))
    before = (here / "a").stat()
    os.rename(here / "a", here / "b")
    after = (here / "b").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)
    if not here.in_cloud:
        assert after.st_ino == before.st_ino


def test_a_rename_over_a_file_replaces_it(here: Place) -> None:
    (here / "a").write_bytes(b"the new content")
    (here / "b").write_bytes(b"old")
    os.rename(here / "a", here / "b")
    assert os.listdir(here.folder) == ["b"]
    assert here.stored() == {b"b": b"the new content"}
    assert (here / "b").read_bytes() == b"the new content"


def test_a_rename_onto_itself_changes_nothing(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    (here / "folder").mkdir()
    os.rename(here / "file", here / "file")
    os.rename(here / "folder", here / "folder")
    assert here.stored() == {b"file": b"x"}


def test_a_rename_that_cannot_be_says_why(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    (here / "empty").mkdir()
    (here / "full").mkdir()
    (here / "full" / "inner").write_bytes(b"y")
    for old, new, number in (
        ("full", "full/below", errno.EINVAL),
        ("file", "empty", errno.EISDIR),
        ("empty", "file", errno.ENOTDIR),
        ("empty", "full", errno.ENOTEMPTY),
        ("full", "file/x", errno.ENOTDIR),
    ):
        with fails_with(number):
            os.rename(here / old, here / new)
    assert here.stored() == {b"file": b"x", b"full/inner": b"y"}


def test_a_folder_is_renamed_with_all_below_it(here: Place) -> None:
    files = {
        f"{folder}file {number}": some_bytes(100, number) for number in range(4) for folder in ("", "sub/", "s/t/")
    }
    for path, data in files.items():
        (here / "old" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "old" / path).write_bytes(data)
    (here / "old" / "empty" / "too").mkdir(parents=True)
    os.rename(here / "old", here / "new")
    assert here.stored() == {os.fsencode(f"new/{path}"): data for path, data in files.items()}
    assert contents(here / "new") == {
        **{os.fsencode(path): data for path, data in files.items()},
        **dict.fromkeys((b"sub", b"s", b"s/t", b"empty", b"empty/too"), stat.S_IFDIR),
    }
    assert os.listdir(here.folder) == ["new"]
    assert here.workplace.stored_folders(here.name) >= {"new/empty/too"}


def test_a_folder_takes_the_place_of_an_empty_one(here: Place) -> None:
    (here / "a").mkdir()
    (here / "a" / "file").write_bytes(b"x")
    (here / "b").mkdir()
    os.rename(here / "a", here / "b")
    assert os.listdir(here.folder) == ["b"]
    assert here.stored() == {b"b/file": b"x"}


def test_noreplace_is_eexist_over_anything_and_einval_else_over_libfuse_which_has_no_flags(
    here: Place, driver: str
) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    with fails_with(errno.EEXIST):
        renameat2(here / "a", here / "b", RENAME_NOREPLACE)
    with fails_with(errno.EINVAL):
        renameat2(here / "a", here / "b", RENAME_EXCHANGE)
    if driver == "libfuse":
        with fails_with(errno.EINVAL):
            renameat2(here / "a", here / "c", RENAME_NOREPLACE)
    else:
        renameat2(here / "a", here / "c", RENAME_NOREPLACE)
        assert here.stored() == {b"c": b"a", b"b": b"b"}
        renameat2(here / "c", here / "a", RENAME_NOREPLACE)
    assert here.stored() == {b"a": b"a", b"b": b"b"}
    run("mv", "--no-clobber", here / "a", here / "c")
    assert here.stored() == {b"c": b"a", b"b": b"b"}


def test_files_swap_names_through_a_third(here: Place) -> None:
    (here / "a").write_bytes(b"was a")
    (here / "b").write_bytes(b"was b, and longer")
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        os.rename(here / old, here / new)
        assert not os.path.lexists(here / old)
    assert (here / "a").read_bytes() == b"was b, and longer"
    assert here.stored() == {b"a": b"was b, and longer", b"b": b"was a"}


def test_a_rename_in_the_cloud_sends_no_bytes(cloud: Place) -> None:
    (cloud / "a").write_bytes(BASE)
    cloud.requests.forget_requests()
    os.rename(cloud / "a", cloud / "b")
    assert cloud.requests.count(kind="media") == 0
    assert sum(request.size for request in cloud.requests.requests) < 10_000


# --- folders, unlinking ----------------------------------------------------------------------------------------------


def test_folders_are_made_and_removed(here: Place) -> None:
    (here / "a" / "b").mkdir(parents=True)
    assert (here / "a").stat().st_mode & stat.S_IFDIR
    assert os.listdir(here / "a") == ["b"]
    assert here.workplace.stored_folders(here.name) >= {"a/b"}
    for path, number in (("a", errno.EEXIST), ("nowhere/x", errno.ENOENT)):
        with fails_with(number):
            os.mkdir(here / path)
    with fails_with(errno.ENOTEMPTY):
        os.rmdir(here / "a")
    os.rmdir(here / "a" / "b")
    os.rmdir(here / "a")
    assert os.listdir(here.folder) == []
    assert not {"a", "a/b"} & here.workplace.stored_folders(here.name)


def test_removing_the_wrong_kind_or_nothing_says_so(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    (here / "folder").mkdir()
    for remove, path, number in (
        (os.unlink, "folder", errno.EISDIR),
        (os.rmdir, "file", errno.ENOTDIR),
        (os.unlink, "nothing", errno.ENOENT),
        (os.rmdir, "nothing", errno.ENOENT),
        (os.unlink, "file/x", errno.ENOTDIR),
        (os.mkdir, "file", errno.EEXIST),
        (os.mkdir, "file/x", errno.ENOTDIR),
    ):
        with fails_with(number):
            remove(here / path)
    assert here.stored() == {b"file": b"x"}


def test_a_removed_file_is_gone_at_once_everywhere(here: Place) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    os.unlink(here / "a")
    assert os.listdir(here.folder) == ["b"]
    assert not os.path.lexists(here / "a")
    assert here.stored() == {b"b": b"b"}
    with fails_with(errno.ENOENT):
        (here / "a").read_bytes()


def test_a_tree_is_removed_with_rm_r(here: Place) -> None:
    for number in range(6):
        (here / "tree" / f"{number % 2}" / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (here / "tree" / f"{number % 2}" / f"{number % 3}" / f"{number}").write_bytes(b"x")
    run("rm", "-r", here / "tree")
    assert os.listdir(here.folder) == []
    assert here.stored() == {}
    assert not here.workplace.stored_folders(here.name)


def test_a_folder_that_loses_its_last_file_stays(here: Place) -> None:
    here.workplace.put(here.path("implicit/deep/file"), b"x")
    os.unlink(here / "implicit" / "deep" / "file")
    assert os.listdir(here / "implicit") == ["deep"]
    assert os.listdir(here / "implicit" / "deep") == []
    here.workplace.refresh()
    assert os.listdir(here / "implicit" / "deep") == []
    (here / "implicit" / "deep" / "again").write_bytes(b"y")
    os.rename(here / "implicit" / "deep" / "again", here / "away")
    assert os.listdir(here / "implicit" / "deep") == []
    os.rmdir(here / "implicit" / "deep")
    assert os.listdir(here / "implicit") == []
    os.rmdir(here / "implicit")
    assert here.stored() == {b"away": b"y"}


def test_folders_that_only_names_of_objects_imply_are_as_good_as_others(cloud: Place) -> None:
    cloud.workplace.put(cloud.path("implied/sub/file"), b"x")
    with fails_with(errno.EEXIST):
        os.mkdir(cloud / "implied")
    with fails_with(errno.ENOTEMPTY):
        os.rmdir(cloud / "implied")
    (cloud / "implied" / "new").write_bytes(b"y")
    os.rename(cloud / "implied" / "sub", cloud / "moved")
    os.rename(cloud / "implied", cloud / "renamed")
    assert cloud.stored() == {b"moved/file": b"x", b"renamed/new": b"y"}


def test_empty_folders_and_all_else_are_there_after_a_remount(here: Place) -> None:
    (here / "empty" / "inner").mkdir(parents=True)
    (here / "file").write_bytes(b"x")
    os.chmod(here / "file", 0o640)
    os.utime(here / "file", ns=(10**18, 10**18 + 123_456_789))
    with here.workplace.mounted_again("--read-only") as again:
        assert os.listdir(again.root / here.name / "empty" / "inner") == []
        at = (again.root / here.name / "file").stat()
        assert (stat.S_IMODE(at.st_mode), at.st_mtime_ns) == (0o640, 10**18 + 123_456_789)
        assert (again.root / here.name / "file").read_bytes() == b"x"


# --- mode, owner, times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o440, 0o000])
def test_a_mode_is_kept(here: Place, mode: int) -> None:
    (here / "file").write_bytes(b"x")
    os.chmod(here / "file", mode)
    assert stat.S_IMODE((here / "file").stat().st_mode) == mode
    if here.in_cloud:
        assert here.object("file")["metadata"]["goog-reserved-posix-mode"] == format(mode, "o")
    else:
        assert stat.S_IMODE((here.source_folder / "file").stat().st_mode) == mode
    if mode & stat.S_IWUSR:
        (here / "file").write_bytes(b"written again")
        assert stat.S_IMODE((here / "file").stat().st_mode) == mode
    os.chmod(here / "file", 0o644)


def test_a_folders_mode_can_be_set(here: Place) -> None:
    (here / "folder").mkdir()
    os.chmod(here / "folder", 0o750)
    assert stat.S_IMODE((here / "folder").stat().st_mode) == 0o750


def test_fchmod_while_writing_is_kept(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.fchmod(fd, 0o750)
        os.write(fd, b"x")
    assert stat.S_IMODE((here / "file").stat().st_mode) == 0o750
    if here.in_cloud:
        assert here.object("file")["metadata"]["goog-reserved-posix-mode"] == "750"


def test_chown_to_the_present_owner_succeeds(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    (here / "folder").mkdir()
    for name in ("file", "folder"):
        at = (here / name).stat()
        os.chown(here / name, at.st_uid, at.st_gid)
        os.chown(here / name, -1, -1)
        os.chown(here / name, at.st_uid, -1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_chown_to_another_owner_is_the_disks_to_do_and_eperm_in_the_cloud(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    if here.in_cloud:
        for uid, gid in ((12_345, -1), (-1, 12_345), (12_345, 12_345)):
            with fails_with(errno.EPERM):
                os.chown(here / "file", uid, gid)
    else:
        os.chown(here / "file", 12_345, 23_456)
        for path in (here / "file", here.source_folder / "file"):
            assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 23_456)


def test_times_are_set_to_the_nanosecond(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    for mtime in (1_222_222_222_987_654_321, 0, 1, 4_000_000_000_000_000_001):
        os.utime(here / "file", ns=(1_111_111_111_123_456_789, mtime))
        assert (here / "file").stat().st_mtime_ns == mtime
    if not here.in_cloud:
        at = (here.source_folder / "file").stat()
        assert (at.st_atime_ns, at.st_mtime_ns) == (1_111_111_111_123_456_789, 4_000_000_000_000_000_001)


def test_one_time_can_be_set_to_now_and_the_other_left(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    os.utime(here / "file", ns=(10**18, 10**18))
    utimensat(here / "file", (0, UTIME_NOW), (0, UTIME_OMIT))
    assert (here / "file").stat().st_mtime_ns == 10**18
    before = time.time()
    utimensat(here / "file", (0, UTIME_OMIT), (0, UTIME_NOW))
    assert before - 1 <= (here / "file").stat().st_mtime <= time.time() + 1
    if not here.in_cloud:
        assert (here.source_folder / "file").stat().st_atime_ns > 10**18
    utimensat(here / "file", (5, 7), (0, UTIME_OMIT))
    assert (here / "file").stat().st_mtime >= before - 1
    utimensat(here / "file", (0, UTIME_OMIT), (11, 13))
    assert (here / "file").stat().st_mtime_ns == 11_000_000_013


def test_a_time_set_before_close_is_the_files_time(here: Place) -> None:
    with opened(here / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"x")
        os.utime(fd, ns=(10**18, 10**18 + 5))
    assert (here / "file").stat().st_mtime_ns == 10**18 + 5
    if here.in_cloud:
        assert here.object("file")["metadata"]["goog-reserved-file-mtime"] == "1000000000.000000005"


def test_writing_later_makes_the_file_new_again(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    os.utime(here / "file", ns=(10**18, 10**18))
    with (here / "file").open("ab") as file:
        file.write(b"more")
    assert abs((here / "file").stat().st_mtime - time.time()) < 30


def test_times_of_a_folder_can_be_set(here: Place) -> None:
    (here / "folder").mkdir()
    os.utime(here / "folder", ns=(10**18, 10**18))
    if not here.in_cloud:
        assert (here / "folder").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("change", ["label", "mode"])
def test_metadata_change_the_ctime_only(here: Place, change: str) -> None:
    (here / "file").write_bytes(b"x")
    before = (here / "file").stat()
    time.sleep(0.02)
    if change == "label":
        put(here / "file", "labels", "a")
    else:
        os.chmod(here / "file", 0o600)
    after = (here / "file").stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    # What stands beside a file on a disk does not touch the file.
    assert (after.st_ctime_ns > before.st_ctime_ns) or (change == "label" and not here.in_cloud)


def test_setuid_and_setgid_go_when_a_file_is_written_also_by_root(here: Place) -> None:
    for name in ("written", "truncated"):
        path = here / name
        path.write_bytes(b"program")
        os.chmod(path, 0o6755)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6755
        if name == "truncated":
            os.truncate(path, 1)
        else:
            with path.open("ab") as file:
                file.write(b"x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        if not here.in_cloud:
            assert stat.S_IMODE((here.source_folder / path.name).stat().st_mode) == 0o755


def test_blocks_are_the_sources_or_the_size_rounded_up_in_the_cloud(here: Place) -> None:
    for size in (0, 1, 511, 512, 513, 100_000):
        (here / f"{size}").write_bytes(b"x" * size)
        at = (here / f"{size}").stat()
        assert at.st_size == size
        if here.in_cloud:
            assert at.st_blocks == -(-size // 512)
        else:
            assert at.st_blocks == (here.source_folder / f"{size}").stat().st_blocks


def test_the_free_space_is_that_of_the_disk_that_is_written_to(here: Place) -> None:
    shown = os.statvfs(here.folder)
    disk = os.statvfs(state_folder() if here.in_cloud else here.source_folder)
    assert shown.f_namemax == 255
    assert abs(shown.f_bavail * shown.f_frsize - disk.f_bavail * disk.f_frsize) < disk.f_blocks * disk.f_frsize / 10


# --- links and other kinds -------------------------------------------------------------------------------------------


def test_symbolic_links_are_made(disk: Place) -> None:
    (disk / "file").write_bytes(b"content")
    (disk / "folder").mkdir()
    for link, target in (("to file", "file"), ("folder/up", "../file"), ("dangling", "nowhere"), ("abs", "/etc/hosts")):
        os.symlink(target, disk / link)
        assert os.readlink(disk / link) == target
        assert os.readlink(disk.source_folder / link) == target
    assert (disk / "to file").read_bytes() == b"content"
    (disk / "to file").write_bytes(b"written through the link")
    assert (disk / "file").read_bytes() == b"written through the link"
    with fails_with(errno.EEXIST):
        os.symlink("x", disk / "file")
    with fails_with(errno.ELOOP):
        os.open(disk / "to file", os.O_WRONLY | os.O_NOFOLLOW)
    with fails_with(errno.EEXIST):
        os.open(disk / "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.rename(disk / "to file", disk / "renamed")
    os.unlink(disk / "dangling")
    assert os.readlink(disk / "renamed") == "file"
    assert disk.stored_data("file") == b"written through the link"
    with fails_with(errno.EPERM):
        os.setxattr(disk / "renamed", "user.octue.labels", b"a", follow_symlinks=False)
    os.utime(disk / "renamed", ns=(5, 7), follow_symlinks=False)
    assert os.lstat(disk / "renamed").st_mtime_ns == 7


def test_hard_links_are_one_file(disk: Place) -> None:
    (disk / "a").write_bytes(b"one")
    os.link(disk / "a", disk / "b")
    assert eventually(lambda: (disk / "a").stat().st_nlink == (disk / "b").stat().st_nlink == 2)
    assert (disk / "a").stat().st_ino == (disk / "b").stat().st_ino
    (disk / "b").write_bytes(b"both")
    assert (disk / "a").read_bytes() == b"both"
    with fails_with(errno.EEXIST):
        os.link(disk / "a", disk / "b")
    os.unlink(disk / "a")
    # To libfuse 2 two names are two files, whose attributes the kernel keeps for a moment.
    assert eventually(lambda: (disk / "b").stat().st_nlink == 1)
    assert disk.stored() == {b"b": b"both"}


def test_two_open_names_of_one_file_see_each_others_writes(disk: Place) -> None:
    (disk / "a").write_bytes(b"0123456789")
    os.link(disk / "a", disk / "b")
    with opened(disk / "a", os.O_RDWR) as one, opened(disk / "b", os.O_RDWR) as two:
        assert os.pread(two, 10, 0) == b"0123456789"
        os.pwrite(one, b"abc", 3)
        assert os.pread(two, 10, 0) == b"012abc6789"


def test_fifos_and_sockets_are_made(disk: Place) -> None:
    os.mkfifo(disk / "fifo", 0o640)
    assert stat.S_ISFIFO((disk / "fifo").stat().st_mode)
    assert stat.S_ISFIFO((disk.source_folder / "fifo").stat().st_mode)
    reader = subprocess.Popen(["cat", disk / "fifo"], stdout=subprocess.PIPE)
    try:
        (disk / "fifo").write_bytes(b"through the pipe")
        assert reader.communicate(timeout=20)[0] == b"through the pipe"
    finally:
        reader.kill()
        reader.wait()
    os.mknod(disk / "socket", stat.S_IFSOCK | 0o600)
    assert stat.S_ISSOCK((disk / "socket").stat().st_mode)


def test_links_and_special_files_are_not_supported_in_the_cloud(cloud: Place) -> None:
    (cloud / "file").write_bytes(b"x")
    cloud.requests.forget_requests()
    for make in (
        lambda: os.symlink("file", cloud / "new"),
        lambda: os.link(cloud / "file", cloud / "new"),
        lambda: os.mkfifo(cloud / "new"),
        lambda: os.mknod(cloud / "new", stat.S_IFSOCK | 0o600),
    ):
        with fails_with(errno.ENOTSUP):
            make()
    assert os.listdir(cloud.folder) == ["file"]
    assert cloud.requests.requests == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes device nodes")
def test_a_device_node_is_as_the_disk_has_it_and_not_supported_in_the_cloud(here: Place) -> None:
    if here.in_cloud:
        with fails_with(errno.ENOTSUP):
            os.mknod(here / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        os.mknod(here / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        assert (here / "null").stat().st_rdev == os.makedev(1, 3)


# --- names -----------------------------------------------------------------------------------------------------------

ODD_NAMES = [
    *(
        " spaces ",
        "tab\tin it",
        "back\\slash",
        'quote\'s "and" `$(x)`',
        "-rf",
        "*?[a]{b,c}",
        "100%25",
        "~",
        "#x",
        "...",
    ),
    *(".hidden", "風力.csv", "\U0001f32c.txt", "bell\x07", "n" * 255, "ä" * 127 + "x", "風" * 85, "a.octue.csv"),
]


def test_odd_names_are_created_renamed_and_removed(here: Place) -> None:
    for name in ODD_NAMES:
        (here / name).write_bytes(name.encode())
    assert sorted(os.listdir(here.folder)) == sorted(ODD_NAMES)
    assert here.stored() == {name.encode(): name.encode() for name in ODD_NAMES}
    (here / "folder").mkdir()
    for name in ODD_NAMES:
        os.rename(here / name, here / "folder" / name)
    assert sorted(os.listdir(here / "folder")) == sorted(ODD_NAMES)
    for name in ODD_NAMES[:-1]:
        os.unlink(here / "folder" / name)
    assert here.stored() == {f"folder/{ODD_NAMES[-1]}".encode(): ODD_NAMES[-1].encode()}


BYTES = [b"new\nline", b"carriage\rreturn", b"no \xff\x80 text"]


def test_names_of_any_bytes_are_a_disks_to_hold(disk: Place) -> None:
    top = os.fsencode(disk.folder)
    for name in BYTES:
        with opened(os.path.join(top, name), os.O_CREAT | os.O_WRONLY) as fd:
            os.write(fd, name)
        os.mkdir(os.path.join(top, name + b" folder"))
        os.rename(os.path.join(top, name), os.path.join(top, name + b" folder", name))
    assert disk.stored() == {name + b" folder/" + name: name for name in BYTES}
    put(disk / os.fsdecode(BYTES[2] + b" folder") / os.fsdecode(BYTES[2]), "labels", "a")
    assert get(disk / os.fsdecode(BYTES[2] + b" folder") / os.fsdecode(BYTES[2]), "labels") == "a"


def test_names_that_no_object_can_have_are_refused(cloud: Place) -> None:
    top = os.fsencode(cloud.folder)
    (cloud / "file").write_bytes(b"x")
    for name in BYTES:
        for make in (
            lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)),
            os.mkdir,
            lambda path: os.rename(os.path.join(top, b"file"), path),
        ):
            with fails_with(errno.EINVAL, errno.EILSEQ):
                make(os.path.join(top, name))
    assert os.listdir(cloud.folder) == ["file"]


def test_names_that_are_too_long_are_refused(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    for name in ("n" * 256, "n" * 1000, "n" * 2000, "ä" * 128):
        for make in (
            lambda path: path.write_bytes(b"y"),
            os.mkdir,
            lambda path: os.rename(here / "file", path),
            os.stat,
        ):
            with fails_with(errno.ENAMETOOLONG):
                make(here / name)
    assert here.stored() == {b"file": b"x"}


def test_an_object_name_that_would_be_too_long_is_refused(cloud: Place) -> None:
    folder = cloud.folder
    for _ in range(4):
        folder /= "f" * 240
        folder.mkdir()
    (folder / "fits").write_bytes(b"x")
    with fails_with(errno.ENAMETOOLONG):
        (folder / ("n" * 200)).write_bytes(b"x")
    with fails_with(errno.ENAMETOOLONG):
        (folder / ("n" * 200)).mkdir()
    with fails_with(errno.ENAMETOOLONG):
        os.rename(folder / "fits", folder / ("n" * 200))
    assert os.listdir(folder) == ["fits"]


def test_deep_folders_are_made_filled_and_removed(here: Place) -> None:
    depth = 30 if here.in_cloud else 100
    folder = here.folder
    for _ in range(depth):
        folder /= "deep"
        folder.mkdir()
    (folder / "file").write_bytes(b"deep down")
    assert here.stored() == {b"deep/" * depth + b"file": b"deep down"}
    shutil.rmtree(here / "deep")
    assert os.listdir(here.folder) == []


# --- mappings, in other processes ------------------------------------------------------------------------------------

MAPPED = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 0, flags=mmap.MAP_SHARED) as mapping:
    if "close first" in sys.argv:
        os.close(fd)
    mapping[10:17] = b"written"
    mapping[131070:131074] = b"over"
    if "sync" in sys.argv:
        mapping.flush()
        print(open(sys.argv[1], "rb").read()[131070:131074].decode())
if "close first" not in sys.argv:
    os.close(fd)
"""


@pytest.mark.parametrize("how", ["plain", "sync", "close first"])
def test_what_is_written_through_a_shared_mapping_is_stored(here: Place, how: str) -> None:
    (here / "file").write_bytes(BASE)
    said = python(MAPPED, here / "file", how)
    expected = bytearray(BASE)
    expected[10:17] = b"written"
    expected[131_070:131_074] = b"over"
    assert said == ("over\n" if how == "sync" else "")
    assert (here / "file").read_bytes() == expected
    # Written after the last close, it is stored soon, and nobody waits for it.
    assert eventually(lambda: here.stored_data("file") == expected)


def test_a_mapping_and_a_descriptor_see_each_other(here: Place) -> None:
    (here / "file").write_bytes(BASE)
    program = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 0, flags=mmap.MAP_SHARED) as mapping:
    os.pwrite(fd, b"by descriptor", 5)
    assert mapping[5:18] == b"by descriptor", mapping[5:18]
    mapping[200000:200010] = b"by mapping"
    assert os.pread(fd, 10, 200000) == b"by mapping"
os.close(fd)
"""
    assert python(program, here / "file") == ""
    expected = bytearray(BASE)
    expected[5:18], expected[200_000:200_010] = b"by descriptor", b"by mapping"
    assert eventually(lambda: here.stored_data("file") == expected)


# --- locks -----------------------------------------------------------------------------------------------------------

TRY_LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    (fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("locked")
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_locks_hold_between_the_programs_of_one_mount(here: Place, kind: str) -> None:
    (here / "file").write_bytes(b"x")
    lock = fcntl.flock if kind == "flock" else fcntl.lockf
    with opened(here / "file", os.O_RDWR) as fd:
        lock(fd, fcntl.LOCK_EX)
        assert python(TRY_LOCK, here / "file", kind) in (f"{errno.EAGAIN}\n", f"{errno.EACCES}\n")
        lock(fd, fcntl.LOCK_UN)
        assert python(TRY_LOCK, here / "file", kind) == "locked\n"


def test_a_waiting_lock_is_given_when_the_other_lets_go(here: Place) -> None:
    (here / "file").write_bytes(b"x")
    program = "import fcntl, sys\nwith open(sys.argv[1], 'r+') as f:\n fcntl.flock(f, fcntl.LOCK_EX)\n print('mine')"
    with opened(here / "file", os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        waiter = subprocess.Popen([sys.executable, "-c", program, here / "file"], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(0.3)
        fcntl.flock(fd, fcntl.LOCK_UN)
        assert waiter.communicate(timeout=20)[0] == b"mine\n"


# --- many at once ----------------------------------------------------------------------------------------------------


def test_threads_that_rename_one_file_back_and_forth_never_lose_it(here: Place) -> None:
    (here / "file").write_bytes(b"precious")
    stop = threading.Event()
    strange: list[object] = []

    def look() -> None:
        while not stop.is_set():
            found = set(os.listdir(here.folder))
            if not found & {"file", "other"}:
                strange.append(found)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(10):
            os.rename(here / "file", here / "other")
            os.rename(here / "other", here / "file")
    finally:
        stop.set()
        watcher.join()
    assert strange == []
    assert here.stored() == {b"file": b"precious"}


def test_only_one_of_many_creates_a_file_exclusively(here: Place) -> None:
    def create(_: int) -> bool:
        try:
            os.close(os.open(here / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(16))) == 1
    assert here.stored() == {b"lock": b""}


# --- read-only mounts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "cloud"])
def test_a_read_only_mount_is_erofs_everywhere_and_nothing_changes(
    kind: str, new_source: SourceMaker, request: pytest.FixtureRequest
) -> None:
    with workplace_of(kind, new_source, lambda: request.getfixturevalue("gcs_server")) as it:
        (it.root / "folder").mkdir()
        (it.root / "file").write_bytes(b"content")
        put(it.root / "file", "labels", "a")
        (it.root / "file").chmod(0o644)
        with opened(it.root, os.O_RDONLY) as fd:
            os.fsync(fd)
        before = it.source.state()
        with mounted(it.source.url, "--read-only", environment=it.environment) as root:
            for name, change in CHANGES.items():
                with pytest.raises(OSError, match="Read-only") as failure:
                    change(root)
                assert failure.value.errno == errno.EROFS, name
            assert (root / "file").read_bytes() == b"content"
            with opened(root / "file") as fd:
                os.fsync(fd)
        assert it.source.state() == before


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: (root / "new").touch(),
    "write": lambda root: os.open(root / "file", os.O_WRONLY),
    "read and write": lambda root: os.open(root / "file", os.O_RDWR),
    "append": lambda root: (root / "file").open("ab"),
    "truncate": lambda root: os.truncate(root / "file", 0),
    "truncate on opening": lambda root: os.open(root / "file", os.O_RDONLY | os.O_TRUNC),
    "mkdir": lambda root: os.mkdir(root / "new"),
    "rmdir": lambda root: os.rmdir(root / "folder"),
    "unlink": lambda root: os.unlink(root / "file"),
    "rename": lambda root: os.rename(root / "file", root / "new"),
    "rename folder": lambda root: os.rename(root / "folder", root / "new"),
    "chmod": lambda root: os.chmod(root / "file", 0o600),
    "chown": lambda root: os.chown(root / "file", os.getuid(), os.getgid()),
    "utime": lambda root: os.utime(root / "file"),
    "symlink": lambda root: os.symlink("file", root / "new"),
    "link": lambda root: os.link(root / "file", root / "new"),
    "mkfifo": lambda root: os.mkfifo(root / "new"),
    "setxattr": lambda root: put(root / "file", "labels", "b"),
    "removexattr": lambda root: os.removexattr(root / "file", "user.octue.labels"),
    "dataset's name": lambda root: put(root, "name", "other"),
    ".octue": lambda root: (root / ".octue").write_text("{}"),
    "view": lambda root: (root / "by-label" / "a" / "new").touch(),
    "label": lambda root: os.mkdir(root / "by-label" / "new"),
    "unlabel": lambda root: os.unlink(root / "by-label" / "a" / "file"),
}
