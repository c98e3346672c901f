"""Filters, differentially: for thousands of expressions a view holds the files that the SDK says satisfy them."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.datasets import GOLDEN
from interop.expressions import ANY, IMPOSSIBLE, component, expressions
from interop.world import Sdk, Sources

from support import golden

every_store = pytest.mark.parametrize("store", ["local", "cloud"])

EXPRESSIONS = expressions()
SAMPLE = EXPRESSIONS[::3]
GOLDEN_SAMPLE = EXPRESSIONS[3::23]


def in_hashes(view: Path) -> list[str]:
    """The files of a view in one read, whatever their folders; no view (ENOENT) is no file."""
    try:
        text = (view / ".hashes").read_text()
    except FileNotFoundError:
        return []
    return sorted(line.split("  ", 1)[1] for line in text.splitlines())


def listed(view: Path) -> list[str]:
    """The same as `find` sees it."""
    return sorted(
        os.path.relpath(os.path.join(parent, name), view)
        for parent, _, names in os.walk(view)
        for name in names
        if name != ".octue"
    )


def differences(mount: Path, expected: Mapping[str, list[str]]) -> dict[str, Any]:
    wrong = {}
    for expression, files in expected.items():
        found = in_hashes(mount / "filter" / component(expression))
        if found != files:
            wrong[expression] = {"ours": found, "the SDK's": files}
    return wrong


@pytest.fixture(scope="module")
def satisfied(sources: Sources, sdk: Sdk) -> Mapping[str, Mapping[str, list[str]]]:
    """By dataset: the paths that satisfy each expression, says the SDK."""
    asked = {"local written": EXPRESSIONS, "cloud written": SAMPLE}
    asked |= {f"{store} case{number}": GOLDEN_SAMPLE for store in ("local", "cloud") for number in GOLDEN}
    answers = sdk.ask(
        [("filter_all", {"path": sources[name].location, "expressions": those}) for name, those in asked.items()]
    )
    return {
        name: dict(zip(those, found, strict=True)) for (name, those), found in zip(asked.items(), answers, strict=True)
    }


def test_the_expressions_use_every_action_and_tell_files_apart(
    satisfied: Mapping[str, Mapping[str, list[str]]], sdk: Sdk
) -> None:
    (actions,) = sdk.ask([("actions", {})])
    assert set(actions) == set(ANY)
    found = satisfied["local written"]
    assert len({tuple(files) for files in found.values()}) > 80
    for action in actions:
        mine = [files for expression, files in found.items() if f"__{action}=" in expression]
        assert any(mine), f"no file satisfies any expression with {action}"
        assert any(len(files) < 15 for files in mine), f"{action} leaves nothing out"


def test_local_filters_find_what_the_sdk_finds(
    mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    assert differences(mounts["local written in UTC"], satisfied["local written"]) == {}


def test_cloud_filters_find_what_the_sdk_finds(
    mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    assert differences(mounts["cloud written in UTC"], satisfied["cloud written"]) == {}


@every_store
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_filters_find_the_same_in_every_zone(
    store: str, zone: str, mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    # POSIX seconds of a time without offset are those of the daemon's zone, as they are of the SDK's process.
    mine = [it for it in SAMPLE if "timestamp" in it or "when" in it or "mixed" in it]
    expected = {it: satisfied[f"{store} written"][it] for it in mine if not it.startswith("posix_timestamp")}
    assert len(expected) > 100
    assert differences(mounts[f"{store} written in {zone}"], expected) == {}


@every_store
def test_find_in_a_filter_s_folder_finds_what_the_sdk_finds(
    store: str, mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    for expression in SAMPLE[::8]:
        view = mounts[f"{store} written in UTC"] / "filter" / component(expression)
        assert listed(view) == satisfied[f"{store} written"][expression], expression


@every_store
def test_the_rest_of_a_filter_is_what_does_not_satisfy_it(
    store: str, mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    mount = mounts[f"{store} written in UTC"]
    everything = set(in_hashes(mount))
    for expression in SAMPLE[4::16]:
        if (mount / "filter" / component(expression)).exists():
            rest = in_hashes(mount / "not" / "filter" / component(expression))
            assert set(rest) == everything - set(satisfied[f"{store} written"][expression]), expression


@every_store
def test_a_comma_between_filters_means_and(
    store: str, mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    mount, found = mounts[f"{store} written in UTC"], satisfied[f"{store} written"]
    some = [it for it in SAMPLE if len(found[it]) > 4][::5]
    assert len(some) > 20
    for one, other in itertools.pairwise(some):
        name = f"{component(one)},{component(other)}"
        assert in_hashes(mount / "filter" / name) == sorted({*found[one]} & {*found[other]}), name


@every_store
@pytest.mark.parametrize("number", GOLDEN)
def test_filters_of_golden_datasets_find_what_the_sdk_finds(
    store: str, number: int, mounts: Mapping[str, Path], satisfied: Mapping[str, Mapping[str, list[str]]]
) -> None:
    assert differences(mounts[f"{store} case{number}"], satisfied[f"{store} case{number}"]) == {}


@every_store
@pytest.mark.parametrize("number", GOLDEN)
def test_golden_filters_find_in_a_mount_what_they_found_in_the_sdk(
    store: str, number: int, mounts: Mapping[str, Path]
) -> None:
    for keyword, files in golden.cases()[number].filters.items():
        name, value = keyword.strip("{}").split(": ", 1)
        if isinstance(files, list):
            view = mounts[f"{store} case{number}"] / "filter" / component(name.strip(chr(34)) + "=" + value)
            assert in_hashes(view) == sorted(files), keyword


@every_store
@pytest.mark.parametrize("expression", IMPOSSIBLE)
def test_what_could_never_be_a_filter_is_no_path(store: str, expression: str, mounts: Mapping[str, Path]) -> None:
    assert not (mounts[f"{store} written in UTC"] / "filter" / component(expression)).exists()


def test_every_other_expression_is_a_path(mounts: Mapping[str, Path]) -> None:
    views = mounts["local written in UTC"] / "filter"
    # A part of a timestamp that a null one lacks, an action that a null tag lacks: a path all the same.
    assert [it for it in EXPRESSIONS if not (views / component(it)).is_dir()] == []
