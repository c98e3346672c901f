"""Each example of the README, run as it stands there, says what the README shows."""

import os
import re
import subprocess
from pathlib import Path

from support import mounting
from support.gcs import GcsServer
from support.mounting import ROOT
from support.sdk import run_sdk

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in BLOCK.finditer((ROOT / "README.md").read_text())]


def commands(block: str) -> list[tuple[str, str]]:
    """(command, the output shown) of a console block."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_each_example_of_the_readme_works(tmp_path: Path, gcs_server: GcsServer) -> None:
    gcs_server.create_bucket("wind-data")
    environment = {
        **mounting.environment_for(gcs_server.environment, zone="UTC"),
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    try:
        for language, block in examples():
            if language == "python":
                code = f"import os; os.chdir({str(tmp_path)!r})\n{block}\n"
                code += "Dataset(path='farm').upload('gs://wind-data/farm')\nprint('{}')"
                run_sdk(code, environment=gcs_server.environment)
                continue
            for command, shown in commands(block):
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=tmp_path,
                    env=environment,
                    text=True,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, f"{command}: {done.stderr}"
                if not command.startswith("octuefs mount"):  # whose summary names folders of this run
                    assert done.stdout.rstrip("\n") == shown.rstrip("\n"), command
    finally:
        mounting.sweep(tmp_path, patience=5)
        gcs_server.delete_bucket("wind-data")


def test_the_readme_has_a_line_for_each_dependency() -> None:
    readme = (ROOT / "README.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert listed is not None
    names = re.findall(r'"([a-z0-9-]+)', listed[1])
    rows = [line for line in readme.splitlines() if line.startswith("| ")]
    assert names
    assert [name for name in names if not any(name in row.split("|")[1] for row in rows)] == []
