"""Numbers of bytes as people write them."""

import pytest

from octuefs.commands.options import limits_of
from octuefs.errors import BadValue
from octuefs.model.sizes import parse_rates, parse_size

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("12B", 12),
        ("500M", 500 * MIB),
        ("500m", 500 * MIB),
        ("20G", 20 << 30),
        ("1.5GiB", 3 << 29),
        ("64 MiB", 64 * MIB),
        ("10KB", 10240),
        ("2T", 2 << 40),
        (" 1k ", 1024),
    ],
)
def test_a_size_is_a_number_with_a_power_of_1024(text: str, size: int) -> None:
    assert parse_size(text, "--cache-size") == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1,5G", "ten", "1e3", "5X", "1.G", "0x10", "9" * 30, "1iB", "inf"])
def test_what_is_no_size_is_refused_with_the_option_and_an_example(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_size(text, "--cache-size")
    assert str(caught.value) == f"--cache-size {text}: give a number of bytes, e.g. 500M, 20G or 1.5GiB"


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("10M", (10 * MIB, 10 * MIB)),
        ("10M:2M", (10 * MIB, 2 * MIB)),
        ("off:2M", (None, 2 * MIB)),
        ("1.5k:off", (1536, None)),
        ("OFF", (None, None)),
    ],
)
def test_a_rate_is_for_both_ways_or_for_up_and_down(text: str, rates: tuple[float | None, float | None]) -> None:
    assert parse_rates(text, "--bwlimit") == rates


@pytest.mark.parametrize("text", ["", ":", "10M:", "1M:2M:3M", "fast", "10M/s"])
def test_what_is_no_rate_is_refused_with_the_option_and_an_example(text: str) -> None:
    with pytest.raises(BadValue, match=f"^--bwlimit {text}: give bytes per second, e.g. 10M for both ways, or 10M:2M"):
        parse_rates(text, "--bwlimit")


@pytest.mark.parametrize("text", ["10", "0", "10M:10"])
def test_a_rate_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="less than 1K per second is none; 10M means 10 MiB per second"):
        parse_rates(text, "--bwlimit")


def test_each_option_of_speed_is_named_where_it_cannot_be() -> None:
    for number, option in enumerate(("--cache-size", "--read-ahead", "--memory-limit", "--bwlimit")):
        values = ["1G", "64M", "512M", "10M"]
        values[number] = "much"
        with pytest.raises(BadValue, match=f"^{option} much: "):
            limits_of(None, *values)
