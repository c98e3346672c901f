"""Every file, hash, filter and ordering of the golden datasets: what the SDK says, the model says."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from octuefs.model.filters import parse_filter, parse_filters
from octuefs.model.hashes import encode_crc32c, extend_crc32c, hash_of_manifest, hash_of_set
from octuefs.model.metadata import (
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    datafile_metadata_hash,
    dataset_metadata_hash,
    decode_custom_metadata,
    decode_octue,
    encode_custom_metadata,
    encode_octue,
    extension_of,
)
from octuefs.model.ordering import parse_ordering
from octuefs.model.paths import join, name_of, parent_of, path_bytes
from support.golden import Case, cases, manifests, materialise

every_case = pytest.mark.parametrize("case", cases(), ids=str)


@dataclass(frozen=True)
class GoldenMember:
    """A datafile as filters see it, made from a case's files and `.octue` texts alone."""

    path: str
    content: bytes
    metadata: DatafileMetadata
    cloud_path: str | None = None
    exists_in_cloud: bool | None = None
    exists_locally: bool = True

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def extension(self) -> str:
        return extension_of(self.name)

    @property
    def id(self) -> str:
        return self.metadata.id or ""

    @property
    def timestamp(self) -> datetime | None:
        return self.metadata.timestamp

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def labels(self) -> frozenset[str]:
        return self.metadata.labels

    @property
    def tags(self) -> Mapping[str, Any]:
        return self.metadata.tags

    @property
    def hash_value(self) -> str:
        return encode_crc32c(extend_crc32c(0, self.content))

    @property
    def metadata_hash_value(self) -> str:
        return datafile_metadata_hash(self.metadata)

    @property
    def local_path(self) -> str:
        return f"/dataset/{self.path}"


def documents_of(case: Case) -> dict[str, OctueDocument]:
    """Return the documents of a case by folder."""
    documents = {}
    for path, text in case.octue.items():
        documents[parent_of(path)], problems = decode_octue(text.encode())
        assert problems == []
    return documents


def members_of(case: Case) -> list[GoldenMember]:
    documents = documents_of(case)
    return [
        GoldenMember(
            path,
            content,
            documents.get(parent_of(path), OctueDocument()).datafiles.get(name_of(path), DatafileMetadata()),
        )
        for path, content in case.files.items()
    ]


@every_case
def test_octue_files_are_written_as_the_sdk_writes_them(case: Case) -> None:
    for text in case.octue.values():
        document, problems = decode_octue(text.encode())
        assert problems == []
        assert encode_octue(document).decode() == text
        assert encode_octue(replace(document, order=())).decode() == text


@every_case
def test_datafiles_have_the_metadata_and_hashes_that_the_sdk_says(case: Case) -> None:
    members = members_of(case)
    assert {member.path for member in members} == set(case.datafiles)
    for member in members:
        golden = case.datafiles[member.path]
        assert member.name == golden["name"]
        assert member.extension == golden["extension"]
        assert member.metadata.id == golden["id"]
        assert sorted(member.labels) == golden["labels"]
        assert member.tags == golden["tags"]
        assert (member.timestamp.isoformat() if member.timestamp else None) == golden["timestamp"]
        assert member.size_bytes == golden["size_bytes"]
        assert member.hash_value == golden["hash_value"]
        if golden["metadata_hash_value"] is None:
            assert len(member.labels) > 1, "only the order of labels lets the SDK's hash vary"
        else:
            assert member.metadata_hash_value == golden["metadata_hash_value"]


@every_case
def test_datasets_have_the_metadata_and_hashes_that_the_sdk_says(case: Case) -> None:
    record = documents_of(case).get("", OctueDocument()).dataset or DatasetMetadata()
    assert record.id == case.dataset["id"]
    assert record.name == case.dataset["name"]
    assert sorted(record.labels) == case.dataset["labels"]
    assert record.tags == case.dataset["tags"]
    assert hash_of_set(member.hash_value for member in members_of(case)) == case.dataset["hash_value"]
    if case.dataset["metadata_hash_value"] is None:
        assert len(record.labels) > 1 or record.name is None, "only labels and the folder's name let it vary"
    else:
        assert dataset_metadata_hash(record, case.dataset["name"]) == case.dataset["metadata_hash_value"]


@every_case
def test_metadata_survives_the_way_through_a_bucket(case: Case) -> None:
    for member in members_of(case):
        assert decode_custom_metadata(encode_custom_metadata(member.metadata)) == (member.metadata, [])


# Where the SDK raises for some members, those that it does not raise for decide; said here in plain Python.
PER_MEMBER: Mapping[str, Callable[[Mapping[str, Any], datetime], bool]] = {
    '{"tags__cluster": 3}': lambda tags, when: tags.get("cluster") == 3,
    '{"timestamp__hour_equals": 5}': lambda tags, when: when.hour == 5,
    '{"timestamp__iso_weekday_equals": 4}': lambda tags, when: when.isoweekday() == 4,
    '{"timestamp__month_in": [1, 2, 3, 4, 5, 6]}': lambda tags, when: when.month <= 6,
    '{"timestamp__weekday_in": [0, 1, 2]}': lambda tags, when: when.weekday() <= 2,
    '{"timestamp__year_equals": 2021}': lambda tags, when: when.year == 2021,
    '{"timestamp__year_in": [2020, 2022, 2024]}': lambda tags, when: when.year in (2020, 2022, 2024),
}


def expected_members(case: Case, keyword: str) -> set[str]:
    golden = case.filters[keyword]
    if isinstance(golden, list):
        return set(golden)
    test = PER_MEMBER[keyword]
    found = set()
    for path, datafile in case.datafiles.items():
        when = datetime.fromisoformat(datafile["timestamp"]) if datafile["timestamp"] else None
        if (when is not None or not keyword.startswith('{"timestamp')) and test(datafile["tags"], when or datetime.min):
            found.add(path)
    return found


@every_case
def test_filters_find_what_the_sdk_finds(case: Case) -> None:
    members = members_of(case)
    for keyword in case.filters:
        ((name, value),) = json.loads(keyword).items()
        expected = expected_members(case, keyword)
        expressions = [f"{name}={json.dumps(value)}"]
        if isinstance(value, str):
            expressions.append(f"{name}={value}")
        for expression in expressions:
            by_text = parse_filter(expression)
            (by_path,) = parse_filters(expression.replace("%", "%25"))
            assert by_path == by_text
            assert {member.path for member in members if by_text.matches(member)} == expected, expression


@every_case
def test_orderings_are_those_of_the_sdk_with_ties_by_path(case: Case) -> None:
    members = members_of(case)
    for attribute, golden in case.order_by.items():
        ordering = parse_ordering(attribute)
        ordered = ordering.sort(members, path=lambda member: path_bytes(member.path))
        assert sorted(member.path for member in ordered) == sorted(case.files)
        values = [ordering.path.of(member) for member in ordered]
        if isinstance(golden, list):
            assert values == [value for _, value in golden]
            assert dict(golden) == {member.path: ordering.path.of(member) for member in ordered}
        else:
            clusters = [member.tags["cluster"] for member in ordered if "cluster" in member.tags]
            assert values[: len(clusters)] == sorted(clusters)
        for first, second in itertools.pairwise(ordered):
            if ordering.path.of(first) == ordering.path.of(second):
                assert path_bytes(first.path) < path_bytes(second.path)


def test_every_error_in_the_golden_filters_has_its_expectation() -> None:
    raising = {key for case in cases() for key, found in case.filters.items() if not isinstance(found, list)}
    assert raising == set(PER_MEMBER)


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: "+".join(manifest["cases"]) or "empty")
def test_manifests_have_the_hashes_that_the_sdk_says(manifest: Mapping[str, Any]) -> None:
    datasets = []
    for name, number in manifest["cases"].items():
        datafiles = cases()[number].datafiles
        paths = manifest.get("files", datafiles)
        datasets.append((name, hash_of_set(datafiles[path]["hash_value"] for path in paths)))
    assert hash_of_manifest(datasets) == manifest["hash_value"]


def test_a_case_can_be_written_to_disk(tmp_path: Path) -> None:
    for case in cases():
        root = materialise(case, tmp_path / str(case))
        for path, content in case.files.items():
            assert (root / path).read_bytes() == content
        for path, text in case.octue.items():
            document, _ = decode_octue((root / path).read_bytes())
            if document.dataset is not None:
                assert document.dataset.unread["path"] == str(root)
                assert "{root}" in text
            assert join(parent_of(path), ".octue") == path
