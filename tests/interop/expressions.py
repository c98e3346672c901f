"""Filters for the differential test: every attribute with every action, and values of right and wrong types."""

import itertools
import random
from collections.abc import Iterator


def _both(*names: str) -> list[str]:
    return [form for name in names for form in (name, "is_not" if name == "is" else f"not_{name}")]


COMPARISONS = ["lt", "lte", "gt", "gte"]
NUMBER = [*_both("is", "equals", "in_range"), *COMPARISONS]
TEXT = [*NUMBER, *_both("iequals", "contains", "icontains", "starts_with", "ends_with")]
LABELS = _both("is", "equals", "contains", "any_label_contains", "any_label_starts_with", "any_label_ends_with")
ITERABLE = _both("is", "equals", "contains", "icontains")
PARTS = ["year", "month", "day", "weekday", "iso_weekday", "hour", "minute", "second"]
CLOCK = ["time_equals", "time_in", "in_time_range"]
DATETIME = [*NUMBER, *(f"{part}_{form}" for part in PARTS for form in ("equals", "in")), *CLOCK, "in_date_range"]
ANY = list(dict.fromkeys([*TEXT, *LABELS, *DATETIME]))

TEXTS = [
    "Vestas",
    "VESTAS",
    "es",
    "",
    "V",
    "jan.csv",
    ".CSV",
    "2024",
    "null",
    "true",
    '"a"',
    '["a","z"]',
    '["a"]',
    "ü",
    "[1,2]",
    "a,b 100%",
    "=",
    "2021-03-04",
]
NUMBERS = [
    "0",
    "3",
    "3.0",
    "5.5",
    "-1",
    "1e3",
    '"3"',
    "three",
    "true",
    "null",
    "[1,5]",
    "[5,1]",
    '["a","z"]',
    "[1]",
    "{}",
    "[null,3]",
    "Infinity",
]
CONSTANTS = ["true", "false", "null", "1", "0", '"true"', "[]", "x"]
LABEL_VALUES = [
    "a",
    "b",
    "2024",
    "20",
    "",
    "met",
    "mast",
    "-",
    '["a"]',
    '{"_type":"set","items":["a"]}',
    "null",
    "true",
    '{"_type":"set","items":["a","one"]}',
    '{"_type":"set","items":[]}',
    "a late",
]
CONTAINED = [
    "two",
    "a",
    "1",
    "7",
    "null",
    "[]",
    "{}",
    "[7,[]]",
    '{"a":{"b":3}}',
    '["two"]',
    '{"a":1}',
    "empty",
    "only",
    '{"_type":"set","items":["only"]}',
    "TWO",
]
MOMENTS = [
    "2021-03-04",
    "2021-03-04T05:06:07",
    "2021-03-04T05:06:07+00:00",
    "2021-03-04T06:06:07+01:00",
    "garbage",
    "2020-01-06T05:00:00Z",
    "5",
    "null",
    '["2020-01-01","2021-03-05"]',
    '["2021-01-01T00:00:00+00:00","2021-12-31"]',
    '["2020-01-01T00:00:00Z","2022-01-01T00:00:00-05:00"]',
    '["x","y"]',
    "[1,2]",
    '{"_type":"datetime","value":"2021-03-04T05:06:07"}',
    "[]",
]
CLOCKS = ["05:06:07", "00:00", '["05:06:07","23:59:59.500000"]', '["00:00","12:00"]', "5", '["a","b"]', "null"]
PART_VALUES = ["2021", "3", "4", "5", "[3,5,2021]", "[]", "0", "2021.0", "null", "abc", '["3"]', "[0,1,6,7]"]

TEXT_ATTRIBUTES = [
    "name",
    "extension",
    "hash_value",
    "tags__maker",
    "tags__serial",
    "tags__items__1",
    "tags__maker__0",
    "tags__nested__deep__0__text",
]
NUMBER_ATTRIBUTES = [
    "size_bytes",
    "posix_timestamp",
    "tags__cluster",
    "tags__ratio",
    "tags__items__0",
    "tags__items__-1__0",
    "timestamp__minute",
    "timestamp__microsecond",
]
CONSTANT_ATTRIBUTES = [
    "exists_locally",
    "exists_in_cloud",
    "tags__ok",
    "tags__nothing",
    "tags__items__3",
    "tags__items__4",
]
ITERABLE_ATTRIBUTES = ["tags", "tags__items", "tags__nested", "tags__nested__a", "tags__blank", "tags__one_of"]

SPECIAL = [
    "name=jan.csv",
    "tags.cluster__gt=3",
    "tags.nested.a.b=2",
    "tags__nested__a__é=ü",
    "tags__nested__x\\.y=1",
    "tags.items[1]=two",
    "tags__items__5__k c=x",
    "tags__items__99=1",
    "tags__cluster__real=3",
    "tags__items__0__imag=0",
    "tags__when=2021-03-04T05:06:07",
    "tags__when__gt=2021-01-01T00:00:00Z",
    "tags__when__year=2021",
    "tags__unicode=ünï — 風 🌀",
    "tags__unicode__icontains=ÜNÏ",
    "tags__empty=",
    "tags__infinite=Infinity",
    "tags__tiny__gt=0",
    "tags__big=1180591620717411303424",
    "tags__big__gt=1e20",
    "tags__tenths=0.30000000000000004",
    "tags__whole=12",
    "tags__huge__lt=Infinity",
    "tags__minus_zero=0",
    "tags__words__contains=%2F , =",
    'tags__words__contains="\\n\\t"',
    "tags__missing=1",
    "tags__missing__not_equals=1",
    "tags__missing__is_not=null",
    "tags__cluster__x__not_equals=1",
    "timestamp__is=null",
    "timestamp__is_not=null",
    "timestamp=null",
    "timestamp__not_equals=null",
    "timestamp__tzinfo=null",
    "timestamp__tzinfo__is=null",
    "timestamp__tzinfo__is_not=null",
    "timestamp__fold=0",
    "timestamp__year=2021",
    "timestamp__year__in_range=[2020,2021]",
    "timestamp__day__is_not=4",
    "posix_timestamp__is=null",
    "labels=a",
    "cloud_path__is=null",
    "cloud_path__ends_with=.csv",
    "id__is=null",
    "size_bytes__is=1",
    "metadata_hash_value__is_not=x y",
    "extension__equals=csv",
]

IMPOSSIBLE = [
    "nmae=x",
    "name__frobnicate=x",
    "size_bytes__contains=1",
    "labels__gt=a",
    "timestamp__contains=2021",
    "exists_locally__lt=1",
    "__equals=1",
    "labels__iequals=a",
    "name__year_in=[1]",
    "=1",
    "x",
]
"""What no attribute or action of Octue's could ever mean."""


THE_INTERPRETERS_AFFAIR = {"", "V", "a", '"a"', "ü", "=", "x", "3.0", "5.5", "-1", "1e3", "Infinity", "2024", '"3"'}
"""Values of which Python has one object, or several, as it pleases."""


def _by_tables() -> Iterator[tuple[str, str, str]]:
    yield from itertools.product(TEXT_ATTRIBUTES, TEXT, TEXTS)
    yield from itertools.product(NUMBER_ATTRIBUTES, NUMBER, NUMBERS)
    yield from itertools.product(CONSTANT_ATTRIBUTES, _both("is", "equals"), CONSTANTS)
    yield from itertools.product(["labels"], LABELS, LABEL_VALUES)
    yield from itertools.product(ITERABLE_ATTRIBUTES, ITERABLE, CONTAINED)
    yield from itertools.product(["timestamp", "tags__when"], [*NUMBER, "in_date_range"], MOMENTS)
    yield from itertools.product(["timestamp", "tags__when"], CLOCK, CLOCKS)
    for part, form in itertools.product(PARTS, ("equals", "in")):
        yield from (("timestamp", f"{part}_{form}", value) for value in PART_VALUES)
    # A tag that is of another type in every file, asked for with everything.
    yield from itertools.product(
        ["tags__mixed"], ANY, [*TEXTS[::3], *NUMBERS[::2], *CONSTANTS[:2], *CONTAINED[::4], *MOMENTS[:2]]
    )


SHARE = 0.35
"""Of some 7,000, what a test run has the time for (but all on timestamps); 1 asks for all."""


def expressions() -> list[str]:
    """A share of them, without those whose answer is the interpreter's own affair in the SDK.

    `is` compares identity there: DESIGN says never for texts, and as equal for numbers of one type.
    """
    found = []
    for attribute, action, value in _by_tables():
        if action in ("is", "is_not") and value in THE_INTERPRETERS_AFFAIR:
            continue
        found.append(f"{attribute}__{action}={value}")
        if action == "equals":
            found.append(f"{attribute}={value}")
    chosen = set(random.Random(69).sample(found, int(SHARE * len(found))))
    return list(dict.fromkeys([*(it for it in found if it in chosen or it.startswith("timestamp__")), *SPECIAL]))


def component(expression: str) -> str:
    """The name below `filter/` of an expression: commas inside JSON may stand as they are, elsewhere they may not."""
    encoded = expression.replace("%", "%25").replace("/", "%2F")
    name, _, value = encoded.partition("=")
    return f"{name}={value}" if value.startswith(("[", "{")) else encoded.replace(",", "%2C")
