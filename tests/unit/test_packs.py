"""Packed objects: what is unpacked is what was packed, to the byte."""

from hypothesis import given, settings
from hypothesis import strategies as st

from octuefs.facts.described import describe_again, described
from octuefs.facts.pack import Bucket, Draft, Pack, pack
from octuefs.facts.templates import OWN_KEYS, Templates
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.model.paths import CloudLocation
from octuefs.stores.base import Kind, ObjectInfo, Ownership
from octuefs.stores.gcs_resource import describe, inode_of

PLACE = CloudLocation("bucket", "data")
OWN = Ownership(uid=1, gid=2, file_mode=0o640, dir_mode=0o750)
TEXTS = st.sampled_from(
    [
        *("", "null", "x\0y", "\ud800", '"', '"6f1f8d1e-0f5c-4c57-8c2a-111111111111"'),
        *('"6F1F8D1E-0F5C-4C57-8C2A-111111111111"', "6f1f8d1e-0f5c-4c57-8c2a-111111111111", "17", "1700000000.25"),
        *('{"_type": "datetime", "value": "2024-01-01T00:00:00"}', '{"_type": "datetime", "value": "2024-01-01"}'),
        *('{"_type": "datetime", "value": "2024-01-01T00:00:00.5+01:00"}', '{"_type": "datetime", "value": "no"}'),
        *('{"_type": "datetime", "value": "2024\\u002d01-01"}', '{"_type":"datetime","value":"2024-01-01"}'),
        *('["a"]', '{"_type": "set", "items": ["a", "b"]}', '{"k": {"j": 1}}', "NOT A LABEL!"),
    ]
)
KEYS = st.sampled_from(
    [*OWN_KEYS, "octue__labels", "octue__tags", "octue__sdk_version", "id", "labels", "goog-reserved-posix-mode", "own"]
)
CUSTOM = st.dictionaries(KEYS, TEXTS, max_size=6)
NUMBERS = st.sampled_from([0, 1, 255, (1 << 31) + 5, (1 << 53) + 1, (1 << 62) + 3])


def info_of(path: str, custom: dict[str, str], size: int, generation: int, crc32c: int | None) -> ObjectInfo:
    resource = {"size": size, "generation": generation, "metageneration": 3, "metadata": custom, "contentType": "a/b"}
    return describe(PLACE, path, Kind.FILE, resource, OWN)._replace(crc32c=crc32c, version=(generation, 3, size & 7))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CUSTOM, NUMBERS, NUMBERS, st.sampled_from([None, 0, 0xFFFFFFFF])), max_size=8))
def test_what_is_unpacked_is_what_was_packed(objects: list[tuple[dict[str, str], int, int, int | None]]) -> None:
    templates = Templates()
    bucket = Bucket(PLACE, OWN, lambda path: inode_of(PLACE, path), templates)
    infos = [info_of(f"d/é {number:02}", *of) for number, of in enumerate(objects)]
    draft = Draft()
    for info in reversed(infos):
        draft.add(info.path[2:], pack(info, templates))
    again = bucket._replace(templates=Templates.of_texts(templates.texts()))
    packed = Pack.of_bytes(again, "d", draft.finish(bucket, "d").to_bytes())
    assert [packed.info(at, name) for at, name in packed.named()] == infos
    assert [packed.place(at) for at in range(packed.count)] == [(info.inode, info.mode) for info in infos]
    assert list(packed.versions()) == [info.version for info in infos]
    assert list(packed.sizes()) == [info.size for info in infos]
    ids = []
    for at, info in enumerate(infos):
        metadata, problems = decode_custom_metadata(info.custom_metadata or {})
        unpacked, told = packed.decoded(at)
        assert (unpacked, sorted(told)) == (metadata, sorted(problems))
        stored = metadata or DatafileMetadata()
        assert packed.timestamp(at) == stored.timestamp
        common = packed.common(at) or DatafileMetadata()
        assert (common.labels, common.tags) == (stored.labels, stored.tags)
        assert (packed.size(at), packed.crc32c(at)) == (info.size, info.crc32c)
        ids += [stored.id] if stored.id is not None else []
    assert list(packed.ids()) == ids


@given(CUSTOM, NUMBERS, NUMBERS, st.sampled_from([None, 0, 0xFFFFFFFF]))
def test_what_is_described_as_text_is_described_again(
    custom: dict[str, str], size: int, generation: int, crc32c: int | None
) -> None:
    bucket = Bucket(PLACE, OWN, lambda path: inode_of(PLACE, path), Templates())
    info = info_of("d/x", custom, size, generation, crc32c)
    assert describe_again("d/x", described(info), bucket) == info
