"""What the modules may import and call, read from their source."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "resnet").glob("**/*.py"))
APP = [*ROOT.glob("app.py"), *sorted((ROOT / "pages").glob("**/*.py"))]
SUPPORT = [*sorted((ROOT / "tests").glob("**/*.py")), *sorted((ROOT / "benchmarks").glob("**/*.py"))]

# Which resnet modules each resnet module imports: a new module gets a line here and in docs/ARCHITECTURE.md.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "layers": set(),
    "blocks": {"layers"},
    "spec": {"blocks", "layers"},
    "codes": {"spec"},
    "model": {"spec", "blocks", "layers"},
    "receptive": set(),
    "profiler": {"model", "spec", "blocks", "receptive"},
    "counting": {"profiler"},
    "memory": {"codes", "profiler", "model", "spec", "blocks"},
    "speed": {"devices", "profiler", "model", "spec"},
    "relatives": {"profiler"},
    "systems": {"profiler", "model", "spec"},
    "weights": set(),
    "paper": {"recipes"},
    "published": {"paper", "relatives", "spec", "systems", "weights"},
    "compare": {"profiler", "spec"},
    "budget": {"memory", "profiler", "spec"},
    "photos": set(),
    "shapes": set(),
    "files": set(),
    "records": set(),
    "devices": {"files"},
    "narrow": {"devices", "model"},
    "cifar": {"files", "photos"},
    "datafiles": {"photos"},
    "data": {"files", "photos", "shapes", "cifar", "datafiles"},
    "recipes": set(),
    "batches": {"data", "distributed", "recipes"},
    "distributed": {"recipes"},
    "streaming": {"batches", "data", "datafiles", "distributed", "recipes"},
    "trainer": {"batches", "devices", "distributed", "layers", "model", "narrow", "recipes"},
    "jobs": {"codes", "records", "spec"},
    "runs": {"files", "jobs", "records", "spec"},
    "prepare": {
        *{"batches", "codes", "data", "devices", "distributed", "model", "narrow", "recipes", "runs", "spec"},
        *{"streaming", "trainer"},
    },
    "worker": {
        *{"batches", "data", "devices", "distributed", "files", "model", "prepare", "recipes", "records", "runs"},
        *{"streaming", "trainer"},
    },
    "sharing": {"batches", "data", "files", "model", "prepare", "recipes", "runs", "trainer", "worker"},
    "opened": {"data", "model", "photos", "prepare", "runs", "worker"},
    "curves": set(),
    "gradients": set(),
    "saliency": set(),
    "plots": set(),
    "run_plots": {"curves", "plots"},
    "tensorboard": {"curves", "runs"},
    "export": {"codes", "spec", "profiler", "export_torch", "export_keras", "export_calls", "export_plan"},
    "export_plan": {"spec", "model", "profiler"},
    "export_torch": {"spec", "model", "blocks", "layers", "export_plan"},
    "export_keras": {"spec", "model", "blocks", "export_plan"},
    "export_calls": {"spec"},
}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), label(path))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, also inside functions: `from a import b` gives a and a.b."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def resnet_imports(path: Path) -> set[str]:
    """The names of the resnet modules that a file imports."""
    modules = {p.stem for p in LIBRARY}
    parts = [name.split(".") for name in imports(path)]
    return {part[1] for part in parts if part[0] == "resnet" and len(part) > 1 and part[1] in modules}


def uses(path: Path, owner: str, pattern: str) -> list[int]:
    """Lines with `owner.NAME`, or with NAME imported from it; owner "" is a plain call of NAME."""
    names = {owner, "st"} if owner == "streamlit" else {owner}
    lines = []
    for node in ast.walk(tree(path)):
        found: list[str] = []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            found = [node.attr]
        elif isinstance(node, ast.ImportFrom) and node.module == owner:
            found = [alias.name for alias in node.names]
        elif not owner and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = [node.func.id]
        if any(re.fullmatch(pattern, name) for name in found):
            lines.append(getattr(node, "lineno", 0))
    return lines


each_library_module = pytest.mark.parametrize("path", LIBRARY, ids=label)
each_module = pytest.mark.parametrize("path", [*APP, *LIBRARY], ids=label)


@each_library_module
def test_import_table(path: Path) -> None:
    if path.stem == "__main__":
        return  # the command line may use all
    assert path.stem in ALLOWED, f"give {label(path)} its line in ALLOWED"
    assert resnet_imports(path) == ALLOWED[path.stem]


def test_no_import_runs_in_a_circle() -> None:
    list(TopologicalSorter(ALLOWED).static_order())
    list(TopologicalSorter({path.stem: resnet_imports(path) for path in LIBRARY}).static_order())


@each_library_module
def test_the_library_knows_nothing_of_the_app(path: Path) -> None:
    assert not packages(path) & {"streamlit", "pages", "app", "tests", "benchmarks"}
    if path.stem != "__main__":
        assert not uses(path, "", "print")


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.stem in ("plots", "run_plots", "curves")], ids=label)
def test_figures_need_no_torch(path: Path) -> None:
    assert not packages(path) & {"torch", "torchvision", "captum"}


@each_module
def test_one_door_to_state_and_caches(path: Path) -> None:
    if label(path) != "pages/ui/state.py":
        assert not uses(path, "streamlit", "session_state")
    if label(path) != "pages/ui/cached.py":
        assert not uses(path, "streamlit", "cache|cache_.*")


def test_pages_lie_one_level_down() -> None:
    assert [path.name for path in (ROOT / "pages").glob("*.py") if path.name != "__init__.py"] == []


@each_module
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@each_module
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    assert not packages(path) & {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert not uses(path, "", "eval|exec|compile|__import__")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            only = [ast.unparse(word.value) for word in node.keywords if word.arg == "weights_only"]
            assert only == ["True"], "torch.load runs code from a file"
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.module == "torch"
                and "load" in [alias.name for alias in node.names]]  # fmt: skip
    assert not uses(path, "builtins", "eval|exec")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


def required(name: str) -> set[str]:
    """The import names of a requirements file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = {match[0] for line in lines if (match := re.match(r"[A-Za-z0-9_.-]+", line))}
    return {{"pillow": "PIL"}.get(dist.lower(), dist.replace("-", "_")) for dist in found}


def third_party(path: Path) -> set[str]:
    own = {"app", "pages", "resnet", "tests", "benchmarks", *(p.stem for p in SUPPORT)}
    return {name for name in packages(path) if name not in sys.stdlib_module_names and name not in own}


@each_module
def test_every_import_is_required(path: Path) -> None:
    assert third_party(path) <= required("requirements.txt")


@pytest.mark.parametrize("path", SUPPORT, ids=label)
def test_every_import_of_the_tests_is_required(path: Path) -> None:
    assert third_party(path) <= required("requirements.txt") | required("requirements-dev.txt")


@pytest.mark.parametrize("name", sorted(required("requirements.txt")))
def test_every_requirement_is_imported(name: str) -> None:
    assert any(name in packages(path) for path in [*APP, *LIBRARY, *SUPPORT])
