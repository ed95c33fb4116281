"""Every benchmark runs, here on little, and ends in a line of JSON: ratios by net."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LITTLE = ["--nets", "ResNet-8", "--data", "shapes", "--batch", "4", "--steps", "2", "--rounds", "1", "--threads", "1"]
LITTLE += ["--device", "cpu"]
# By script the arguments that make it short.
SHORT = {"train": [*LITTLE, "--norms"], "profile": ["1"]}
slow = pytest.mark.slow
SCRIPTS = [
    pytest.param(path, marks=[slow] if path.stem == "profile" else []) for path in sorted(ROOT.glob("benchmarks/*.py"))
]


def output(script: Path, arguments: list[str], cache: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cache,  # not the project's folder: it is found from anywhere
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers(found: object) -> Iterator[float]:
    if isinstance(found, dict):
        for value in found.values():
            yield from numbers(value)
    else:
        assert isinstance(found, float | int)
        yield found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_ends_in_ratios_by_net(script: Path, tmp_path: Path) -> None:
    assert script.stem in SHORT, f"give {script.name} the arguments in SHORT that make it short"
    *_, last = output(script, SHORT[script.stem], tmp_path)
    found = json.loads(last)
    assert found
    assert all(0 < number < math.inf for number in numbers(found)), found


@pytest.mark.slow
def test_the_training_benchmark_measures_all_that_it_is_asked_for(tmp_path: Path) -> None:
    asked = [*LITTLE, "--norms", "--dashboard", "--compile", "--to", "0", "--seeds", "1"]
    lines = output(ROOT / "benchmarks" / "train.py", asked, tmp_path)
    text = "\n".join(lines)
    for words in (
        "norms and updates take",
        "with the page attached a step takes",
        "seed 0: test accuracy of 0 % after",
        "images/s",
        "TFLOP/s",
        "of the matrix product",
        "1 threads",
    ):
        assert words in text
    assert set(json.loads(lines[-1])) == {"ResNet-8", "ResNet-8 compiled"}
