"""NAME=SOURCE on a command line."""

from pathlib import Path

import pytest

from octuefs.commands.named_sources import is_named, parse_named
from octuefs.errors import BadValue

LINK = "https://host/b/p/.signed_metadata_files/x?Signature=5ec2e7=="


def test_sources_keep_their_order_and_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert list(parse_named(["z=a=b", "a=gs://bucket/x/", "link=" + LINK, "h=~/data", "ü b=."]).items()) == [
        ("z", f"{tmp_path}/a=b"),
        ("a", "gs://bucket/x"),
        ("link", LINK),
        ("h", "/home/me/data"),
        ("ü b", str(tmp_path)),
    ]


def test_what_has_a_name_is_told_from_paths_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "year=2024").mkdir()
    assert is_named("a=/data")
    assert is_named("year=2025")
    assert is_named("=x")
    for text in ("year=2024", "/data/year=2025", "./year=2025", "gs://bucket/year=2025", LINK, "data", ""):
        assert not is_named(text)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a=/x", "b=/y", "a=/z"], "two sources of one name: a"),
        (["a=/x", "/y"], "'/y' has no name"),
        (["=/x"], "empty"),
        (["..=/x"], "cannot be the name"),
        ([".octue=/x"], "cannot be the name"),
        (["a="], "a= names no source"),
        (["a=s3://b"], "a: cannot read s3://"),
        (["a=gs://"], "a: .*no bucket"),
        (["a=https://host?Signature=5ec2e7"], "a: the URL is not complete"),
        ([LINK], "'https://host/b/p/.signed_metadata_files/x' has no name"),
    ],
)
def test_what_cannot_be_is_refused_without_what_authorises_a_link(texts: list[str], words: str) -> None:
    with pytest.raises(BadValue, match=words) as caught:
        parse_named(texts)
    assert "5ec2e7" not in str(caught.value)
