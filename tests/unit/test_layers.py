"""The house (ARCHITECTURE.md): imports run downwards only."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import octuefs

PACKAGE = Path(octuefs.__file__).parent

FLOORS = (
    # From the top; a module belongs to the first line that names it or a package above it.
    ("cli", "commands", "daemon", "launch", "doctor", "transfer", "__main__"),
    (
        *("mount", "metrics", "mounting", "mounted", "parts", "fetches", "recoveries", "sources", "manifests"),
        *("wiring", "resources", "config"),
    ),
    ("drivers",),
    ("operations", "handles"),
    ("tree",),
    ("dataset",),
    ("writing",),
    ("keeper", "classification", "differences", "other_names", "stored_metadata", "remembered", "bucket_reading"),
    ("index", "hash_rows", "content"),
    ("entries",),
    ("datafile",),
    ("facts",),
    ("stores",),
    ("model",),
)
"""The commands and what only they use stand on the uppermost floor."""

LEAVES = ("", "errors", "report", "places", "mounts", "disks", "control")
"""May be imported from anywhere, and import none but each other."""

PURE = {"google_crc32c", "msgspec"}
"""What the model may use besides the standard library."""

IMPURE = {"asyncio", "http", "io", "logging", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "threading"}
"""What the model may not use of it: it opens nothing, waits for nothing and knows no clock."""


def modules() -> list[str]:
    """All modules below `octuefs`, dotted, without that name; "" is the package itself."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


MODULES = modules()


def tree_of(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_bytes())


def imported_names(module: str) -> Iterator[str]:
    """Each absolute name that a module imports, at its top or inside of a function, for types alone or not."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"octuefs.{module} has a relative import"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def imports(module: str) -> set[str]:
    """The modules of ours that one imports, without the leading `octuefs.`."""
    found = set()
    for name in imported_names(module):
        if name.partition(".")[0] == "octuefs":
            own = name.partition(".")[2]
            # `from octuefs.model.paths import join`: the longest part that is a module.
            while own not in MODULES:
                own = own.rpartition(".")[0]
            found.add(own)
    return found - {module}


def belongs(module: str, place: str) -> bool:
    return module == place or (place != "" and module.startswith(place + "."))


def floor(module: str) -> int | None:
    """How far down a module stands, 0 being the top; None for a leaf."""
    if any(belongs(module, leaf) for leaf in LEAVES):
        return None
    for number, places in enumerate(FLOORS):
        if any(belongs(module, place) for place in places):
            return number
    raise AssertionError(f"octuefs.{module} stands on no floor; give it one in {Path(__file__).name}")


def is_concrete(module: str) -> bool:
    """Stores, drivers and writers themselves: what is chosen at run time."""
    if module in ("writing.cloud", "writing.local"):
        return True
    of_no_store = (
        *("stores", "stores.base", "stores.descriptor", "stores.in_memory", "stores.writing"),
        *("stores.figures", "stores.rates", "stores.room", "stores.traffic"),
    )
    return belongs(module, "drivers") or (belongs(module, "stores") and module not in of_no_store)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards_only(module: str) -> None:
    here = floor(module)
    for other in imports(module):
        there = floor(other)
        if there is None:
            continue
        assert here is not None, f"octuefs.{module} is a leaf and imports octuefs.{other}"
        assert there >= here, f"octuefs.{module} imports octuefs.{other}, which stands above it"


@pytest.mark.parametrize("module", MODULES)
def test_only_the_wiring_imports_a_concrete_store_and_the_mount_a_driver(module: str) -> None:
    exceptions = {
        "doctor": {"drivers.binding", "drivers.kernel.abilities"},
        "mount": {"drivers.kernel.device", "drivers.kernel.driver", "drivers.libfuse"},
        "mounted": {"stores.watch"},
    }
    allowed = exceptions.get(module, set())
    if module == "wiring" or is_concrete(module):
        return
    concrete = {other for other in imports(module) if is_concrete(other)}
    assert concrete <= allowed, f"octuefs.{module} imports {sorted(concrete)}"


def family(module: str) -> str | None:
    """Which store a module is a part of; None for one of several stores: what Google says of objects is pure."""
    if module == "stores.gcs_resource":
        return None
    return next((it for it in ("gcs", "local", "signed", "listed") if module.startswith(f"stores.{it}")), None)


def test_no_store_or_driver_imports_another() -> None:
    for module in filter(is_concrete, MODULES):
        mine = family(module)
        for other in filter(is_concrete, imports(module)):
            theirs = family(other)
            assert None in (mine, theirs) or mine == theirs, f"octuefs.{module} imports octuefs.{other}"
            assert module.partition(".")[0] == other.partition(".")[0]


def test_index_and_content_never_import_each_other() -> None:
    for module in MODULES:
        if belongs(module, "index"):
            assert not [other for other in imports(module) if belongs(other, "content")]
        if belongs(module, "content"):
            assert not [other for other in imports(module) if belongs(other, "index")]


@pytest.mark.parametrize("module", [module for module in MODULES if belongs(module, "model")])
def test_the_model_imports_itself_errors_and_pure_libraries(module: str) -> None:
    assert {other for other in imports(module) if not belongs(other, "model")} <= {"errors"}
    outside = {name.partition(".")[0] for name in imported_names(module)} - {"octuefs"}
    assert outside <= (set(sys.stdlib_module_names) | PURE) - IMPURE


@pytest.mark.parametrize("module", [module for module in MODULES if belongs(module, "model")])
def test_the_model_takes_values_and_opens_nothing(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("open", "print", "input", "time.time", "datetime.now", "datetime.utcnow"), (
                f"octuefs.{module} calls {name} in line {node.lineno}"
            )


def test_the_files_of_the_house_import_no_cycle() -> None:
    edges = {module: imports(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in edges[module] - {""}:
                visit(other, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
