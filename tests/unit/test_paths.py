"""Locations and relative paths."""

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.errors import BadValue
from octuefs.model.paths import (
    NAME_MAX,
    CloudLocation,
    LocalLocation,
    derived_id,
    join,
    name_of,
    parent_of,
    parse_location,
    path_bytes,
    problem_with_path,
)

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)
relative_paths = st.lists(names, min_size=1, max_size=4).map("/".join)


def test_a_cloud_location_is_a_bucket_and_a_prefix_without_outer_slashes() -> None:
    assert parse_location("gs://bucket/a/b/") == CloudLocation("bucket", "a/b")
    assert str(parse_location("gs://bucket/a/b/")) == "gs://bucket/a/b"


def test_a_bucket_alone_is_a_location_named_after_it() -> None:
    for text in ("gs://bucket", "gs://bucket/"):
        location = parse_location(text)
        assert location == CloudLocation("bucket", "")
        assert (location.name, str(location)) == ("bucket", "gs://bucket")
        assert location.object_prefix == ""
        assert location.of("a") == "gs://bucket/a"


def test_a_location_is_named_after_its_last_component() -> None:
    assert parse_location("gs://bucket/a/b").name == "b"
    assert parse_location("/a/b/").name == "b"


def test_files_of_a_location_have_full_paths() -> None:
    assert CloudLocation("bucket", "p").of("a/b") == "gs://bucket/p/a/b"
    assert CloudLocation("bucket", "p").object_prefix == "p/"
    assert CloudLocation("bucket", "p").of("") == "gs://bucket/p"
    assert LocalLocation("/d").of("a/b") == "/d/a/b"
    assert LocalLocation("/d").of("") == "/d"


def test_a_local_location_is_absolute_and_its_tilde_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse_location("~/data") == LocalLocation("/home/somebody/data")
    assert parse_location("data/../x") == LocalLocation(os.path.abspath("x"))


@pytest.mark.parametrize(
    "text", ["", "gs://", "gs:///a", "gs://b/a//c", "gs://b/./c", "gs://b/../c", "s3://b/c", "http://x"]
)
def test_what_cannot_be_a_source_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_location(text)


@given(relative_paths)
def test_a_path_is_its_parent_and_its_name(path: str) -> None:
    assert join(parent_of(path), name_of(path)) == path
    assert problem_with_path(path) is None


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "a/..", "../a", "a/./b", "a\0b", "x" * (NAME_MAX + 1), "ü" * 128, "\ud800"]
)
def test_what_cannot_be_a_path_is_told(path: str) -> None:
    assert problem_with_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", "...", ".octue", "x" * NAME_MAX, "ü" * 127, os.fsdecode(b"\xff\xfe")])
def test_what_can_be_a_path_has_no_problem(path: str) -> None:
    assert problem_with_path(path) is None


@given(st.binary(min_size=1))
def test_any_bytes_survive_as_a_path(data: bytes) -> None:
    assert path_bytes(data.decode("utf-8", "surrogateescape")) == data


def test_a_derived_id_is_a_stable_uuid_of_its_path() -> None:
    assert derived_id("gs://b/a") == derived_id("gs://b/a") != derived_id("gs://b/b")
    assert uuid.UUID(derived_id(os.fsdecode(b"/\xff"))).version == 5
