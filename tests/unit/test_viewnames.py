"""Names of virtual folders: what stands for a label, an extension, a tag's value."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.model.viewnames import (
    alternatives,
    decode_extension,
    decode_name,
    encode_extension,
    encode_name,
    scalar_text,
    tag_entries,
)


@pytest.mark.parametrize(
    ("text", "component"),
    [
        ("plain", "plain"),
        ("with space", "with space"),
        ("Ä漢", "Ä漢"),
        ("a/b", "a%2Fb"),
        ("a,b", "a%2Cb"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        (".a", ".a"),
        ("", "%"),
        ("%", "%25"),
        ("a\nb", "a%0Ab"),
        ("\0", "%00"),
        ("\x7f", "%7F"),
        ("\x85", "%C2%85"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_a_value_is_a_name_with_what_no_name_can_hold_percent_encoded(text: str, component: str) -> None:
    assert encode_name(text) == component


def test_a_value_too_long_for_a_name_has_none() -> None:
    assert encode_name("a" * 255) == "a" * 255
    assert encode_name("a" * 256) is None
    assert encode_name("é" * 128) is None
    assert encode_name("%" * 86) is None


@given(st.text(max_size=20))
def test_a_name_stands_for_the_value_that_it_was_made_of(text: str) -> None:
    component = encode_name(text)
    assert component is not None
    assert decode_name(component) == text


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_two_values_never_share_a_name(one: str, other: str) -> None:
    assert (encode_name(one) == encode_name(other)) == (one == other)


@given(st.text(max_size=20))
def test_a_name_can_stand_in_a_path(text: str) -> None:
    component = encode_name(text)
    assert component
    assert component not in (".", "..")
    assert not set(component) & set("/\0,\n")


@given(st.lists(st.text(max_size=6), min_size=1, max_size=4))
def test_a_comma_separates_values(texts: list[str]) -> None:
    component = ",".join(encode_name(text) or "" for text in texts)
    assert alternatives(component) == texts


def test_empty_alternatives_are_no_values() -> None:
    assert alternatives("") == []
    assert alternatives(",a,,b,") == ["a", "b"]
    assert alternatives("%") == [""]


def test_undecodable_bytes_stand_as_they_are() -> None:
    assert encode_name("\udcff") == "\udcff"
    assert decode_name("\udcff") == "\udcff"


@pytest.mark.parametrize(
    ("extension", "component"),
    [("csv", "csv"), ("CSV", "CSV"), ("", "_"), ("_", "%5F"), ("__", "__"), ("a,b", "a%2Cb"), ("c d", "c d")],
)
def test_an_extension_has_a_name_of_its_own(extension: str, component: str) -> None:
    assert encode_extension(extension) == component
    assert decode_extension(component) == extension


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "word"),
        ("", ""),
        (5, "5"),
        ("5", "5"),
        (5.0, "5.0"),
        (-0.5, "-0.5"),
        (1e30, "1e+30"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        ([], None),
        ([1], None),
        ({}, None),
    ],
)
def test_scalars_have_a_text_and_lists_and_objects_none(value: object, text: str | None) -> None:
    assert scalar_text(value) == text


def test_nested_keys_are_joined_with_dots_and_lists_left_out() -> None:
    tags = {"a": 1, "n": {"deep": {"er": "x"}, "list": [1], "": None}, "l": ["x"], "e": {}}
    assert list(tag_entries(tags)) == [("a", "1"), ("n.deep.er", "x"), ("n.%", "null")]


def test_a_dot_inside_a_key_is_no_level() -> None:
    assert list(tag_entries({"n": {"a.b": 1, "a": {"b": 2}}})) == [("n.a%2Eb", "1"), ("n.a.b", "2")]


def test_a_key_with_a_slash_or_a_comma_is_encoded() -> None:
    assert list(tag_entries({"n": {"a/b,c%": "v"}})) == [("n.a%2Fb%2Cc%25", "v")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_leaves, value.values()))
    return 0 if isinstance(value, list) else 1


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_each_scalar_has_a_key_of_its_own(tags: dict[str, object]) -> None:
    entries = list(tag_entries(tags))
    assert len(entries) == _leaves(tags)
    assert len({key for key, _ in entries}) == len(entries), json.dumps(tags)


def test_text_that_has_no_bytes_comes_back_from_its_name() -> None:
    for text in ("\ud800", "a\ud800b", "\udcff", "\u00fc,/%"):
        name = encode_name(text)
        assert name is not None
        assert decode_name(name) == text
