"""What the modules may import and call, read from their source."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from resnet.limits import PHOTO_MB, WEIGHTS_MB

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "resnet").glob("**/*.py"))
APP = [*ROOT.glob("app.py"), *sorted((ROOT / "pages").glob("**/*.py"))]
SUPPORT = [*sorted((ROOT / "tests").glob("**/*.py")), *sorted((ROOT / "benchmarks").glob("**/*.py"))]

# Which rooms of resnet/ the modules of each may import, beside their own: "" are the files directly in resnet/.
# docs/ARCHITECTURE.md says what each room is for.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "nets": {""},
    "data": {""},
    "costs": {"nets", ""},
    "train": {"nets", "data", ""},
    "runs": {"train", "nets", "data", ""},
    "zoo": {"costs", "nets", ""},
    "exports": {"costs", "nets", ""},
    "analysis": {"nets", ""},
    "claims": {"analysis", "runs", "nets", ""},
    "attribution": {"nets", "zoo", ""},
    "trust": {"attribution", "nets", "data", ""},
    "work": {"trust", "attribution", "analysis", "exports", "zoo", "runs", "data", "costs", "nets", ""},
    "plots": set(),
    "cli": {
        "",
        "nets",
        "data",
        "costs",
        "train",
        "runs",
        "zoo",
        "exports",
        "analysis",
        "claims",
        "attribution",
        "trust",
        "work",
    },
}
PUBLIC = {"__init__", "__main__"}  # of resnet/: they name what is in the rooms


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


def dotted(path: Path) -> str:
    """resnet.nets.spec for resnet/nets/spec.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """nets for resnet.nets.spec, "" for resnet.files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (ROOT / "resnet" / parts[-1]).is_dir() else ""


def resnet_imports(path: Path) -> set[str]:
    """The dotted names of the library's modules that a file imports; a room's name alone is none."""
    modules = {dotted(p) for p in LIBRARY if p.name != "__init__.py"}
    return set(imports(path)) & modules


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
    own = room(dotted(path))
    assert own in MAY_IMPORT, f"give the room {own} its line in MAY_IMPORT"
    if own or path.stem not in PUBLIC:
        assert {room(module) for module in resnet_imports(path)} <= {own, *MAY_IMPORT[own]}


def test_no_import_runs_in_a_circle() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())
    list(TopologicalSorter({dotted(path): resnet_imports(path) for path in LIBRARY}).static_order())


def test_rooms_hold_no_module_that_only_forwards() -> None:
    for path in LIBRARY:
        if path.name == "__init__.py" and path.parent.name != "resnet":
            assert not tree(path).body, f"{label(path)} is not empty"
        elif path.name not in ("__init__.py", "__main__.py"):
            made = [node for node in tree(path).body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
            assert made, f"{label(path)} only forwards"


@each_library_module
def test_the_library_knows_nothing_of_the_app(path: Path) -> None:
    assert not packages(path) & {"streamlit", "pages", "app", "tests", "benchmarks"}
    if room(dotted(path)) != "cli" and path.stem != "__main__":
        assert not uses(path, "", "print")


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if "plots" in path.parts or path.stem in ("curves", "figures")], ids=label
)
def test_figures_need_no_torch(path: Path) -> None:
    assert not packages(path) & {"torch", "torchvision", "captum"}


@each_module
def test_one_door_to_state_and_caches(path: Path) -> None:
    if label(path) != "pages/ui/state.py":
        assert not uses(path, "streamlit", "session_state")
    if label(path) != "pages/ui/cached.py":
        assert not uses(path, "streamlit", "cache|cache_.*")


@pytest.mark.parametrize("path", APP, ids=label)
def test_pages_show_what_the_library_computes(path: Path) -> None:
    """No page needs tensors, and those of Start and Design compute nothing on arrays or tables either."""
    assert not packages(path) & {"torch", "torchvision", "captum"}
    if path.parent.name in ("start", "design"):
        assert not packages(path) & {"numpy", "pandas"}


def test_the_servers_upload_limit_is_the_largest_of_the_pages() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["maxUploadSize"] == max(PHOTO_MB, WEIGHTS_MB), (
        "the server refuses more, whatever a page says"
    )


def test_pages_lie_one_level_down() -> None:
    assert [path.name for path in (ROOT / "pages").glob("*.py") if path.name != "__init__.py"] == []


@each_module
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


PIPE = ("resnet/work/process.py", "resnet/work/worker.py")  # between the server and its own workers, never a file


@each_module
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    unsafe = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert not packages(path) & unsafe - ({"pickle"} if label(path) in PIPE else set())
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
    others = {"pillow": "PIL", "scikit-image": "skimage", "grad-cam": "pytorch_grad_cam"}
    return {others.get(dist.lower(), dist.replace("-", "_")) for dist in found}


def third_party(path: Path) -> set[str]:
    own = {"app", "pages", "resnet", "tests", "benchmarks", "export_worker"}
    return {name for name in packages(path) if name not in sys.stdlib_module_names and name not in own}


@each_module
def test_every_import_is_required(path: Path) -> None:
    assert third_party(path) <= required("requirements.txt")


@pytest.mark.parametrize("path", SUPPORT, ids=label)
def test_every_import_of_the_tests_is_required(path: Path) -> None:
    own = required("tests/oracles/quantus-requirements.txt") if path.parent.name == "oracles" else set()
    assert third_party(path) <= required("requirements.txt") | required("requirements-dev.txt") | own


@pytest.mark.parametrize("name", sorted(required("requirements.txt")))
def test_every_requirement_is_imported(name: str) -> None:
    assert any(name in packages(path) for path in [*APP, *LIBRARY, *SUPPORT])
