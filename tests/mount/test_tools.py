"""Ordinary tools over a mount give byte for byte what they give over the source, and end."""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.conftest import SourceMaker
from mount.trees import MIB, File, LocalSource, Served, contents, records_by_folder, run, some_bytes, walk

from support.mounting import mounted

FILES = {
    "readme.txt": File(b"power of turbines\n", ["text"]),
    "a/2024/jan.csv": File(b"time,power\n1,10\n2,20\n", ["a"], {"cluster": 1}, "2024-01-02T03:04:05"),
    "a/2024/feb.csv": File(b"time,power\n3,30\n", ["a", "b"], {"cluster": 2, "nested": {"x": [1, None]}}),
    "a/2025/jan.csv": File(b"time,power\n4,40\n", ["a"], {}, "2025-01-02T03:04:05+01:00"),
    "b/jan.csv": File(b"time,power\n5,50\n", ["b"]),
    "b/notes and power.txt": File("power: größer\n".encode()),
    "b/-rf": File(b"a name like an option\n"),
    "b/風力 'x' \"y\".txt": File(b"power of the wind\n", ["text"]),
    "b/.hidden": File(b"hidden power\n"),
    "binary/empty": File(),
    "binary/one": File(b"\0", ["a"]),
    "binary/blob": File(some_bytes(MIB + 12_345)),
    "binary/zeros": File(bytes(300_000)),
    **{f"many/part-{n:03}.csv": File(b"time,power\n%d,%d\n" % (n, n), ["part"]) for n in range(100)},
}
VIRTUAL_FILES = (".hash", ".hashes", ".metadata_hash")
VIRTUAL_FOLDERS = ("by-label", "by-ext", "by-tag", "by-date", "by-id", "by-hash", "filter", "not", "order-by")


@pytest.fixture(scope="module", params=["local", "cloud"])
def served(request: pytest.FixtureRequest, new_source: SourceMaker) -> Iterator[Served]:
    with new_source(request.param) as source:
        source.fill(FILES)
        if isinstance(source, LocalSource):
            add_what_only_a_disk_has(source.folder)
        with mounted(source.url, environment=source.environment) as root:
            yield Served(root, source, FILES)


def add_what_only_a_disk_has(folder: Path) -> None:
    (folder / "new\nline \udcff").write_bytes(b"power with a name that is no text\n")
    (folder / "b" / "link").symlink_to("../a/2024/jan.csv")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "to a folder").symlink_to("b")
    os.link(folder / "binary" / "blob", folder / "a" / "hard link")
    (folder / "empty folder").mkdir()
    (folder / "b" / "-rf").chmod(0o750)
    os.utime(folder / "b" / "-rf", ns=(0, 987_654_321_123_456_789))
    os.setxattr(folder / "b" / "-rf", "user.foreign", b"passes through")
    with (folder / "binary" / "sparse").open("wb") as sparse:
        sparse.truncate(5 * MIB)


@pytest.fixture(scope="module")
def expected(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the mount must show: the source folder itself, or the objects with `.octue` files made of their metadata."""
    if isinstance(served.source, LocalSource):
        return served.folder
    folder = tmp_path_factory.mktemp("expected") / "dataset"
    LocalSource(folder).fill(FILES)
    for place, document in records_by_folder(FILES).items():
        shown = (served.root / place / ".octue").read_bytes()
        found = json.loads(shown)
        assert {key: found[key] for key in document} == without_absent(document, found), place
        (folder / place / ".octue").write_bytes(shown)
    return folder


def without_absent(document: dict[str, object], shown: dict[str, object]) -> dict[str, object]:
    """The document as it is shown, where a dataset's record may hold its path besides."""
    record, seen = document.get("dataset"), shown.get("dataset")
    if isinstance(record, dict) and isinstance(seen, dict) and "path" in seen:
        return {**document, "dataset": {**record, "path": seen["path"]}}
    return document


# --- whole mounts ----------------------------------------------------------------------------------------------------


def test_find_lists_each_file_once_and_nothing_of_ours(served: Served, expected: Path) -> None:
    form = "%P\\0%y\\0%l\\0" if served.in_cloud else "%P\\0%y\\0%l\\0%m\\0%n\\0%i\\0%U\\0%G\\0%s\\0%b\\0%T@\\0%C@\\0"
    shown, there = (
        sorted(run("find", ".", "-printf", f"{form}\\n", cwd=at).split(b"\0\n")) for at in (served.root, expected)
    )
    assert shown == there
    sizes = (
        sorted(run("find", ".", "-type", "f", "-printf", "%s %P\\0", cwd=at).split(b"\0"))
        for at in (served.root, expected)
    )
    assert next(sizes) == next(sizes)


def test_ls_shows_hidden_names_but_no_virtual_ones(served: Served, expected: Path) -> None:
    for folder in (".", "a", "a/2024", "b", "binary"):
        shown = run("ls", "-A1", folder, cwd=served.root)
        assert shown == run("ls", "-A1", folder, cwd=expected), folder
        assert not {os.fsencode(name) for name in (*VIRTUAL_FILES, *VIRTUAL_FOLDERS, ".one", ".octuefs")} & set(
            shown.split(b"\n")
        )
    assert run("ls", "-AR", cwd=served.root) == run("ls", "-AR", cwd=expected)
    assert run("ls", "-a1", "b", cwd=served.root) == run("ls", "-a1", "b", cwd=expected)


def test_virtual_names_answer_when_they_are_named(served: Served) -> None:
    for folder in (".", "a", "a/2024", "by-label/a", "by-label/a/a/2024"):
        for name in VIRTUAL_FILES:
            assert run("cat", f"{folder}/{name}", cwd=served.root).endswith(b"\n"), (folder, name)
        run("ls", *(f"{folder}/{name}" for name in VIRTUAL_FOLDERS), cwd=served.root)
    run("ls", ".octuefs/status", ".octuefs/refresh", ".octuefs/views", ".octuefs/errors", cwd=served.root)


def test_cp_r_copies_byte_for_byte(served: Served, expected: Path, tmp_path: Path) -> None:
    run("cp", "-r", served.root, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(expected)


def test_cp_a_copies_the_metadata_along(served: Served, expected: Path, tmp_path: Path) -> None:
    run("cp", "-a", served.root, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(expected)
    for path in (os.fsencode(served.root), *walk(served.root)):
        copy = os.path.join(os.fsencode(tmp_path / "out"), os.path.relpath(path, os.fsencode(served.root)))
        there, here = os.lstat(path), os.lstat(copy)
        assert (here.st_mode, here.st_mtime_ns) == (there.st_mode, there.st_mtime_ns), path
        if not os.path.islink(path):
            assert attributes(copy) == attributes(path), path
    copied = attributes(os.fsencode(tmp_path / "out" / "a" / "2024" / "feb.csv"))
    assert copied["user.octue.labels"] == b"a b"
    assert json.loads(copied["user.octue.tags"]) == {"cluster": 2, "nested": {"x": [1, None]}}
    assert attributes(os.fsencode(tmp_path / "out"))["user.octue.name"] == b"turbines"


def attributes(path: bytes) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def test_tar_packs_and_unpacks_to_the_same(served: Served, expected: Path, tmp_path: Path) -> None:
    archive = run(
        "tar", "--create", "--sort=name", "--format=pax", "--pax-option=delete=atime,delete=ctime", ".", cwd=served.root
    )
    if not served.in_cloud:
        same = run(
            "tar",
            "--create",
            "--sort=name",
            "--format=pax",
            "--pax-option=delete=atime,delete=ctime",
            ".",
            cwd=expected,
        )
        assert hashlib.sha256(archive).digest() == hashlib.sha256(same).digest()
    run("tar", "--extract", cwd=tmp_path, stdin=archive)
    assert contents(tmp_path) == contents(expected)


def test_rsync_copies_all_and_then_finds_nothing_to_do(served: Served, expected: Path, tmp_path: Path) -> None:
    assert run("rsync", "-aH", f"{served.root}/", tmp_path / "out") == b""
    assert contents(tmp_path / "out") == contents(expected)
    assert run("rsync", "-aHi", f"{served.root}/", tmp_path / "out") == b""
    assert run("rsync", "-rli", "--checksum", "--dry-run", "--delete", f"{served.root}/", f"{expected}/") == b""


def test_rsync_carries_the_metadata_where_asked(served: Served, tmp_path: Path) -> None:
    run("rsync", "-aX", f"{served.root}/", tmp_path / "out")
    for path in ("a/2024/jan.csv", "a/2024/feb.csv", "readme.txt", "b/-rf", "binary/empty"):
        assert attributes(os.fsencode(tmp_path / "out" / path)) == attributes(os.fsencode(served.root / path)), path


@pytest.mark.parametrize("options", [("-r",), ("-rl",), ("-rc",), ("-rn",), ("-rn", "--binary-files=text")])
def test_grep_finds_the_same_lines(served: Served, expected: Path, options: tuple[str, ...]) -> None:
    shown, there = (sorted(run("grep", *options, "power", ".", cwd=at).split(b"\n")) for at in (served.root, expected))
    assert shown == there
    assert len(shown) > 10


def test_sha256sum_agrees_on_every_file(served: Served, expected: Path) -> None:
    def sums(top: Path) -> bytes:
        names = run("find", ".", "-type", "f", "-print0", cwd=top)
        names = b"".join(sorted(name + b"\0" for name in names.split(b"\0") if name))
        return run("xargs", "-0", "sha256sum", "--", cwd=top, stdin=names)

    assert sums(served.root) == sums(expected)
    assert len(sums(served.root)) > 10_000


def test_du_counts_the_same(served: Served, expected: Path) -> None:
    for options in (["-al", "--apparent-size", "-B1"], ["-al", "-B512"], ["-sB1", "--inodes"]):
        shown, there = (sizes(run("du", *options, ".", cwd=at), at) for at in (served.root, expected))
        if served.in_cloud:  # where folders have no size, and files no more blocks than bytes
            shown, there = (
                {path: size for path, size in it.items() if (expected / path).is_file()} for it in (shown, there)
            )
        if not served.in_cloud or "--apparent-size" in options:
            assert shown == there


def sizes(said: bytes, top: Path) -> dict[str, bytes]:
    """The paths and sizes that du printed; a line may be a part of a name with a newline."""
    return {os.fsdecode(path): size for line in said.split(b"\n") for size, _, path in [line.partition(b"\t")] if path}


def test_diff_finds_no_difference(served: Served, expected: Path) -> None:
    assert run("diff", "-r", "--no-dereference", served.root, expected) == b""


def test_tools_end_in_spite_of_fifos_sockets_and_circles(new_source: SourceMaker, tmp_path: Path) -> None:
    with new_source("local") as source:
        assert isinstance(source, LocalSource)
        source.fill({"file.txt": File(b"power\n", ["a"])})
        os.mkfifo(source.folder / "fifo")
        (source.folder / "circle").symlink_to("circle")
        (source.folder / "up").symlink_to(".")
        with mounted(source.url) as root:
            assert run("grep", "-r", "power", ".", cwd=root) == b"./file.txt:power\n"
            run("cp", "-r", root, tmp_path / "copied")
            run("rsync", "-a", f"{root}/", tmp_path / "synchronised")
            run("tar", "--extract", cwd=tmp_path, stdin=run("tar", "--create", ".", cwd=root))
            for out in (tmp_path / "copied", tmp_path / "synchronised"):
                assert contents(out) == contents(source.folder)
            assert (tmp_path / "fifo").is_fifo()
            run("du", "-a", root)
            run("find", root, "-ls")


# --- views -----------------------------------------------------------------------------------------------------------


def labelled(label: str) -> dict[bytes, bytes]:
    return {os.fsencode(path): file.data for path, file in FILES.items() if label in file.labels}


def files_of(top: Path) -> dict[bytes, bytes]:
    """The datafiles below a folder: no folders, no `.octue`."""
    return {
        path: data for path, data in contents(top).items() if isinstance(data, bytes) and not path.endswith(b".octue")
    }


def test_rsync_of_a_view_keeps_the_structure(served: Served, tmp_path: Path) -> None:
    run("rsync", "-a", f"{served.root}/by-label/a/", tmp_path / "out")
    assert files_of(tmp_path / "out") == labelled("a")
    assert not (tmp_path / "out" / "b").exists()
    records = json.loads((tmp_path / "out" / "a" / "2024" / ".octue").read_bytes())["datafiles"]
    assert records == {name: FILES[f"a/2024/{name}"].record(f"a/2024/{name}") for name in ("jan.csv", "feb.csv")}
    assert json.loads((tmp_path / "out" / ".octue").read_bytes())["dataset"]["name"] == "turbines"
    assert run("rsync", "-ai", f"{served.root}/by-label/a/", tmp_path / "out") == b""


def test_tar_of_a_view_holds_the_files_of_the_view(served: Served) -> None:
    archive = run("tar", "--create", "--directory", served.root / "by-label" / "b" / "by-ext" / "csv", ".")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        found = {
            os.path.normpath(member.name): packed.extractfile(member).read()  # type: ignore[union-attr]
            for member in packed
            if member.isfile() and not member.name.endswith(".octue")
        }
    assert found == {path: FILES[path].data for path in ("a/2024/feb.csv", "b/jan.csv")}


@pytest.mark.parametrize(
    ("view", "paths"),
    [
        ("by-label/b", ["a/2024/feb.csv", "b/jan.csv"]),
        ("by-tag/cluster/1", ["a/2024/jan.csv"]),
        ("by-date/2024/01/02", ["a/2024/jan.csv"]),
        ("filter/tags__cluster__gte=1,name__starts_with=feb", ["a/2024/feb.csv"]),
        ("a/not/by-label/b/by-ext/csv", ["2024/jan.csv", "2025/jan.csv"]),
    ],
)
def test_tools_see_exactly_a_views_files(served: Served, tmp_path: Path, view: str, paths: list[str]) -> None:
    prefix = "a/" if view.startswith("a/") else ""
    expected = {os.fsencode(path): FILES[prefix + path].data for path in paths}
    run("cp", "-r", served.root / view, tmp_path / "copy")
    assert files_of(tmp_path / "copy") == expected
    found = run("find", ".", "-type", "f", "!", "-name", ".octue", "-printf", "%P\\0", cwd=served.root / view)
    assert sorted(found.split(b"\0")[:-1]) == sorted(expected)
    assert run("diff", "-r", served.root / view, tmp_path / "copy") == b""


def test_awk_reads_a_view_through_the_shell(served: Served) -> None:
    program = "cat by-label/part/by-ext/csv/many/*.csv | awk -F, '/^[0-9]/ { sum += $2 } END { print sum }'"
    assert run("sh", "-c", program, cwd=served.root) == b"4950\n"


PANDAS = """
import glob, pandas
names = sorted(glob.glob("by-label/a/**/*.csv", recursive=True))
frame = pandas.concat(map(pandas.read_csv, names))
print(len(names), frame["power"].sum())
"""

DUCKDB = """
import duckdb
print(duckdb.sql("select count(*), sum(power) from read_csv('by-label/a/**/*.csv')").fetchall())
print(duckdb.sql("select count(*) from read_csv('filter/name__starts_with=part/many/*.csv')").fetchall())
print(duckdb.sql("select power from read_csv('by-tag/cluster/1/a/2024/jan.csv') order by time desc").fetchall())
"""


def test_pandas_reads_a_view(served: Served) -> None:
    assert run(sys.executable, "-c", PANDAS, cwd=served.root) == b"3 100\n"


def test_duckdb_queries_a_view(served: Served) -> None:
    assert run(sys.executable, "-c", DUCKDB, cwd=served.root) == b"[(4, 100)]\n[(100,)]\n[(20,), (10,)]\n"


PARQUET = """
import duckdb, sys
for path in sys.argv[1:]:
    print(duckdb.sql(f"select count(*), sum(n), bit_xor(h) from '{path}' where n % 7 = 3").fetchall())
"""


def test_duckdb_reads_the_parts_that_it_needs_of_a_parquet_file(new_source: SourceMaker, tmp_path: Path) -> None:
    made = tmp_path / "made.parquet"
    query = f"copy (select range as n, hash(range) as h from range(100000)) to '{made}' (format parquet)"
    run(sys.executable, "-c", f"import duckdb; duckdb.sql({query!r})")
    for kind in ("local", "cloud"):
        with new_source(kind) as source:
            source.fill({"table.parquet": File(made.read_bytes(), ["a"])})
            with mounted(source.url, environment=source.environment) as root:
                view = root / "by-label" / "a" / "by-ext" / "parquet" / "*.parquet"
                shown, there = run(sys.executable, "-c", PARQUET, view, made).splitlines()
            assert shown == there
            assert shown.startswith(b"[(14286, ")
