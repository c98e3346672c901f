"""What a mount asked a bucket for: the content of which objects, and which bytes of them."""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.mounts import wait_until

from support.strict_gcs import Request, StrictGcs

KIB, MIB = 1 << 10, 1 << 20
LONE_BYTES = 128 * KIB
"""What the kernel asks for at most where a program reads a little."""


@dataclass(frozen=True, order=True)
class Fetch:
    """Bytes `start` to before `end` of an object that were asked for."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def is_content(request: Request) -> bool:
    """Say whether a request asks for the content of an object, other than metadata."""
    return request.kind == "media" and not request.name.endswith(".octue")


def fetch_of(request: Request) -> Fetch:
    """Return what a request for content asks for."""
    first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
    return Fetch(request.name, int(first), int(last) + 1)


def fetches(gcs: StrictGcs, *, refused: bool = False) -> list[Fetch]:
    """Return what was asked for so far, in the order in which it was; only what was `refused` where that is asked."""
    return [
        fetch_of(request)
        for request in gcs.requests
        if is_content(request) and (not refused or (request.status or 0) >= 400)
    ]


def fetched_names(gcs: StrictGcs) -> list[str]:
    """Return the objects that were asked for, each as often as it was, without their folders."""
    return [it.name.rpartition("/")[2] for it in fetches(gcs)]


def fetched_bytes(gcs: StrictGcs) -> int:
    """Return how many bytes were asked for."""
    return sum(it.size for it in fetches(gcs))


def fetched_twice(gcs: StrictGcs) -> list[tuple[Fetch, Fetch]]:
    """Return what was asked for with bytes that had been asked for before."""
    ordered = sorted(fetches(gcs))
    return [(a, b) for a, b in itertools.pairwise(ordered) if a.name == b.name and b.start < a.end]


def traffic(mount_point: Path) -> dict[str, Any]:
    """Return what the status says of requests and bytes."""
    found: dict[str, Any] = json.loads((mount_point / ".octuefs" / "status").read_bytes())["traffic"]
    return found


def wait_for_rest(mount_point: Path) -> None:
    """Return once nothing is on its way from the bucket, or waits to be."""

    def rests() -> bool:
        found = traffic(mount_point)
        return not found["in_flight"] and not found["waiting"]

    wait_until(lambda: rests() and rests(), say="requests go on and on")


def content(seed: int, size: int) -> bytes:
    """Return bytes that tell where they belong: the same for each seed, no two blocks alike."""
    return random.Random(seed).randbytes(size)
