"""The two parties of the interop tests: the SDK, which answers questions, and the sources that it is asked about."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.sdk import run_sdk

ORACLE = (Path(__file__).parent / "oracle.py").read_text()

Question = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sdk:
    """The SDK, in the zone UTC; every call of `ask` is one process."""

    environment: Mapping[str, str]
    folder: Path

    def ask(self, questions: list[Question]) -> list[Any]:
        request = self.folder / f"{uuid.uuid4().hex}.json"
        request.write_text(json.dumps(questions))
        answers: list[Any] = run_sdk(ORACLE, environment=self.environment, arguments=[request])
        return answers

    def describe(self, paths: list[str], *, recursive: bool = True) -> list[Any]:
        return self.ask([("describe", {"path": path, "recursive": recursive}) for path in paths])


@dataclass(frozen=True)
class Source:
    """A dataset where it is stored."""

    location: str
    environment: Mapping[str, str]

    @property
    def in_cloud(self) -> bool:
        return self.location.startswith("gs://")


Sources = Mapping[str, Source]
"""By "<store> <name>", e.g. "local written" and "cloud case2"."""
