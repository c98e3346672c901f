"""The views (DESIGN 3): each of them, and any of them in any other, against a reference model in plain Python."""

import base64
import errno
import functools
import json
import os
import random
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from mount.datasets import (
    KINDS,
    File,
    Mounted,
    Plan,
    document,
    fails_with,
    files_in,
    mounted_plan,
    mounted_source,
    names,
    set_hash,
)

from support.gcs import GcsServer

FILE_ID = "3c8f7a56-1d7e-4b1a-8a51-2f6f9d3c0e11"
TWICE_ID = "6c0a9f8e-52a4-4d55-9b5e-6a9b3a8c7d22"
EAST = timezone(timedelta(hours=12))
WEST = timezone(timedelta(hours=-11))

ODD_TEXTS = {
    "slash": ("a/b", "a%2Fb"),
    "comma": ("a,b", "a%2Cb"),
    "percent": ("5%", "5%25"),
    "dot": (".", "%2E"),
    "dots": ("..", "%2E%2E"),
    "newline": ("x\ny", "x%0Ay"),
    "nul": ("x\0y", "x%00y"),
    "delete": ("\x7f", "%7F"),
    "empty": ("", "%"),
    "encoded": ("%2F", "%252F"),
    "plus": ("a+b c", "a+b c"),
    "wide": ("Zürich 漢", "Zürich 漢"),
}
"""Strings, and the folders that they are shown as; each is the value of the tag `odd` of a file of its own."""

SCALARS = {
    "int": 5,
    "text-int": "5",
    "float": 5.0,
    "small": 1e-7,
    "minus": -3,
    "true": True,
    "text-true": "true",
    "false": False,
    "null": None,
    "list": [1, 2],
    "object": {},
}
"""Values of the tag `value`, each of a file of its own."""

PLAN = Plan(
    files=(
        File("one.csv", b"1", labels=("a",), id=FILE_ID, timestamp=datetime(2024, 1, 31, 23, 30)),
        File("two.CSV", b"22", labels=("a", "b"), timestamp=datetime(2024, 2, 1, 0, 30, tzinfo=EAST)),
        File("three.tar.gz", b"333", labels=("b",), timestamp=datetime(2023, 12, 31, 23, tzinfo=WEST)),
        File("four", b"4444", labels=("c", "2024")),
        File("sub/five.csv", b"1", labels=("a", "c"), id=TWICE_ID, tags={"cluster": 1}),
        File("sub/six.txt", b"666666", id=TWICE_ID, tags={"cluster": 2, "name": "six"}),
        File("sub/deep/seven._", b"7777777", labels=("b",), timestamp=datetime(2024, 1, 31, tzinfo=UTC)),
        File("sub/deep/.hidden", b"", labels=("b",)),
        File("sub/deep/end.", b"22", tags={"nested": {"height": 1.5, "more": {"name": "x", "a.b": 1, "a/b": True}}}),
        File("far/away/eight.a,b", b"88888888", tags={"cluster": "1"}),
        *(File(f"odd/{name}", b"o", tags={"odd": text}) for name, (text, _) in ODD_TEXTS.items()),
        *(File(f"scalar/{name}", b"v", tags={"value": value}) for name, value in SCALARS.items()),
    ),
    dataset={"id": "0d5b8e0e-7a3c-4d0e-9c3e-0b7a4f2f9a01", "name": "views", "tags": {}, "labels": ["x"]},
)
BY_PATH = {file.path: file for file in PLAN.files}
ALL = set(BY_PATH)


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, gcs_server: GcsServer) -> Iterator[Mounted]:
    with mounted_plan(request.param, gcs_server, PLAN) as it:
        yield it


def labelled(*labels: str) -> set[str]:
    return {path for path, file in BY_PATH.items() if set(labels) & set(file.labels)}


def ending(*extensions: str) -> set[str]:
    return {path for path, file in BY_PATH.items() if file.extension in extensions}


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


# --- by-label ---------------------------------------------------------------------------------------------------------


def test_by_label_has_a_folder_for_each_label(dataset: Mounted) -> None:
    assert names(dataset / "by-label") == ["2024", "a", "b", "c"]
    for label in names(dataset / "by-label"):
        assert files_in(dataset / "by-label" / label) == labelled(label)


def test_by_label_lists_the_labels_that_occur_there(dataset: Mounted) -> None:
    assert names(dataset / "sub/by-label") == ["a", "b", "c"]
    assert names(dataset / "sub/deep/by-label") == ["b"]
    assert names(dataset / "by-ext/csv/by-label") == ["a", "c"]
    assert names(dataset / "odd/by-label") == []


def test_a_comma_means_or(dataset: Mounted) -> None:
    assert files_in(dataset / "by-label/a,b") == labelled("a", "b")
    assert files_in(dataset / "by-label/c,2024,a") == labelled("a", "c", "2024")
    assert files_in(dataset / "by-label/a,a") == labelled("a")
    assert (dataset / "by-label/a,b/.hash").read_text() == set_hash(BY_PATH[path] for path in labelled("a", "b")) + "\n"


@pytest.mark.parametrize(
    "path",
    [
        "by-label/unknown",
        "by-label/a,unknown",
        "by-label/A",
        "by-label/,",
        "by-label/a b",
        "sub/by-label/2024",
        "sub/deep/by-label/a",
        "by-ext/unknown",
        "by-ext/Csv",
        "by-ext/csv,unknown",
        "by-ext/%5F%5F",
        "sub/by-ext/CSV",
        "by-ext/.csv",
        "by-tag/unknown",
        "by-tag/cluster/3",
        "by-tag/cluster/1,3",
        "by-tag/nested",
        "by-tag/nested.height/1",
        "by-label/b/by-tag/cluster",
        "by-date/2022",
        "by-date/24",
        "by-date/2024/1",
        "by-date/2024/03",
        "by-date/2024/01/30",
        "by-date/2024/01/31/x",
        "sub/by-date/2023",
        "by-hash/unknown",
        "by-hash/AAAAAB==",
        f"by-id/{FILE_ID}x",
        f"sub/by-id/{FILE_ID}",
        f"by-label/b/by-id/{FILE_ID}",
        "filter/nmae=x",
        "filter/name__frobnicate=x",
        "filter/name",
        "filter/size_bytes__gt=1,nmae=x",
        "filter/=x",
        "order-by/nmae",
        "order-by/labels",
        "order-by/-tags",
        "order-by/--name",
        "not/unknown",
        "not/by-label/unknown",
        "not/by-ext/csv/by-ext/csv",
        "not/filter/nmae=x",
        f"not/by-id/{FILE_ID}",
        "not/order-by/name",
        "not/sub",
        "by-label/a/two.csv",
        "by-label/a/sub/deep",
        "order-by/name/000000_x",
        "order-by/name/sub",
    ],
)
def test_a_value_that_does_not_occur_there_is_not_there(dataset: Mounted, path: str) -> None:
    with fails_with(errno.ENOENT):
        (dataset / path).lstat()


# --- by-ext -----------------------------------------------------------------------------------------------------------


def test_by_ext_has_a_folder_for_each_extension_case_kept(dataset: Mounted) -> None:
    assert names(dataset / "by-ext") == sorted(["%5F", "CSV", "_", "a%2Cb", "csv", "gz", "txt"])
    assert files_in(dataset / "by-ext/csv") == ending("csv")
    assert files_in(dataset / "by-ext/CSV") == ending("CSV")
    assert files_in(dataset / "by-ext/gz") == {"three.tar.gz"}
    assert files_in(dataset / "by-ext/a%2Cb") == {"far/away/eight.a,b"}


def test_files_without_an_extension_are_below_an_underscore(dataset: Mounted) -> None:
    assert files_in(dataset / "by-ext/_") == ending("")
    assert {"four", "sub/deep/.hidden", "sub/deep/end."} <= files_in(dataset / "by-ext/_")
    assert files_in(dataset / "by-ext/%5F") == {"sub/deep/seven._"}
    assert files_in(dataset / "by-ext/%5F,_") == ending("", "_")


def test_several_extensions_mean_or(dataset: Mounted) -> None:
    assert files_in(dataset / "by-ext/csv,CSV,gz") == ending("csv", "CSV", "gz")


# --- by-tag -----------------------------------------------------------------------------------------------------------


def test_by_tag_has_a_folder_for_each_key_nested_ones_joined_with_dots(dataset: Mounted) -> None:
    keys = ["cluster", "name", "nested.height", "nested.more.a%2Eb", "nested.more.a%2Fb", "nested.more.name"]
    assert names(dataset / "by-tag") == sorted([*keys, "odd", "value"])
    assert files_in(dataset / "by-tag/nested.height/1.5") == {"sub/deep/end."}
    assert files_in(dataset / "by-tag/nested.more.name/x") == {"sub/deep/end."}
    assert files_in(dataset / "by-tag/nested.more.a%2Fb/true") == {"sub/deep/end."}


def test_scalars_are_shown_as_json_prints_them_and_strings_bare(dataset: Mounted) -> None:
    assert names(dataset / "by-tag/value") == sorted(["-3", "1e-07", "5", "5.0", "false", "null", "true"])
    assert files_in(dataset / "by-tag/value/null") == {"scalar/null"}
    assert files_in(dataset / "by-tag/value/1e-07") == {"scalar/small"}


def test_a_number_and_its_text_share_a_folder(dataset: Mounted) -> None:
    assert files_in(dataset / "by-tag/value/5") == {"scalar/int", "scalar/text-int"}
    assert files_in(dataset / "by-tag/value/true") == {"scalar/true", "scalar/text-true"}
    assert files_in(dataset / "by-tag/cluster/1") == {"sub/five.csv", "far/away/eight.a,b"}


def test_lists_and_objects_are_not_shown(dataset: Mounted) -> None:
    shown = {path for value in names(dataset / "by-tag/value") for path in files_in(dataset / "by-tag/value" / value)}
    assert shown == {f"scalar/{name}" for name in SCALARS} - {"scalar/list", "scalar/object"}


@pytest.mark.parametrize("name", list(ODD_TEXTS))
def test_what_cannot_stand_in_a_name_is_percent_encoded(dataset: Mounted, name: str) -> None:
    component = ODD_TEXTS[name][1]
    assert component in names(dataset / "by-tag/odd")
    assert files_in(Path(f"{dataset.root}/by-tag/odd/{component}")) == {f"odd/{name}"}


def test_several_values_of_a_tag_mean_or(dataset: Mounted) -> None:
    assert files_in(dataset / "by-tag/cluster/1,2") == {"sub/five.csv", "sub/six.txt", "far/away/eight.a,b"}
    assert files_in(dataset / "by-tag/odd/a%2Fb,%,a%2Cb") == {"odd/slash", "odd/empty", "odd/comma"}


def test_no_two_odd_values_share_a_folder(dataset: Mounted) -> None:
    assert names(dataset / "by-tag/odd") == sorted(component for _, component in ODD_TEXTS.values())


# --- by-date ----------------------------------------------------------------------------------------------------------


def test_by_date_has_year_month_and_day_as_the_timestamps_own_offset_writes_them(dataset: Mounted) -> None:
    assert names(dataset / "by-date") == ["2023", "2024"]
    assert names(dataset / "by-date/2024") == ["01", "02"]
    assert names(dataset / "by-date/2024/01") == ["31"]
    assert files_in(dataset / "by-date/2024/01/31") == {"one.csv", "sub/deep/seven._"}
    assert files_in(dataset / "by-date/2024/02/01") == {"two.CSV"}
    assert files_in(dataset / "by-date/2023/12/31") == {"three.tar.gz"}


def test_several_years_months_and_days_mean_or(dataset: Mounted) -> None:
    assert names(dataset / "by-date/2023,2024") == ["01", "02", "12"]
    assert files_in(dataset / "by-date/2023,2024/12,02/31,01") == {"three.tar.gz", "two.CSV"}
    assert names(dataset / "by-date/2024/01,02") == ["01", "31"]


# --- by-id ------------------------------------------------------------------------------------------------------------


def test_by_id_is_the_datafile_itself(dataset: Mounted) -> None:
    path = dataset / "by-id" / FILE_ID
    assert path.read_bytes() == b"1"
    assert path.is_file()
    assert path.stat().st_ino == (dataset / "one.csv").stat().st_ino
    assert os.getxattr(path, "user.octue.id").decode() == FILE_ID
    assert (dataset / "by-label/a/by-id" / FILE_ID).read_bytes() == b"1"


def test_by_id_says_where_two_files_have_one_id(dataset: Mounted) -> None:
    for top in ("", "sub", "not/by-label/b"):
        with fails_with(errno.ENOTUNIQ):
            (dataset / top / "by-id" / TWICE_ID).lstat()
    assert (dataset / "by-ext/csv/by-id" / TWICE_ID).read_bytes() == b"1", "there is one of them in this subset"
    assert (dataset / "sub/by-ext/txt/by-id" / TWICE_ID).read_bytes() == b"666666"


def test_by_id_lists_an_id_for_each_file(dataset: Mounted) -> None:
    assert len(names(dataset / "by-id")) == len(ALL) - 1
    ids = {os.getxattr(dataset / path, "user.octue.id").decode() for path in ALL}
    assert set(names(dataset / "by-id")) == ids


def test_derived_ids_and_dates_are_the_same_in_every_mount_and_zone(dataset: Mounted) -> None:
    ids = names(dataset / "by-id")
    derived = os.getxattr(dataset / "four", "user.octue.id").decode()
    assert (dataset / "by-id" / derived).read_bytes() == b"4444"
    dated = files_in(dataset / "by-date/2024/01/31")
    with mounted_source(dataset.source, PLAN, zone="Pacific/Kiritimati") as again:
        assert names(again / "by-id") == ids
        assert (again / "by-id" / derived).read_bytes() == b"4444"
        assert names(again / "by-date/2024") == ["01", "02"]
        assert files_in(again / "by-date/2024/01/31") == dated


# --- by-hash ----------------------------------------------------------------------------------------------------------


def test_by_hash_shows_duplicates_at_once(dataset: Mounted) -> None:
    assert files_in(dataset / "by-hash" / url_safe(b"1")) == {"one.csv", "sub/five.csv"}
    assert files_in(dataset / "by-hash" / url_safe(b"22")) == {"two.CSV", "sub/deep/end."}
    assert names(dataset / "by-hash") == sorted({url_safe(file.data) for file in PLAN.files})
    assert names(dataset / "sub/deep/by-hash") == sorted({url_safe(b"7777777"), url_safe(b""), url_safe(b"22")})


def test_by_hash_writes_hashes_in_the_url_safe_alphabet(dataset: Mounted) -> None:
    assert any("-" in name or "_" in name for name in names(dataset / "by-hash"))
    for name in names(dataset / "by-hash"):
        assert "+" not in name
        base64.b64decode(name, altchars=b"-_", validate=True)


def test_several_hashes_mean_or(dataset: Mounted) -> None:
    both = f"{url_safe(b'1')},{url_safe(b'22')}"
    assert files_in(dataset / "by-hash" / both) == {"one.csv", "sub/five.csv", "two.CSV", "sub/deep/end."}


def url_safe(data: bytes) -> str:
    return File("", data).hash.replace("+", "-").replace("/", "_")


# --- filter -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("labels__contains=a", labelled("a")),
        ("labels__contains=2024", {"four"}),
        ("size_bytes__gt=3", {path for path, file in BY_PATH.items() if len(file.data) > 3}),
        ("size_bytes__gt=3,labels__contains=b", {"sub/deep/seven._"}),
        ("extension=csv,labels__contains=a,size_bytes=1", {"one.csv", "sub/five.csv"}),
        ("tags__cluster__gt=1", {"sub/six.txt"}),
        ("tags.cluster__gt=1", {"sub/six.txt"}),
        ("tags__nested__more__name=x", {"sub/deep/end."}),
        ("timestamp__year_equals=2023", {"three.tar.gz"}),
        ("timestamp__year_in=[2022,2023]", {"three.tar.gz"}),
        ("timestamp__year_in=[2022,2023],labels__contains=b", {"three.tar.gz"}),
        ("name=four", {"four"}),
        ("name=six.txt", {"sub/six.txt"}),
        (f"id={FILE_ID}", {"one.csv"}),
        ("size_bytes__gt=1000000", set()),
        ("name=nothing", set()),
        (f"name={quoted('eight.a,b')}", {"far/away/eight.a,b"}),
        (f"tags__odd={quoted('a/b')}", {"odd/slash"}),
        (f"tags__odd={quoted('5%')}", {"odd/percent"}),
        (f"tags__odd={quoted('%2F')}", {"odd/encoded"}),
        (f"tags__odd={quoted('a,b')},name=comma", {"odd/comma"}),
        ("tags__odd=Zürich 漢", {"odd/wide"}),
        (f"hash_value={quoted(File('', b'4444').hash)}", {"four"}),
    ],
)
def test_a_filter_is_the_files_that_satisfy_all(dataset: Mounted, expression: str, expected: set[str]) -> None:
    view = dataset / "filter" / expression
    assert view.is_dir()
    assert files_in(view) == expected
    assert (view / ".hash").read_text() == set_hash(BY_PATH[path] for path in expected) + "\n"


def test_a_filter_in_a_folder_or_a_view_looks_there(dataset: Mounted) -> None:
    assert files_in(dataset / "sub/filter/labels__contains=a") == {"five.csv"}
    assert files_in(dataset / "by-label/b/filter/size_bytes__gt=2") == {"three.tar.gz", "sub/deep/seven._"}
    assert files_in(dataset / "filter/size_bytes__gt=2/filter/labels__contains=b") == {
        "three.tar.gz",
        "sub/deep/seven._",
    }


def test_a_valid_filter_with_no_result_is_an_empty_folder(dataset: Mounted) -> None:
    view = dataset / "filter/name=nothing"
    assert set(names(view)) <= {".octue"}
    assert document(view / ".octue") == {"dataset": dict(PLAN.dataset or {})}
    assert names(view / "by-label") == []
    assert set(names(view / "order-by/name")) <= {".octue"}


# --- not --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("by-label/a", labelled("a")),
        ("by-label/a,b", labelled("a", "b")),
        ("by-ext/csv", ending("csv")),
        ("by-ext/_", ending("")),
        ("by-tag/cluster/1", {"sub/five.csv", "far/away/eight.a,b"}),
        ("by-date/2024/01/31", {"one.csv", "sub/deep/seven._"}),
        (f"by-hash/{url_safe(b'1')}", {"one.csv", "sub/five.csv"}),
        ("filter/size_bytes__gt=0", {path for path, file in BY_PATH.items() if file.data}),
        ("filter/size_bytes__gt=0,labels__contains=a", labelled("a")),
    ],
)
def test_not_is_what_the_next_view_leaves_out(dataset: Mounted, path: str, left_out: set[str]) -> None:
    assert files_in(dataset / "not" / path) == ALL - left_out
    assert files_in(dataset / "not/not" / path) == left_out
    assert files_in(dataset / "not/not/not" / path) == ALL - left_out
    in_sub = {path.removeprefix("sub/") for path in (ALL - left_out) if path.startswith("sub/")}
    assert files_in(dataset / "not" / path / "sub") == in_sub


def test_not_lists_the_values_of_its_view(dataset: Mounted) -> None:
    assert names(dataset / "not/by-label") == names(dataset / "by-label")
    assert names(dataset / "not/by-date/2024") == ["01", "02"]
    assert names(dataset / "sub/not/by-ext") == names(dataset / "sub/by-ext")


def test_not_turns_just_the_next_view(dataset: Mounted) -> None:
    assert files_in(dataset / "not/by-label/a/by-label/b") == labelled("b") - labelled("a")
    assert files_in(dataset / "by-label/b/not/by-label/a") == labelled("b") - labelled("a")
    assert files_in(dataset / "not/by-label/a/not/by-label/b/by-label/c") == {"four"}


# --- order-by ---------------------------------------------------------------------------------------------------------


def numbered(paths: list[str]) -> list[str]:
    return [f"{number:06}_{path.rpartition('/')[2]}" for number, path in enumerate(paths, 1)]


def in_order(view: Path) -> list[str]:
    return [name for name in names(view) if name != ".octue"]


def by_bytes(paths: set[str]) -> list[str]:
    return sorted(paths, key=os.fsencode)


def test_order_by_numbers_the_files_ties_by_path_in_both_directions(dataset: Mounted) -> None:
    ascending = sorted(by_bytes(ALL), key=lambda path: len(BY_PATH[path].data))
    descending = sorted(by_bytes(ALL), key=lambda path: -len(BY_PATH[path].data))
    assert in_order(dataset / "order-by/size_bytes") == numbered(ascending)
    assert in_order(dataset / "order-by/-size_bytes") == numbered(descending)
    for number, path in enumerate(descending, 1):
        file = dataset / f"order-by/-size_bytes/{number:06}_{BY_PATH[path].name}"
        assert file.read_bytes() == BY_PATH[path].data
        assert file.stat().st_ino == (dataset / path).stat().st_ino


def test_order_by_puts_those_without_the_attribute_last_in_both_directions(dataset: Mounted) -> None:
    have = {path for path, file in BY_PATH.items() if "cluster" in file.tags}
    # Numbers before text.
    ascending = ["sub/five.csv", "sub/six.txt", "far/away/eight.a,b"]
    for order, expected in (
        ("tags.cluster", ascending),
        ("tags__cluster", ascending),
        ("-tags.cluster", ascending[::-1]),
    ):
        listed = in_order(dataset / "order-by" / order)
        assert listed[:3] == numbered(expected)
        assert [name[7:] for name in listed[3:]] == [BY_PATH[path].name for path in by_bytes(ALL - have)]
    assert len(have) == 3


def test_order_by_timestamp_compares_moments_and_puts_null_last(dataset: Mounted) -> None:
    expected = ["three.tar.gz", "sub/deep/seven._", "two.CSV", "one.csv"]

    def moment(path: str) -> datetime:
        stamp = BY_PATH[path].timestamp
        assert stamp is not None
        return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)

    expected.sort(key=moment)
    assert in_order(dataset / "order-by/timestamp")[:4] == numbered(expected)
    assert in_order(dataset / "order-by/-timestamp")[:4] == numbered(expected[::-1])
    assert [name[7:] for name in in_order(dataset / "order-by/-timestamp")[4:]] == [
        BY_PATH[path].name for path in by_bytes(ALL - set(expected))
    ]


def test_an_ordered_view_is_flat(dataset: Mounted) -> None:
    assert not [entry.name for entry in os.scandir(dataset / "order-by/name") if entry.is_dir()]
    assert in_order(dataset / "sub/order-by/name") == numbered(
        sorted((path for path in ALL if path.startswith("sub/")), key=lambda path: path.rpartition("/")[2])
    )


def test_a_view_below_an_order_filters_and_keeps_it(dataset: Mounted) -> None:
    expected = numbered(sorted(by_bytes(labelled("b")), key=lambda path: -len(BY_PATH[path].data)))
    assert in_order(dataset / "order-by/-size_bytes/by-label/b") == expected
    assert in_order(dataset / "order-by/-size_bytes/filter/labels__contains=b") == expected
    assert in_order(dataset / "order-by/-size_bytes/by-label/a,b/not/filter/labels__not_contains=b") == expected
    assert in_order(dataset / "by-label/b/order-by/-size_bytes") == expected


def test_a_second_order_replaces_the_first(dataset: Mounted) -> None:
    assert in_order(dataset / "order-by/name/order-by/-size_bytes") == in_order(dataset / "order-by/-size_bytes")
    once = in_order(dataset / "by-label/b/order-by/name")
    assert in_order(dataset / "order-by/-size_bytes/by-label/b/order-by/name") == once


# --- subsets ----------------------------------------------------------------------------------------------------------


def test_a_view_of_a_folder_begins_there(dataset: Mounted) -> None:
    assert files_in(dataset / "sub/by-label/a") == {"five.csv"}
    assert files_in(dataset / "sub/deep/by-ext/_") == {".hidden", "end."}
    assert files_in(dataset / "by-label/b/sub/deep") == {"seven._", ".hidden"}
    assert files_in(dataset / "by-label/b/sub/deep/by-ext/_") == {".hidden"}
    assert files_in(dataset / "sub/by-label/b/deep/not/by-ext/_") == {"seven._"}


def test_views_in_any_order_are_the_same_subset(dataset: Mounted) -> None:
    assert files_in(dataset / "by-label/a/by-ext/csv") == files_in(dataset / "by-ext/csv/by-label/a")
    assert files_in(dataset / "by-label/a/by-label/b") == labelled("a") & labelled("b")
    hashes = {(dataset / path / ".hash").read_text() for path in ("by-label/a/by-ext/csv", "by-ext/csv/by-label/a")}
    assert hashes == {set_hash(BY_PATH[path] for path in ("one.csv", "sub/five.csv")) + "\n"}


def test_files_in_views_have_their_bytes_times_and_modes(dataset: Mounted) -> None:
    for view in ("by-label/a", "not/by-label/a", "by-ext/csv,txt", "filter/size_bytes__gt=0"):
        for path in files_in(dataset / view):
            shown, original = (dataset / view / path).stat(), (dataset / path).stat()
            assert (shown.st_size, shown.st_mtime_ns, shown.st_mode, shown.st_ino) == (
                original.st_size,
                original.st_mtime_ns,
                original.st_mode,
                original.st_ino,
            )
            assert (dataset / view / path).read_bytes() == BY_PATH[path].data


@pytest.mark.parametrize("copy", [["cp", "-r"], ["rsync", "-a"]], ids=lambda command: command[0])
def test_a_copy_of_a_view_is_a_dataset_with_its_folders_and_metadata(
    dataset: Mounted, tmp_path: Path, copy: list[str]
) -> None:
    subprocess.run([*copy, f"{dataset.root}/by-label/a/.", f"{tmp_path}/out/"], check=True)
    out = tmp_path / "out"
    assert files_in(out) == labelled("a")
    for path in labelled("a"):
        file = BY_PATH[path]
        assert (out / path).read_bytes() == file.data
        assert document(out / file.folder / ".octue")["datafiles"][file.name] == file.record
    assert document(out / ".octue")["dataset"] == PLAN.dataset
    assert set(document(out / "sub/.octue")) == {"datafiles"}
    assert set(document(out / "sub/.octue")["datafiles"]) == {"five.csv"}


@pytest.mark.parametrize("view", ["by-label/a", "sub/not/by-label/a", "by-ext/csv/order-by/-name"])
def test_tools_see_each_file_of_a_view_once(dataset: Mounted, view: str) -> None:
    found = subprocess.check_output(["find", ".", "-type", "f", "-print0"], cwd=dataset / view).decode().split("\0")
    listed = sorted(path.removeprefix("./") for path in found if path and not path.endswith(".octue"))
    assert listed == sorted(files_in(dataset / view))


# --- any view in any other, against a model ---------------------------------------------------------------------------

Says = Callable[[File], bool]


@dataclass(frozen=True)
class Subset:
    """What a directory shows, in plain Python: files below a folder, and perhaps an order."""

    files: tuple[File, ...]
    folder: str = ""
    order: Callable[[list[File]], list[File]] | None = None

    def where(self, says: Says) -> "Subset":
        return replace(self, files=tuple(file for file in self.files if says(file)))

    def down(self, name: str) -> "Subset":
        folder = f"{self.folder}/{name}".lstrip("/")
        return replace(
            self, files=tuple(file for file in self.files if file.path.startswith(folder + "/")), folder=folder
        )

    def names(self) -> dict[str, File]:
        if self.order is not None:
            ordered = self.order(sorted(self.files, key=lambda file: os.fsencode(file.path)))
            return {f"{number:06}_{file.name}": file for number, file in enumerate(ordered, 1)}
        skip = len(self.folder) + 1 if self.folder else 0
        return {file.path[skip:]: file for file in self.files}

    def folders(self) -> list[str]:
        return sorted({path.partition("/")[0] for path in self.names() if "/" in path})


def _ordered(key: Callable[[File], Any], reverse: bool, files: list[File]) -> list[File]:
    """Those with a key in its order, then the rest; equal ones stay as they stand, in both directions."""
    have = [file for file in files if key(file) is not None]
    return sorted(have, key=key, reverse=reverse) + [file for file in files if key(file) is None]


WORDS = ("north", "south", "a/b", "", "..", "5", 5, 5.5, True, None, [1])


def random_plan(chance: random.Random) -> Plan:
    files = {}
    for _ in range(180):
        depth = chance.randrange(4)
        folder = "/".join(chance.choice(("x", "y", "by-x", "z z")) for _ in range(depth))
        name = f"f{chance.randrange(30)}{chance.choice(('.csv', '.CSV', '.tar.gz', '', '._', '.txt'))}"
        path = f"{folder}/{name}".lstrip("/")
        files[path] = File(
            path,
            data=bytes(chance.randrange(3) for _ in range(chance.randrange(4))),
            labels=tuple(chance.sample(("a", "b", "c", "d-e"), chance.randrange(4))),
            tags={
                **({"k": chance.choice(WORDS)} if chance.random() < 0.6 else {}),
                **({"n": {"m": chance.choice(WORDS)}} if chance.random() < 0.3 else {}),
                **({"size": chance.randrange(4)} if chance.random() < 0.7 else {}),
            },
            timestamp=datetime(2020 + chance.randrange(2), 1 + chance.randrange(2), 1 + chance.randrange(2), tzinfo=UTC)
            if chance.random() < 0.5
            else None,
        )
    # A name that is a folder elsewhere in the same place cannot be on a disk.
    names_of_folders = {path.rpartition("/")[0] for path in files}
    return Plan(tuple(file for path, file in files.items() if path not in names_of_folders))


def _tag_text(file: File, key: str) -> str | None:
    value: Any = functools.reduce(
        lambda at, part: at.get(part, []) if isinstance(at, dict) else [], key.split("."), file.tags
    )
    if isinstance(value, list | dict):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _named(text: str) -> str:
    if text in ("", ".", ".."):
        return text.replace(".", "%2E") or "%"
    return text.replace("%", "%25").replace("/", "%2F").replace(",", "%2C")


def random_view(chance: random.Random, subset: Subset) -> tuple[str, Says, list[str]] | None:
    """One view with values that occur in the subset: its path, what it means, and what its folder lists (or [])."""
    kind = chance.choice(("by-label", "by-ext", "by-tag", "by-date", "by-hash", "filter", "filter"))
    if kind == "filter":
        number, word = chance.randrange(4), chance.choice(("a", "b", "d-e"))
        expressions: list[tuple[str, Says]] = [
            (f"size_bytes__gte={number}", lambda file: len(file.data) >= number),
            (f"labels__contains={word}", lambda file: word in file.labels),
            (f"labels__not_contains={word}", lambda file: word not in file.labels),
            (f"tags__size__lt={number}", lambda file: "size" in file.tags and file.tags["size"] < number),
            ("extension=csv", lambda file: file.extension == "csv"),
            ("timestamp__year_equals=2020", lambda file: bool(file.timestamp and file.timestamp.year == 2020)),
        ]
        chosen = chance.sample(expressions, chance.choice((1, 1, 2, 3)))
        return "filter/" + ",".join(text for text, _ in chosen), lambda file: all(it(file) for _, it in chosen), []

    def pick(values: Callable[[File], set[str]], path: str) -> tuple[str, Says, list[str]] | None:
        there = sorted({value for file in subset.files for value in values(file)})
        if not there:
            return None
        chosen = set(chance.sample(there, min(len(there), chance.choice((1, 1, 1, 2, 3)))))
        return f"{path}/{','.join(sorted(chosen))}", lambda file: bool(values(file) & chosen), there

    if kind == "by-label":
        return pick(lambda file: set(file.labels), kind)
    if kind == "by-ext":
        return pick(lambda file: {{"": "_", "_": "%5F"}.get(file.extension, file.extension)}, kind)
    if kind == "by-hash":
        return pick(lambda file: {url_safe(file.data)}, kind)
    if kind == "by-tag":
        key = chance.choice(("k", "n.m", "size"))
        return pick(lambda file: set() if (text := _tag_text(file, key)) is None else {_named(text)}, f"by-tag/{key}")
    days = sorted({file.timestamp.date() for file in subset.files if file.timestamp})
    if not days:
        return None
    day = chance.choice(days)
    listed = sorted({f"{it.day:02}" for it in days if (it.year, it.month) == (day.year, day.month)})
    return (
        f"by-date/{day:%Y/%m/%d}",
        lambda file: file.timestamp is not None and file.timestamp.date() == day,
        listed,
    )


ORDERS: dict[str, Callable[[File], Any]] = {
    "name": lambda file: file.name,
    "size_bytes": lambda file: len(file.data),
    "tags.size": lambda file: file.tags.get("size"),
    "timestamp": lambda file: file.timestamp,
    "extension": lambda file: file.extension,
}


def random_step(chance: random.Random, subset: Subset, path: str) -> tuple[str, Subset, tuple[str, list[str]] | None]:
    """One more step down: its path, what is there, and (folder, its list) where the folder lists values."""
    choice = chance.random()
    if choice < 0.15 and subset.order is None and subset.folders():
        name = chance.choice(subset.folders())
        return f"{path}/{name}", subset.down(name), None
    if choice < 0.25:
        attribute, minus = chance.choice(sorted(ORDERS)), chance.random() < 0.5
        order = functools.partial(_ordered, ORDERS[attribute], minus)
        return f"{path}/order-by/{'-' if minus else ''}{attribute}", replace(subset, order=order), None
    view = random_view(chance, subset)
    if view is None:
        return path, subset, None
    name, says, listed = view
    nots = chance.choice((0, 0, 0, 1, 2))
    meant: Says = (lambda file: not says(file)) if nots % 2 else says
    full = f"{path}{'/not' * nots}/{name}"
    return full, subset.where(meant), (full.rpartition("/")[0], listed) if listed else None


@pytest.fixture(scope="module", params=KINDS)
def random_dataset(request: pytest.FixtureRequest, gcs_server: GcsServer) -> Iterator[Mounted]:
    with mounted_plan(request.param, gcs_server, random_plan(random.Random(1))) as it:
        yield it


@pytest.mark.parametrize("seed", range(12))
def test_views_in_views_show_what_the_model_says(random_dataset: Mounted, seed: int) -> None:
    for number in range(6):
        chance = random.Random(seed * 1000 + number)
        path, subset = "", Subset(random_dataset.plan.files)
        for _ in range(chance.choice((1, 2, 3, 4, 5, 6, 6, 6))):
            for _ in range(8):  # rather a step that leaves several files, so that there is something to see below
                longer, smaller, listing = random_step(chance, subset, path)
                if len(smaller.files) > 2:
                    break
            path, subset = longer, smaller
            if listing is not None:
                assert names(random_dataset / listing[0].lstrip("/")) == listing[1], listing[0]
        top = random_dataset / path.lstrip("/")
        expected = subset.names()
        assert files_in(top) == set(expected), path
        assert (top / ".hash").read_text() == set_hash(subset.files) + "\n", path
        for name in chance.sample(sorted(expected), min(len(expected), 12)):
            assert (top / name).read_bytes() == expected[name].data, f"{path}/{name}"
