"""`order-by` puts values in the order in which the SDK's `order_by` does."""

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from interop.datasets import GOLDEN
from interop.expressions import component
from interop.world import Sdk, Sources

from support import golden

# An ordering, and filters that leave only members which the SDK can compare with each other.
ORDERINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("name", ()),
    ("size_bytes", ()),
    ("hash_value", ()),
    ("extension", ()),
    ("timestamp", ("timestamp__tzinfo=null",)),
    (
        "timestamp",
        ("timestamp__is_not=null", "timestamp__not_equals=2021-03-04", "labels__contains=b", "name__iequals=x"),
    ),
    ("posix_timestamp", ("posix_timestamp__not_equals=null", "posix_timestamp__gte=-1e12")),
    ("timestamp.month", ("timestamp__month__gt=0",)),
    ("tags.cluster", ("tags__cluster__lt=1e9",)),
    ("tags__cluster", ("tags__cluster__lt=1e9", "labels__contains=a")),
    ("tags.maker", ("tags__maker__gte=A",)),
    ("tags.nested.a.b", ("tags__nested__a__b__gt=0",)),
)
every_ordering = pytest.mark.parametrize("ordering", ORDERINGS, ids=lambda it: ",".join((it[0], *it[1])))
every_store = pytest.mark.parametrize("store", ["local", "cloud"])


@pytest.fixture(scope="module")
def ordered(sources: Sources, sdk: Sdk) -> Mapping[Any, Any]:
    keys = [
        (store, attribute, expressions, reverse)
        for store in ("local", "cloud")
        for attribute, expressions in ORDERINGS
        for reverse in (False, True)
    ]
    answers = sdk.ask(
        [
            (
                "order",
                {
                    "path": sources[f"{store} written"].location,
                    "attribute": attribute,
                    "reverse": reverse,
                    "expressions": expressions,
                },
            )
            for store, attribute, expressions, reverse in keys
        ]
    )
    return dict(zip(keys, answers, strict=True))


def paths_in_order(root: Path, view: Path) -> list[str]:
    """The files of an ordered view by their paths in the dataset: a file has one inode number everywhere."""
    by_inode = {path.stat().st_ino: str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    names = sorted(name for name in os.listdir(view) if name != ".octue")
    assert [name.split("_", 1)[0] for name in names] == [f"{number:06}" for number in range(1, len(names) + 1)]
    return [by_inode[os.stat(view / name).st_ino] for name in names]


@every_store
@every_ordering
@pytest.mark.parametrize("reverse", [False, True], ids=["ascending", "descending"])
def test_values_stand_in_the_sdk_s_order(
    store: str,
    ordering: tuple[str, tuple[str, ...]],
    reverse: bool,
    mounts: Mapping[str, Path],
    ordered: Mapping[Any, Any],
) -> None:
    attribute, expressions = ordering
    expected = [(path, json.loads(value)) for path, value in ordered[store, attribute, expressions, reverse]]
    values = dict(expected)
    root = mounts[f"{store} written in UTC"]
    flat = f"{'-' if reverse else ''}{attribute}"
    above = root / "filter" / ",".join(map(component, expressions)) if expressions else root
    below = root / "order-by" / flat / "filter" / ",".join(map(component, expressions))
    for view in (above / "order-by" / flat, *([below] if expressions else [])):
        paths = paths_in_order(root, view)
        assert [values[path] for path in paths] == [value for _, value in expected]
        for one, other in itertools.pairwise(paths):
            if values[one] == values[other]:
                assert os.fsencode(one) < os.fsencode(other), "ties are by path, in both directions"


@every_store
@every_ordering
def test_members_without_a_place_come_last(
    store: str, ordering: tuple[str, tuple[str, ...]], mounts: Mapping[str, Path], ordered: Mapping[Any, Any]
) -> None:
    attribute, expressions = ordering
    root = mounts[f"{store} written in UTC"]
    placed = {path for path, _ in ordered[store, attribute, expressions, False]}
    if expressions and len(expressions) == 1 and attribute != "timestamp":
        for flat in (attribute, f"-{attribute}"):
            paths = paths_in_order(root, root / "order-by" / flat)
            assert len(paths) == 15
            assert set(paths[: len(placed)]) == placed


@every_store
@pytest.mark.parametrize("number", GOLDEN)
def test_golden_orderings_are_those_of_a_mount(store: str, number: int, mounts: Mapping[str, Path]) -> None:
    root = mounts[f"{store} case{number}"]
    for attribute, expected in golden.cases()[number].order_by.items():
        if isinstance(expected, list):
            values = dict(expected)
            paths = paths_in_order(root, root / "order-by" / attribute)
            assert [json.dumps(values[path]) for path in paths] == [json.dumps(value) for _, value in expected]
