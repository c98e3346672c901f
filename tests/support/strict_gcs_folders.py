"""Folders of a bucket with a hierarchical namespace, whose renaming is one operation."""

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from support.strict_gcs_faults import Request
from support.strict_gcs_objects import Objects, Refused, invalid, missing
from support.strict_gcs_uploads import parse_object

Names = Callable[[str, str], Awaitable[list[str]]]
"""The names of all objects of a bucket below a prefix."""

Answer = tuple[int, dict[str, str], bytes]


class Folders:
    """Folders, made by a request or by an object below them. No other request to the bucket is served during a move."""

    def __init__(self, objects: Objects, names: Names) -> None:
        self._objects = objects
        self._names = names
        self._made: set[tuple[str, str]] = set()
        self._operations: dict[str, dict[str, Any]] = {}
        self._gate = asyncio.Condition()
        self._moving = False
        self._serving = 0

    @contextlib.asynccontextmanager
    async def standing(self, *, moving: bool = False) -> AsyncIterator[None]:
        """Serve a request while nothing is moved, or move while no request is served."""
        async with self._gate:
            await self._gate.wait_for(lambda: not self._moving and not (moving and self._serving))
            self._moving = moving
            self._serving += not moving
        try:
            yield
        finally:
            async with self._gate:
                self._moving = False
                self._serving -= not moving
                self._gate.notify_all()

    async def answer(self, request: Request, body: bytes) -> Answer:
        """Answer what stands below `b/{bucket}/folders` and `b/{bucket}/operations`."""
        bucket = request.bucket
        rest = request.target.partition("?")[0].partition("/b/")[2].partition("/")[2]
        if match := re.fullmatch(r"operations/([^/]+)", rest):
            return self._operation(match[1])
        if match := re.fullmatch(r"folders/(.+)/renameTo/folders/(.+)", rest):
            return await self._rename(bucket, _folder(match[1]), _folder(match[2]))
        if match := re.fullmatch(r"folders/(.+)", rest):
            name = _folder(match[1])
            if not await self._stands(bucket, name):
                raise missing(f"{bucket}/{name}")
            if request.method == "DELETE":
                if await self._below(bucket, name):
                    raise Refused(409, "conflict", "The folder you tried to delete is not empty.")
                self._made.discard((bucket, name))
                return 204, {}, b""
            return _ok(_resource(bucket, name))
        if request.method == "POST":
            name = _folder(parse_object(body).get("name", ""))
            if await self._stands(bucket, name):
                raise Refused(409, "conflict", "The folder you tried to create already exists.")
            await self._check_parent(bucket, name, recursive=request.query.get("recursive") == "true")
            self._made.add((bucket, name))
            return _ok(_resource(bucket, name))
        names = await self._all(bucket, request.query.get("prefix", ""))
        return _ok({"kind": "storage#folders", "items": [_resource(bucket, name) for name in names]})

    def _operation(self, number: str) -> Answer:
        operation = self._operations.get(number)
        if operation is None:
            raise missing(f"operations/{number}")
        operation["done"] = True  # to whom asks again
        return _ok(operation)

    async def _rename(self, bucket: str, old: str, new: str) -> Answer:
        if new.startswith(old):
            raise invalid("A folder cannot be moved into itself")
        if not await self._stands(bucket, old):
            raise missing(f"{bucket}/{old}")
        if await self._stands(bucket, new):
            raise Refused(409, "conflict", "The destination folder already exists.")
        await self._check_parent(bucket, new, recursive=False)
        for name in await self._names(bucket, old):
            source, target = (bucket, name), (bucket, new + name.removeprefix(old))
            async with self._objects.lock(source, target):
                await self._objects.must_stat(source)
                await self._objects.rewrite(source, target, {})
                await self._objects.delete(source)
        moved = {made for made in self._made if made[0] == bucket and made[1].startswith(old)}
        self._made -= moved
        self._made |= {(bucket, new + name.removeprefix(old)) for _, name in moved} | {(bucket, new)}
        number = uuid.uuid4().hex
        self._operations[number] = {
            "kind": "storage#operation",
            "name": f"projects/_/buckets/{bucket}/operations/{number}",
            "done": False,
            "metadata": {"sourceFolderId": old, "destinationFolderId": new},
            "response": _resource(bucket, new),
        }
        return _ok({**self._operations[number], "response": None})

    async def _check_parent(self, bucket: str, name: str, *, recursive: bool) -> None:
        parent = name[:-1].rpartition("/")[0] + "/"
        if parent == "/" or await self._stands(bucket, parent):
            return
        if not recursive:
            raise missing(f"{bucket}/{parent}: the parent folder")
        await self._check_parent(bucket, parent, recursive=True)
        self._made.add((bucket, parent))

    async def _all(self, bucket: str, prefix: str) -> list[str]:
        found = {name for where, name in self._made if where == bucket}
        for name in await self._names(bucket, ""):
            parts = name.split("/")[:-1]
            found |= {"/".join(parts[: count + 1]) + "/" for count in range(len(parts))}
        return sorted(name for name in found if name.startswith(prefix))

    async def _stands(self, bucket: str, name: str) -> bool:
        return bool((bucket, name) in self._made or await self._names(bucket, name))

    async def _below(self, bucket: str, name: str) -> bool:
        others = (made for where, made in self._made if where == bucket)
        return any(made != name and made.startswith(name) for made in others) or bool(await self._names(bucket, name))


def _folder(text: str) -> str:
    name = unquote(text)
    if not name.strip("/"):
        raise invalid("Invalid folder name")
    return name.rstrip("/") + "/"


def _resource(bucket: str, name: str) -> dict[str, Any]:
    return {"kind": "storage#folder", "bucket": bucket, "name": name, "metageneration": "1"}


def _ok(value: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps({key: part for key, part in value.items() if part is not None}).encode()
