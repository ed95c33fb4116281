"""What `import resnet` offers: the names, their docstrings, and how little it imports."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resnet
from resnet.files import ROOT

HEAVY = {"torch", "numpy", "pandas", "torchvision", "captum", "PIL", "safetensors"}


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python has after `code`."""
    code += "\nimport sys; print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stderr.split())


def test_importing_the_library_imports_nothing_heavy() -> None:
    assert not imported_by("import resnet; dir(resnet)") & HEAVY


@pytest.mark.parametrize("name", resnet.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(resnet, name)
    assert name in dir(resnet)
    if callable(value):
        assert value.__name__ == name
        assert (value.__doc__ or "").strip()
    else:
        assert isinstance(value, dict)


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    [checked] = [node for node in ast.parse(Path(resnet.__file__).read_text()).body if isinstance(node, ast.If)]
    froms = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in froms for alias in node.names} == resnet._MODULE_OF


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(resnet, "nonsense")  # noqa: B009 (mypy would find it)


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Importing a.b sets b on a: a module named as a public name would replace it."""
    for module in pkgutil.walk_packages(resnet.__path__, "resnet."):
        if module.name != "resnet.__main__":
            importlib.import_module(module.name)
    for name in resnet.__all__:
        assert getattr(resnet, name) is getattr(importlib.import_module(resnet._MODULE_OF[name]), name)


def readme_code() -> str:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_readmes_lines_of_python_run(tmp_path: Path) -> None:
    code = readme_code()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    folders = {"RESNET_RUNS_DIR": str(tmp_path / "runs"), "RESNET_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "readme.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "readme.py")], cwd=ROOT, env=os.environ | folders | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
