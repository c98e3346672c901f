"""What objects of a bucket have in common: their custom metadata but for what is each one's own, and their properties.

Of a million objects most have one of a few sets of labels and tags. Each set stands here once, decoded once; an object
has its number, and the texts of its ID, timestamp and mtime.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.stores.base import NO_PROPERTIES

ID, TIMESTAMP, MTIME = "octue__id", "octue__timestamp", "goog-reserved-file-mtime"
OWN_KEYS = (ID, TIMESTAMP, MTIME)
"""The keys of custom metadata whose values are mostly each object's own."""

_UNPREFIXED = frozenset({"id", "timestamp", "tags", "labels"})
"""Keys that count where the prefixed one is missing; what they mean is seen by all of an object's keys only."""

_PLAIN_ID = re.compile(r'"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"')
TIMESTAMP_BEGIN, TIMESTAMP_END = '{"_type": "datetime", "value": "', '"}'
_TIMESTAMP_SKIP = len(TIMESTAMP_BEGIN)


class NotPlain(Exception):
    """A stored text is not in the form that the SDK and octuefs write."""


Texts = tuple[str | None, str | None, str | None]
"""The values of OWN_KEYS, None for those that are not there."""
NO_TEXTS: Texts = (None, None, None)


class Template:
    """One set of custom metadata, without what is each object's own, and one of properties. Never changed."""

    __slots__ = ("_decoded", "custom", "is_plain", "properties")

    def __init__(self, custom: Mapping[str, str], properties: Mapping[str, str]) -> None:
        self.custom = custom
        self.properties = properties
        self.is_plain = _UNPREFIXED.isdisjoint(custom)
        """True where the metadata of an object are those of its template, with its own ID and timestamp."""
        self._decoded: tuple[DatafileMetadata | None, list[str]] | None = None

    @property
    def decoded(self) -> tuple[DatafileMetadata | None, list[str]]:
        """What the common part says, None for nothing, and what is wrong with it."""
        if self._decoded is None:
            self._decoded = decode_custom_metadata(self.custom)
        return self._decoded

    def custom_metadata(self, texts: Texts) -> Mapping[str, str]:
        """Return the whole custom metadata of an object."""
        if texts == NO_TEXTS:
            return self.custom
        custom = dict(self.custom)
        for key, text in zip(OWN_KEYS, texts, strict=True):
            if text is not None:
                custom[key] = text
        return custom

    def metadata(self, texts: Texts) -> tuple[DatafileMetadata | None, list[str]]:
        """Return the metadata of a datafile, None where there are none of Octue's, and what is wrong with them."""
        id_text, timestamp_text, _ = texts
        if self.is_plain:
            common, problems = self.decoded
            if id_text is None and timestamp_text is None:
                return common, problems
            with suppress(NotPlain):
                id_, timestamp = _plain_id(id_text), _plain_timestamp(timestamp_text)
                if common is None:
                    return DatafileMetadata(id_, timestamp), problems
                labels, version, unread = common.labels, common.sdk_version, common.unread
                return DatafileMetadata(id_, timestamp, common.tags, labels, version, unread), problems
        return decode_custom_metadata(self.custom_metadata((id_text, timestamp_text, None)))

    def plain_timestamp(self, texts: Texts) -> datetime | None:
        """Return the timestamp of a datafile whose metadata are otherwise in common, and sound.

        :raise NotPlain: where it takes more to tell
        """
        if not self.is_plain or self.decoded[1]:
            raise NotPlain
        _plain_id(texts[0])
        return _plain_timestamp(texts[1])

    def timestamp(self, texts: Texts) -> datetime | None:
        """Return the timestamp of a datafile."""
        if self.is_plain:
            with suppress(NotPlain):
                return _plain_timestamp(texts[1])
        metadata, _ = self.metadata(texts)
        return metadata.timestamp if metadata is not None else None


def _plain_id(text: str | None) -> str | None:
    """Return the ID that a stored text is at first sight.

    :raise NotPlain: where it takes more to tell
    """
    if text is None:
        return None
    found = _PLAIN_ID.fullmatch(text)
    if found is None:
        raise NotPlain
    return found[1]


def _plain_timestamp(text: str | None) -> datetime | None:
    """Return the timestamp that a stored text is at first sight.

    :raise NotPlain: where it takes more to tell
    """
    if text is None or text == "null":
        return None
    if not text.startswith(TIMESTAMP_BEGIN) or not text.endswith(TIMESTAMP_END) or "\\" in text:
        raise NotPlain
    try:
        return datetime.fromisoformat(text[_TIMESTAMP_SKIP:-2])
    except ValueError:
        raise NotPlain from None


def plain_id_or_none(text: str) -> str | None:
    """Return the ID that a stored text is at first sight, None where it takes more to tell."""
    found = _PLAIN_ID.fullmatch(text)
    return found[1] if found is not None else None


def plain_timestamp_value(text: str) -> str | None:
    """Return what stands between TIMESTAMP_BEGIN and TIMESTAMP_END in the text of a timestamp, None for others."""
    try:
        stamp = _plain_timestamp(text)
    except NotPlain:
        return None
    return text[_TIMESTAMP_SKIP:-2] if stamp is not None else None


class Templates:
    """All templates of one dataset, by number. They only become more; one thread at a time may add."""

    def __init__(self) -> None:
        self.all: list[Template] = []
        self._numbers: dict[tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]], int] = {}

    def number(self, custom: Mapping[str, str], properties: Mapping[str, str]) -> int:
        """Return the number of what an object has in common with others, a new one where it is the first."""
        key = (tuple(custom.items()) if custom else (), tuple(properties.items()) if properties else ())
        number = self._numbers.get(key)
        if number is None:
            number = len(self.all)
            self.all.append(Template(dict(custom), dict(properties) or NO_PROPERTIES))
            self._numbers[key] = number
        return number

    def texts(self) -> list[str]:
        """Return all templates in order, each as text."""
        return [json.dumps([template.custom, template.properties]) for template in self.all]

    @classmethod
    def of_texts(cls, texts: list[str]) -> "Templates":
        """Return the templates that `texts` told of.

        :raise ValueError: where they are no such texts
        """
        templates = cls()
        for text in texts:
            custom, properties = json.loads(text)
            if not (isinstance(custom, dict) and isinstance(properties, dict)):
                raise ValueError("it is no template")
            templates.number(custom, properties)
        if len(templates.all) != len(texts):
            raise ValueError("a template is there twice")
        return templates
