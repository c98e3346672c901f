"""What a bucket of the generator holds: everything about an object is computed from its name, nothing is kept.

Folders are alike but for their names: of a folder's listing a text is made once, for each selection of fields, in which
the folder's number is left open. So a page costs a slice and a replacement, however many objects there are. Pure:
values enter and leave; `generator` serves them.
"""

import base64
import bisect
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import google_crc32c

BUCKET = "generated"
LABEL = "x"
"""Of one object in `LABELLED`."""
LABELLED = 100
MOST = 1000
"""Items and prefixes on a page, as at Google."""

Mask = dict[str, Any]
"""Names of fields, each with the mask of what is below it; an empty one selects all."""

_OPEN = "@@@@"
"""Stands for a folder's number, and is as long."""


class Malformed(Exception):
    """A parameter cannot be read."""


# --- fields


def parse_fields(text: str) -> Mask:
    """Read what `fields=` selects: "a,b(c,d/e)".

    :raise Malformed: where brackets or names are missing
    """
    tokens = re.findall(r"[^,()/]+|[,()/]", text)
    mask = _parse_fields(tokens)
    if tokens:
        raise Malformed(f"fields: nothing opens what {tokens[0]!r} closes")
    return mask


def _parse_fields(tokens: list[str]) -> Mask:
    mask: Mask = {}
    while True:
        below = mask
        while True:
            if not tokens or tokens[0] in ",()/":
                raise Malformed("fields: a name is missing")
            below = below.setdefault(tokens.pop(0), {})
            if not tokens or tokens[0] != "/":
                break
            del tokens[0]
        if tokens and tokens[0] == "(":
            del tokens[0]
            below.update(_parse_fields(tokens))
            if not tokens:
                raise Malformed("fields: a bracket is not closed")
            del tokens[0]
        if not tokens or tokens[0] != ",":
            return mask
        del tokens[0]


def select(value: Any, mask: Mask) -> Any:
    """Return what a mask selects of an object, or of each in a list."""
    if isinstance(value, list):
        return [select(part, mask) for part in value]
    if not mask or "*" in mask or not isinstance(value, dict):
        return value
    return {key: select(part, mask[key]) for key, part in value.items() if key in mask}


# --- objects


@cache
def body(number: int) -> bytes:
    """Return the content of the object with this number in its folder."""
    return f"{number},{number * 37 % 1000}\n".encode() * (1 + number % 5)


def _checksums(data: bytes) -> tuple[str, str]:
    crc = google_crc32c.value(data).to_bytes(4, "big")
    digests = (crc, hashlib.md5(data, usedforsecurity=False).digest())
    return base64.b64encode(digests[0]).decode(), base64.b64encode(digests[1]).decode()


def custom_metadata(folder: str, number: int) -> dict[str, str]:
    """Return an object's metadata in the format of the SDK."""
    labels = ["even" if number % 2 == 0 else "odd", *([LABEL] if number % LABELLED == 7 else [])]
    fields = {
        "id": f"0000{folder}-0000-4000-8000-{number:012}",
        "timestamp": {"_type": "datetime", "value": f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}T00:00:00"},
        "tags": {"turbine": folder, "height": number % 100 / 2},
        "labels": {"_type": "set", "items": labels},
        "sdk_version": "0.69.1",
    }
    return {f"octue__{key}": json.dumps(value) for key, value in fields.items()}


def generation(folder: str, number: int) -> str:
    """Return an object's generation."""
    return f"17040000{folder}{number:04}"


def resource(folder: str, number: int, endpoint: str) -> dict[str, Any]:
    """Return all that the server tells of an object."""
    name = f"turbine-{folder}/part-{number:04}.csv"
    path = f"storage/v1/b/{BUCKET}/o/{name.replace('/', '%2F')}"
    crc32c, md5 = _checksums(body(number))
    created = f"2024-{number % 12 + 1:02}-{number % 28 + 1:02}T01:02:03.{number % 1000:03}Z"
    return {
        "kind": "storage#object",
        "name": name,
        "id": f"{BUCKET}/{name}",
        "bucket": BUCKET,
        "size": str(len(body(number))),
        "contentType": "text/csv",
        "crc32c": crc32c,
        "md5Hash": md5,
        "etag": md5,
        "storageClass": "STANDARD",
        "timeCreated": created,
        "timeStorageClassUpdated": created,
        "updated": created,
        "generation": generation(folder, number),
        "metageneration": "1",
        "metadata": custom_metadata(folder, number),
        "selfLink": f"{endpoint}/{path}",
        "mediaLink": f"{endpoint}/download/{path}?alt=media",
    }


# --- pages


@dataclass(frozen=True)
class Listing:
    """What is asked for of a list; texts are empty where they limit nothing."""

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str = ""
    token: str = ""
    most: int = MOST
    fields: str = ""


class Generated:
    """The objects of a bucket, in the order of their names: an object's position says which it is.

    :param objects: how many, at most 10,000 folders of them
    :param per_folder: how many of them stand in a folder, at most 10,000
    :param endpoint: where the server is, as its clients are to know it
    """

    def __init__(self, objects: int, per_folder: int = 1000, endpoint: str = "http://127.0.0.1") -> None:
        self._positions = range(objects)
        self._per_folder = per_folder
        self._endpoint = endpoint
        self._templates: dict[str, tuple[bytes, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def name(self, position: int) -> str:
        """Return the name of the object at a position."""
        folder, number = divmod(position, self._per_folder)
        return f"turbine-{folder:04}/part-{number:04}.csv"

    def find(self, name: str) -> tuple[str, int] | None:
        """Return the folder's digits and the number in it of an object, None where there is none of this name."""
        position = self._first_from(name)
        if position == len(self) or self.name(position) != name:
            return None
        folder, number = divmod(position, self._per_folder)
        return f"{folder:04}", number

    def described(self, folder: str, number: int, fields: str) -> bytes:
        """Return an object's resource as JSON, or of it what is selected."""
        mask = parse_fields(fields) if fields else {}
        return json.dumps(select(resource(folder, number, self._endpoint), mask), separators=(",", ":")).encode()

    def page(self, wanted: Listing) -> bytes:
        """Return a page of a list as JSON.

        As at Google, a page holds so many items and prefixes together, and no list of what there is none of.

        :raise Malformed: where fields or token cannot be read
        """
        mask = parse_fields(wanted.fields) if wanted.fields else {}
        first, end = self._between(wanted)
        if wanted.token:
            first = max(first, _position_in(wanted.token))
        runs, prefixes, after = self._collect(wanted, first, end)
        parts = ['"kind":"storage#objects"'] if not mask or "kind" in mask else []
        if after < end and (not mask or "nextPageToken" in mask):
            parts.append(f'"nextPageToken":"{_token_of(after)}"')
        if prefixes and (not mask or "prefixes" in mask):
            parts.append(f'"prefixes":{json.dumps(prefixes, separators=(",", ":"))}')
        texts = [",".join(parts).encode()] if parts else []
        if runs and (not mask or "items" in mask):
            below = wanted.fields if mask.get("items") else ""
            items = b"".join(self._rendered(run, below) for run in runs)
            texts.append(b'"items":[' + items.removesuffix(b",") + b"]")
        return b"{" + b",".join(texts) + b"}"

    def _first_from(self, text: str) -> int:
        """Return the position of the first object whose name is not before a text."""
        return bisect.bisect_left(self._positions, text, key=self.name)

    def _after_all_with(self, prefix: str) -> int:
        return self._first_from(prefix[:-1] + chr(ord(prefix[-1]) + 1))

    def _between(self, wanted: Listing) -> tuple[int, int]:
        first = max(self._first_from(wanted.prefix), self._first_from(wanted.start))
        end = self._after_all_with(wanted.prefix) if wanted.prefix else len(self)
        return first, min(end, self._first_from(wanted.end)) if wanted.end else end

    def _collect(self, wanted: Listing, first: int, end: int) -> tuple[list[range], list[str], int]:
        """Return the runs of items on a page, its prefixes, and the position that the next page begins with."""
        if not wanted.delimiter:
            after = max(first, min(end, first + wanted.most))
            return ([range(first, after)] if after > first else []), [], after
        runs: list[range] = []
        prefixes: list[str] = []
        position = first
        while position < end and len(runs) + len(prefixes) < wanted.most:
            name = self.name(position)
            found = name.find(wanted.delimiter, len(wanted.prefix))
            if found < 0:
                runs.append(range(position, position + 1))
                position += 1
            else:
                prefixes.append(name[: found + len(wanted.delimiter)])
                position = self._after_all_with(prefixes[-1])
        return runs, prefixes, position

    def _rendered(self, run: range, fields: str) -> bytes:
        """Return the resources at positions, a comma behind each."""
        return b"".join(self._rendered_by_folder(run, fields))

    def _rendered_by_folder(self, run: range, fields: str) -> Iterator[bytes]:
        text, places = self._template(fields)
        position = run.start
        while position < run.stop:
            folder, number = divmod(position, self._per_folder)
            behind = min(self._per_folder, number + run.stop - position)
            yield text[places[number] : places[behind]].replace(_OPEN.encode(), b"%04d" % folder)
            position += behind - number

    def _template(self, fields: str) -> tuple[bytes, list[int]]:
        """Return the resources of a folder, a comma behind each, and where each begins; the folder is left open."""
        if fields not in self._templates:
            mask = parse_fields(fields)["items"] if fields else {}
            text, places = bytearray(), [0]
            for full in self._resources:
                text += json.dumps(select(full, mask), separators=(",", ":")).encode() + b","
                places.append(len(text))
            self._templates[fields] = bytes(text), places
        return self._templates[fields]

    @cached_property
    def _resources(self) -> list[dict[str, Any]]:
        return [resource(_OPEN, number, self._endpoint) for number in range(self._per_folder)]


def _token_of(position: int) -> str:
    return base64.urlsafe_b64encode(f"from {position}".encode()).decode()


def _position_in(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("from "))
    except ValueError:
        raise Malformed("pageToken: it is not one of ours") from None
