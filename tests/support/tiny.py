"""What the tests of training share: a tiny net, data for it, and runs that are really trained."""

import dataclasses
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from resnet.nets.codes import to_code
from resnet.nets.spec import StageSpec, cifar
from resnet.runs import children, worker
from resnet.runs import store as runs
from resnet.runs.jobs import Job
from resnet.runs.store import Run
from resnet.train.loop import EpochTested
from resnet.train.narrow import accelerate
from resnet.train.recipes import Recipe
from resnet.train.state import State

TINY = dataclasses.replace(
    cifar(8), stages=(StageSpec(1, 4, 1), StageSpec(1, 8, 2)), stem_width=4, classes=3, image_size=8
)
TINY_CODE = to_code(dataclasses.replace(TINY, classes=10, image_size=32))
RECIPE = Recipe(epochs=2, batch=8, precision="fp32")
LONG = dataclasses.replace(RECIPE, epochs=20, batch=2)  # 32 steps each
DEADLINE_S = 90


class Killed(BaseException):
    """As kill -9: nothing of the worker handles it."""


def write_data(folder: Path, test: int = 40, **more: Any) -> Path:
    """tiny.npz: 64 training and 40 test images of 8 pixels, noise in 3 classes."""
    draw, fields = np.random.default_rng(0), dict(more)
    for part, count in (("train", 64), ("test", test)):
        fields[f"{part}_images"] = draw.integers(0, 256, (count, 8, 8, 3), np.uint8)
        fields[f"{part}_labels"] = np.arange(count) % 3
    folder.mkdir(exist_ok=True)
    np.savez(folder / "tiny.npz", **fields)
    return folder / "tiny.npz"


def job(**changes: Any) -> Job:
    return dataclasses.replace(Job(TINY, "tiny.npz", RECIPE, threads=1, device="cpu"), **changes)


def state_of(model: nn.Module, recipe: Recipe) -> State:
    """The model at its first step on the CPU, as a run prepares it."""
    return State(accelerate(model, "cpu", recipe.precision), recipe)


def figures(record: np.record | EpochTested) -> dict[str, Any]:
    """All that is recorded of a step but its time, or of a test, comparable with ==."""
    if isinstance(record, np.record):
        return {name: record[name].tolist() for name in record.dtype.names or () if name != "seconds"}
    found = {"epoch": record.epoch, "step": record.step} | vars(record.result)
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def until(
    what: Callable[[], object], seconds: float = DEADLINE_S, process: subprocess.Popen[str] | None = None
) -> None:
    """Wait for what happens while `process` runs."""
    end = time.monotonic() + seconds
    while not what():
        assert process is None or process.poll() is None, "".join(out or "" for out in process.communicate())
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def child_of(run: Run) -> subprocess.Popen:
    return [child for (path, _), child in children._workers.items() if path == run.path][-1]


def log_of(run: Run) -> str:
    return (run.path / "worker.log").read_text()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_equal_results(run: Run, reference: Run) -> None:
    """Step records but their seconds, tests, and the checkpoint."""
    steps, others = run.steps(), reference.steps()
    for name in set(steps.dtype.names or ()) - {"seconds"}:
        assert np.array_equal(steps[name], others[name]), name
    assert run.epochs().equals(reference.epochs())
    assert np.array_equal(run.predictions(), reference.predictions())
    tensors, expected = (load_file(each.path / "checkpoint.safetensors") for each in (run, reference))
    assert same(tensors, expected)


def uninterrupted(recipe: Recipe) -> Run:
    run = runs.create(job(recipe=recipe))
    assert worker.work(run.path).state == "finished"
    assert run.steps()["step"].tolist() == list(range(1, recipe.epochs * 64 // recipe.batch + 1))
    assert run.epochs().epoch.tolist() == list(range(1, recipe.epochs + 1))
    return run
