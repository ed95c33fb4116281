"""Every benchmark runs, here on little, and ends in a line of JSON: numbers by net, or seconds and MB."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet.files import ROOT

LITTLE = ["--nets", "ResNet-8", "--data", "little.npz", "--device", "cpu", "--threads", "1"]
LITTLE += ["--batch", "4", "--steps", "2", "--rounds", "1"]
CLASS = ["--sessions", "3", "--seconds", "5", "--rounds", "1", "--training"]
# By script the arguments that make it short and ask for all that it measures, and some of the words that it then says.
SHORT = {
    "train": [*LITTLE, "--norms", "--where", "--dashboard", "--compile", "--to", "0", "--seeds", "1"],
    "profile": ["--nets", "ResNet-20", "SE-ResNet-50", "--rounds", "1"],
    "saliency": ["--net", "ResNet-8", "--methods", "grad-cam", "ablation-cam", "saliency", "--rounds", "1"],
    "work": ["--work", "ResNet-8:4", "--rounds", "1"],
    "classroom": ["--nets", "ResNet-8", "--pages", ",train", "--settle", "0.1", *CLASS],
    "viewers": ["--net", "ResNet-8", "--viewers", "2", "--seconds", "1", "--steps", "800"],
}
WORDS = {
    "train": (
        *(
            "gradient norms take",
            "updates take",
            "with the page attached a step takes",
            "seed 0: test accuracy of 0 % after",
        ),
        *("where a step's time goes: convolutions ", "batch norm ", "all the rest "),
        *("images/s", "TFLOP/s", "of the fastest kernel", "1 thread,"),
    ),
    "profile": ("to import torch", "goal of 0.3 s, median:"),
    "saliency": ("pytorch-grad-cam ", "torch-cam ", "forward passes, ", "of the faster peer"),
    "work": ("Measured / predicted on", "MB, "),
    "classroom": ("errors: 0", "goal of 1.0 s, p95:", "MB a session", "round 1: 3 sessions opened and closed"),
    "viewers": ("ms of CPU time per viewer and second", "refreshes, after"),
}
LABELS = {
    "train": {"ResNet-8", "ResNet-8 compiled"},
    "profile": {"ResNet-20", "SE-ResNet-50"},
    "saliency": {"grad-cam", "ablation-cam", "saliency"},
    "work": {"ResNet-8:4"},
    "classroom": {"median_s", "p95_s", "max_s", "pages", "warm_MB", "peak_MB", "end_MB", "round_1_MB"},
    "viewers": {"ResNet-8"},
}
SCRIPTS = sorted(ROOT.glob("benchmarks/*.py"))


def write_little(folder: Path) -> None:
    """128 training and 10 test images of 8 pixels; the data set shapes would have to be drawn, in 9 s more."""
    draw, arrays = np.random.default_rng(0), dict[str, Any]()
    for part, count in (("train", 128), ("test", 10)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, 8, 8, 3), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 10
    np.savez(folder / "little.npz", **arrays)


def output(script: Path, arguments: list[str], folder: Path) -> list[str]:
    own = {"XDG_CACHE_HOME": str(folder), "RESNET_DATA_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,  # not the project's folder: it is found from anywhere
        env=os.environ | own,
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


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_ends_in_numbers_by_net(script: Path, tmp_path: Path) -> None:
    assert script.stem in SHORT, f"give {script.name} the arguments in SHORT that make it short"
    write_little(tmp_path)
    *lines, last = output(script, SHORT[script.stem], tmp_path)
    found = json.loads(last)
    assert set(found) == LABELS[script.stem]
    assert all(0 < number < math.inf for number in numbers(found)), found
    assert [word for word in WORDS[script.stem] if word not in "\n".join(lines)] == []
