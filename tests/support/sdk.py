"""Ask the real Octue SDK, which lives in a virtual environment of its own (.venv-sdk)."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-sdk" / "bin" / "python"


class SdkFailed(Exception):
    """The snippet ended with an error, or printed something else than one JSON text."""


def run_sdk(
    code: str,
    *,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str | Path] = (),
    zone: str = "UTC",
    timeout: float = 120,
) -> Any:
    """Run Python code beside the SDK and return what it prints on its standard output, parsed as JSON.

    `arguments` are its sys.argv[1:]; `environment` is added to the present one, for a `GcsServer.environment` say.
    """
    if not PYTHON.exists():
        raise SdkFailed(f"{PYTHON}: no such file; make it with: scripts/bootstrap --sdk")
    result = subprocess.run(
        [PYTHON, "-c", code, *map(os.fspath, arguments)],
        env={**os.environ, **(environment or {}), "TZ": zone},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        raise SdkFailed(f"the SDK snippet ended with {result.returncode}:\n{result.stderr}")
    try:
        return json.loads(result.stdout)
    except ValueError:
        raise SdkFailed(f"the SDK snippet printed no JSON: {result.stdout!r}\n{result.stderr}") from None
