"""What the interop tests mount: datasets that the SDK itself writes, and golden ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GOLDEN = (2, 8, 14, 17, 21)
"""The golden datasets that get mounts of their own, local and in the cloud; a mount of their parent shows all."""


def _when(text: str) -> dict[str, str]:
    return {"_type": "datetime", "value": text}


@dataclass(frozen=True)
class Written:
    """A file, and the metadata that the SDK is told to store of it (None: it stores none)."""

    content: bytes
    metadata: dict[str, Any] | None = None


JSON_TYPES = {
    "cluster": 3,
    "maker": "Vestas",
    "serial": "2024",
    "ratio": 2.5,
    "tenths": 0.30000000000000004,
    "tiny": 5e-324,
    "huge": 1e300,
    "minus_zero": -0.0,
    "whole": 12.0,
    "infinite": float("inf"),
    "big": 2**70,
    "ok": True,
    "off": False,
    "nothing": None,
    "empty": "",
    "words": 'a "b" \\ c\n\t\u0001 / %2F , = {}',
    "unicode": "ünï — 風 🌀",
    "items": [1, "two", 2.5, None, True, {"k c": "x", "dot.ted": 1}, [7, []]],
    "none_in_it": [],
    "nested": {"a": {"b": 2, "é": "ü"}, "x.y": 1, "deep": [{"text": "Low"}], "empty": {}},
    "blank": {},
    "mixed": 5,
    "when": _when("2021-03-04T05:06:07"),
    "one_of": {"_type": "set", "items": ["only"]},
}

FILES = {
    "jan.csv": Written(b"1,2\n", {"labels": ["a"], "tags": JSON_TYPES, "timestamp": _when("2021-03-04T05:06:07")}),
    "feb.csv": Written(
        b"1,2\n3,4\n",
        {
            "labels": ["a", "b", "met-mast"],
            "tags": {"zeta": 1, "cluster": 4, "alpha": 2, "mixed": "Text", "maker": "vestas wind"},
            "timestamp": _when("2021-03-04T05:06:07+00:00"),
        },
    ),
    "Mär z.CSV": Written(
        b"x" * 5000,
        {
            "labels": ["b"],
            "tags": {"cluster": 3.0, "mixed": [1, "a", None], "ok": False, "items": ["two"]},
            "timestamp": _when("2021-03-04T05:06:07.123456+01:00"),
        },
    ),
    "empty": Written(b"", {"labels": ["2024"], "tags": {"cluster": -1, "mixed": None}, "timestamp": None}),
    ".hidden": Written(b"h", {"labels": [], "tags": {"mixed": True, "maker": "Siemens"}, "timestamp": None}),
    "no-metadata.bin": Written(bytes(range(256))),
    "trailing.": Written(b"t", {"labels": ["trailing"], "timestamp": _when("1969-12-31T23:59:59.5")}),
    "a,b 100%.tar.gz": Written(b"gz", {"labels": ["a"], "tags": {"mixed": 2.5, "cluster": 10}, "timestamp": None}),
    "2020/winter/jan.csv": Written(
        b"1,2\n",
        {
            "labels": ["a", "one"],
            "tags": {"cluster": 7, "mixed": {"a": 1}, "nested": {"a": {"b": 3}}},
            "timestamp": _when("2020-01-05T23:30:00-05:30"),
        },
    ),
    "2020/winter/feb.parquet": Written(
        b"PAR1" + b"\0" * 997 + b"PAR1",
        {
            "labels": ["met-mast"],
            "tags": {"mixed": _when("2021-03-04T05:06:07"), "maker": "V"},
            "timestamp": _when("2020-02-29T00:00:00"),
        },
    ),
    # An hour that New York has twice, one that it has not at all, and the day that it differs from UTC's.
    "2020/twice.csv": Written(b"2", {"labels": ["b"], "timestamp": _when("2021-11-07T01:30:00")}),
    "2020/never.csv": Written(b"0", {"tags": {"mixed": -3}, "timestamp": _when("2021-03-14T02:30:00.000001")}),
    "2020/late.csv": Written(b"l", {"labels": "a late", "timestamp": _when("2021-12-31T23:59:59+00:00")}),
    "2020/no metadata.csv": Written(b"n"),
    "2020/sub ,/%41/deep.csv": Written(b"3,4\n", {"labels": ["a"], "tags": {"mixed": "5", "cluster": 3}}),
}

DATASET = {
    "name": "Årø wind farm / 1",
    "labels": ["site", "north"],
    "tags": {
        "turbines": 4,
        "owner": "Ørsted",
        "position": {"lat": 54.9, "long": 9.7},
        "years": [2020, 2021],
        "z": None,
    },
}

NAMELESS_FILES = {
    "one.csv": Written(b"1", {"labels": ["a"], "tags": {"b": 1, "a": None}, "timestamp": _when("2022-06-07T08:09:10")}),
    "two.csv": Written(b"22", {"labels": ["a", "b"]}),
    "sub/three.txt": Written(b"333"),
}
EXTRA_FILES = {b"caf\xe9.csv": b"latin", b"new\nline \\ name.csv": b"n"}
"""What only a disk holds, beside the nameless dataset's files; links besides."""


# --- views: a path in the mount, and what the SDK's filters say of the same subset


@dataclass(frozen=True)
class ViewCase:
    """`path` in the mount; the SDK's steps (see `oracle.select`) to the same files; the real folder it is in.

    `is_top` where the path ends with a view, and so the dataset's own record is there.
    """

    path: str
    steps: tuple[dict[str, Any], ...]
    below: str = ""
    is_top: bool = True

    def __str__(self) -> str:
        return self.path


def _all(*expressions: str) -> dict[str, Any]:
    return {"any": list(expressions)}


def _not(*expressions: str) -> dict[str, Any]:
    return {"any": list(expressions), "not": True}


LABELLED_A = _all("labels__contains=a")
VIEWS = (
    ViewCase("by-label/a", (LABELLED_A,)),
    ViewCase("by-label/2024", (_all("labels__contains=2024"),)),
    ViewCase("by-label/met-mast,b", (_all("labels__contains=met-mast", "labels__contains=b"),)),
    ViewCase("not/by-label/a", (_not("labels__contains=a"),)),
    ViewCase("by-ext/csv", (_all("extension=csv"),)),
    ViewCase("by-ext/CSV,gz", (_all("extension=CSV", "extension=gz"),)),
    ViewCase("by-ext/_", (_all("extension="),)),
    ViewCase("not/by-ext/csv,_", (_not("extension=csv", "extension="),)),
    ViewCase("by-tag/cluster/3", (_all("tags__cluster__is=3"),)),
    ViewCase("by-tag/cluster/4,7", (_all("tags__cluster=4", "tags__cluster=7"),)),
    ViewCase("by-tag/maker/Vestas", (_all("tags__maker=Vestas"),)),
    ViewCase("by-tag/nested.a.b/3", (_all("tags__nested__a__b=3"),)),
    ViewCase("by-tag/unicode/ünï — 風 🌀", (_all("tags__unicode=ünï — 風 🌀"),)),
    ViewCase("by-tag/empty/%", (_all("tags__empty="),)),
    ViewCase("by-tag/ok/true", (_all("tags__ok__is=true"),)),
    ViewCase("not/by-tag/cluster/3", (_not("tags__cluster__is=3"),)),
    ViewCase("by-date/2021/03/04", (_all('timestamp__in_date_range=["2021-03-04","2021-03-04"]'),)),
    ViewCase("by-date/2020/01,02/05,29", (_all("timestamp__year_equals=2020"),)),
    ViewCase("by-hash/AAAAAA==", (_all("hash_value=AAAAAA=="),)),
    ViewCase("filter/size_bytes__gt=3", (_all("size_bytes__gt=3"),)),
    ViewCase("filter/labels__contains=a,tags__cluster__gte=4", (LABELLED_A, _all("tags__cluster__gte=4"))),
    ViewCase("filter/name__starts_with=a%2Cb 100%25", (_all("name__starts_with=a,b 100%"),)),
    ViewCase("filter/timestamp__hour_in=[5,23]", (_all("timestamp__hour_in=[5,23]"),)),
    ViewCase("not/filter/size_bytes__gt=3", (_not("size_bytes__gt=3"),)),
    ViewCase("by-label/a/by-ext/csv", (LABELLED_A, _all("extension=csv"))),
    ViewCase(
        "by-ext/csv/not/by-label/a/filter/size_bytes=1",
        (_all("extension=csv"), _not("labels__contains=a"), _all("size_bytes=1")),
    ),
    ViewCase("by-ext/csv/by-label/a/2020", (LABELLED_A, _all("extension=csv")), below="2020/", is_top=False),
    ViewCase("2020/by-label/a", (LABELLED_A,), below="2020/"),
    ViewCase("2020/winter", (), below="2020/winter/", is_top=False),
    ViewCase("2020/winter/not/by-ext/csv", (_not("extension=csv"),), below="2020/winter/"),
    ViewCase("filter/size_bytes__gt=99999", (_all("size_bytes__gt=99999"),)),
)

ORDERED_VIEWS = (
    ViewCase("order-by/name", ()),
    ViewCase("order-by/-size_bytes", ()),
    ViewCase("by-label/a/order-by/timestamp", (LABELLED_A,)),
    ViewCase("order-by/tags.cluster/by-ext/csv", (_all("extension=csv"),)),
    ViewCase("2020/order-by/name", (), below="2020/"),
)
"""Flat, with names of their own: the set's hash is the SDK's all the same."""


# --- mounts


MOUNTS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    **{
        f"{store} written in {zone}": (f"{store} written", zone, ())
        for store in ("local", "cloud")
        for zone in ("UTC", "America/New_York", "Asia/Kolkata")
    },
    "local nameless": ("local nameless", "Asia/Kolkata", ()),
    "cloud nameless": ("cloud nameless", "America/New_York", ()),
    **{
        f"{store} case{number}": (f"{store} case{number}", "UTC", ())
        for store in ("local", "cloud")
        for number in GOLDEN
    },
    "local written, not recursive": ("local written", "UTC", ("--no-recursive",)),
    "cloud written, not recursive": ("cloud written", "UTC", ("--no-recursive",)),
}
"""By name: source, the daemon's zone, options."""

WHOLE_MOUNTS = [name for name in MOUNTS if "not recursive" not in name]
WRITTEN_MOUNTS = [name for name in WHOLE_MOUNTS if "written" in name]
FLAT_MOUNTS = [name for name in MOUNTS if "not recursive" in name]
