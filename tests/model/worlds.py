"""Where a model test takes place: a mount, what lies under it, and the hands of others in that."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from model.metadata import Record, parent
from model.mounts import Mount

from support.gcs import Bucket

Entries = dict[str, bytes | None]
"""Relative paths, with the bytes of files and None for folders; `.octue` files are left out."""


def entries_below(top: Path) -> Entries:
    """What stands below a plain folder."""
    found: Entries = {}
    for folder, folders, files in os.walk(top):
        place = os.path.relpath(folder, top)
        for name in folders:
            found[os.path.normpath(os.path.join(place, name))] = None
        for name in files:
            if name != ".octue":
                found[os.path.normpath(os.path.join(place, name))] = Path(folder, name).read_bytes()
    return found


class World(Protocol):
    """A mount of an empty dataset, in which every example has a folder of its own."""

    mount: Mount
    in_cloud: bool

    def put(self, path: str, data: bytes, record: Record) -> None:
        """Store a file as another program would; a record goes with it in the cloud."""
        ...

    def remove(self, path: str) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def describe(self, folder: str, records: Mapping[str, Record]) -> None:
        """Replace the metadata of a folder's files."""
        ...

    def stored(self, top: str) -> tuple[Entries, dict[str, Record]]:
        """What the store itself has below a folder, and its metadata by path; paths are relative to it."""
        ...


class LocalWorld:
    """A folder of this machine."""

    in_cloud = False

    def __init__(self, mount: Mount, folder: Path, outside: Path) -> None:
        self.mount = mount
        self._folder = folder
        self._outside = outside

    def put(self, path: str, data: bytes, record: Record) -> None:
        new = self._outside / "new"
        new.write_bytes(data)
        new.chmod(0o644)
        new.replace(self._folder / path)

    def remove(self, path: str) -> None:
        (self._folder / path).unlink()

    def make_folder(self, path: str) -> None:
        (self._folder / path).mkdir()
        (self._folder / path).chmod(0o755)

    def describe(self, folder: str, records: Mapping[str, Record]) -> None:
        new = self._outside / "octue"
        document = {"datafiles": {name: record.stored() for name, record in records.items()}} if records else {}
        new.write_text(json.dumps(document, indent=4) + "\n")
        new.replace(self._folder / folder / ".octue")

    def stored(self, top: str) -> tuple[Entries, dict[str, Record]]:
        records: dict[str, Record] = {}
        for document in (self._folder / top).rglob(".octue"):
            for name, stored in json.loads(document.read_text()).get("datafiles", {}).items():
                place = os.path.relpath(document.parent / name, self._folder / top)
                records[place] = Record.read(stored)
        return entries_below(self._folder / top), records


class CloudWorld:
    """A bucket; `bucket` leads past the front, as other machines' writers do."""

    in_cloud = True

    def __init__(self, mount: Mount, bucket: Bucket, prefix: str) -> None:
        self.mount = mount
        self._bucket = bucket
        self._prefix = prefix

    def put(self, path: str, data: bytes, record: Record) -> None:
        self._bucket.put(f"{self._prefix}/{path}", data, record.custom())

    def remove(self, path: str) -> None:
        self._bucket.delete(f"{self._prefix}/{path}")

    def make_folder(self, path: str) -> None:
        self._bucket.put(f"{self._prefix}/{path}/", b"")

    def describe(self, folder: str, records: Mapping[str, Record]) -> None:
        for name, record in records.items():
            self._bucket.patch_metadata(f"{self._prefix}/{folder}/{name}", record.custom())

    def stored(self, top: str) -> tuple[Entries, dict[str, Record]]:
        found: Entries = {}
        records: dict[str, Record] = {}
        start = f"{self._prefix}/{top}/"
        for item in self._bucket.list(start):
            path = item["name"].removeprefix(start)
            if path.endswith("/"):
                found[path.rstrip("/")] = None
            elif path:
                found[path] = self._bucket.get(item["name"])
                custom: Mapping[str, Any] = item.get("metadata") or {}
                if any(key.startswith("octue__") for key in custom):
                    records[path] = Record.of_object(custom)
        for path in list(found):
            while path := parent(path):
                found.setdefault(path, None)
        return found, records
