"""The journeys of docs/ARCHITECTURE.md: every station exists, and calls or uses the next one."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_STATIONS = (8, 9, 6)  # of the first, second and third journey
THROUGH_A_FOLDER = "(reads the run's folder)"  # of a station that the one before does not call
REGISTRY = re.compile(r"\(through ([A-Z_]+)\)")  # of a station that the one before finds in a registry


def journeys(text: str) -> list[list[str]]:
    """The items of each section "### Journey: ..."."""
    sections = re.findall(r"^### Journey: .*\n((?:(?!#).*\n)*)", text + "\n", re.MULTILINE)
    lists = [re.split(r"^\d+\. +", section, flags=re.MULTILINE)[1:] for section in sections]
    return [[" ".join(item.split("\n\n")[0].split()) for item in items] for items in lists]


def name_of(item: str) -> str:
    """The code span that an item begins with, or ""."""
    return match[1] if (match := re.match(r"`([^`]+)`", item)) else ""


def places(name: str, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Files that may define `package.module.function` or `path/file.py: function`, and the names to find there."""
    if ": " in name:
        path, inside = name.split(": ", 1)
        yield root / path, inside.split(".")
    parts = name.split(".")
    for cut in range(1, len(parts)):
        yield root.joinpath(*parts[:cut]).with_suffix(".py"), parts[cut:]


def definition(name: str, root: Path) -> ast.AST | None:
    """The function, class or method of that name."""
    for path, inside in places(name, root):
        found: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))] if path.is_file() else []
        for part in inside:
            found = [node for outer in found for node in getattr(outer, "body", ())
                     if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]  # fmt: skip
        if found:
            return found[0]
    return None


def names_in(node: ast.AST) -> set[str]:
    return {part.id if isinstance(part, ast.Name) else part.attr for part in ast.walk(node)
            if isinstance(part, ast.Name | ast.Attribute)}  # fmt: skip


def faults(items: list[str], most: int, root: Path) -> list[str]:
    """What is wrong with a journey."""
    found = [] if len(items) <= most else [f"{len(items)} stations, at most {most} are allowed"]
    nodes = {item: definition(name_of(item), root) for item in items}
    found += [f"no function or class has this name: {item}" for item, node in nodes.items() if not node]
    for item, following in pairwise(items):
        looked_up = REGISTRY.search(following)
        name = looked_up[1] if looked_up else re.split(r"[. ]", name_of(following))[-1]
        if (node := nodes[item]) and THROUGH_A_FOLDER not in following and name not in names_in(node):
            found.append(f"{name_of(item)} does not use {name}")
    return found


SAMPLE = """# A house

### Journey: a cup of tea

A paragraph.

1. `pages/kitchen/make.py: show` draws it
   on two lines.
2. `house.stove.Kettle.boil` (shape: 1 cup).
3. `house.cup.pour` (reads the run's folder).

A paragraph with `code`, and 3. no item.

## Another section

1. `no.station` of a journey.
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, source in {
        "pages/kitchen/make.py": "def show():\n    kettle.boil()\n\ndef hide(): ...\n",
        "house/stove.py": "class Kettle:\n    def boil(self):\n        return 100\n\ndef cold(): ...\n",
        "house/cup.py": "def pour(): ...\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


def found_in(text: str, house: Path, most: int = 3) -> list[str]:
    [items] = journeys(text)
    return faults(items, most, house)


def test_a_true_journey_has_no_faults(house: Path) -> None:
    assert [name_of(item) for item in journeys(SAMPLE)[0]] == [
        "pages/kitchen/make.py: show",
        "house.stove.Kettle.boil",
        "house.cup.pour",
    ]
    assert found_in(SAMPLE, house) == []
    assert journeys("# A house\n") == []
    assert len(journeys(SAMPLE + SAMPLE)) == 2


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("house.cup.pour", "house.cup.spill", "has this name: `house.cup.spill`"),
        ("house.cup.pour", "house.mug.pour", "has this name: `house.mug.pour`"),
        ("Kettle.boil", "boil", "has this name: `house.stove.boil`"),
        ("make.py: show", "make.py: serve", "has this name: `pages/kitchen/make.py: serve`"),
        ("`house.cup.pour`", "Then `house.cup.pour`", "has this name: Then"),
        ("make.py: show", "make.py: hide", "make.py: hide does not use boil"),
        ("Kettle.boil", "cold", "make.py: show does not use cold"),
        (" (reads the run's folder)", "", "house.stove.Kettle.boil does not use pour"),
        ("(reads the run's folder)", "(through CUPS)", "house.stove.Kettle.boil does not use CUPS"),
    ],
)
def test_a_name_that_is_wrong_or_not_used_is_a_fault(old: str, new: str, fault: str, house: Path) -> None:
    assert fault in "; ".join(found_in(SAMPLE.replace(old, new), house))


def test_a_journey_that_is_too_long_is_a_fault(house: Path) -> None:
    assert found_in(SAMPLE, house, most=2) == ["3 stations, at most 2 are allowed"]


def test_the_journeys_of_the_document() -> None:
    found = journeys((ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert len(found) == len(MOST_STATIONS)
    assert [faults(items, most, ROOT) for items, most in zip(found, MOST_STATIONS, strict=True)] == [[], [], []]
