"""What the real SDK says of 25 datasets and seven manifests: `golden/` beside DESIGN.md, outside the repository."""

import base64
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden"


@dataclass(frozen=True)
class Case:
    """One dataset: its files and `.octue` texts by path (`{root}` stands for its folder), and the SDK's answers."""

    number: int
    files: Mapping[str, bytes]
    octue: Mapping[str, str]
    dataset: Mapping[str, Any]
    datafiles: Mapping[str, Mapping[str, Any]]
    filters: Mapping[str, Any]
    """By the JSON of the SDK's keyword argument: the paths of the members, or {"error": ...} where it raises."""
    order_by: Mapping[str, Any]
    """By attribute ("-" before it for descending): [path, value] pairs, or {"error": ...} where it raises."""

    def __str__(self) -> str:
        return f"case{self.number}"


@functools.cache
def cases() -> tuple[Case, ...]:
    """Return the golden datasets."""
    content = json.loads((FOLDER / "octue-sdk-0.69.1.json").read_text())
    return tuple(
        Case(
            number=number,
            files={file["path"]: base64.b64decode(file["content_base64"]) for file in case["files"]},
            octue=case["octue"],
            dataset=case["dataset"],
            datafiles=case["datafiles"],
            filters=case["filters"],
            order_by=case["order_by"],
        )
        for number, case in enumerate(content["cases"])
    )


@functools.cache
def manifests() -> tuple[dict[str, Any], ...]:
    """Return the golden manifests: `cases` (dataset name to case number), `hash_value`, `serialised`."""
    return tuple(json.loads((FOLDER / "octue-manifests-0.69.1.json").read_text())["manifests"])


def materialise(case: Case, root: Path) -> Path:
    """Write a case's files and `.octue` files into the folder `root`, made where it is missing; return it."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in case.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    for path, text in case.octue.items():
        # A text inside JSON: the folder's name is escaped as JSON escapes it.
        (root / path).write_text(text.replace("{root}", json.dumps(str(root))[1:-1]))
    return root
