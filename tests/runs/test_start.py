"""Runs that begin with other weights, and runs by every optimiser and augmentation, killed and resumed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from resnet.errors import Refused
from resnet.runs import store as runs
from resnet.runs import worker, writer
from resnet.runs.jobs import Job
from resnet.runs.store import START, Run
from resnet.train.recipes import AUGMENTATIONS, OPTIMIZERS, Recipe
from resnet.work.weights import begin, of_run
from tests.support.tiny import RECIPE, TINY, Killed, assert_equal_results, job, uninterrupted

pytestmark = pytest.mark.usefixtures("tiny_data", "one_thread")
WAYS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name, "lr": lr} for name, lr in OPTIMIZERS.items()},
    **{name: {name: 1} for name in AUGMENTATIONS},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every_s", [-1, 20], ids=["checkpoint each step", "checkpoint each epoch"])
def test_a_run_killed_in_an_epoch_ends_as_one_that_never_was(
    way: str, every_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, **WAYS[way])
    reference, run = uninterrupted(recipe), runs.create(job(recipe=recipe))
    monkeypatch.setattr(writer, "CHECKPOINT_EVERY_S", every_s)
    append = writer._append_steps

    def dying(run: Run, rows: np.ndarray) -> None:
        append(run, rows)
        if rows["step"].tolist() in ([5], [13]):
            raise Killed

    monkeypatch.setattr(writer, "_append_steps", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            worker.work(run.path)
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


def begun(reference: Run, data: str = "tiny.npz", folder: Path | None = None, **recipe: Any) -> Run:
    """A run of one epoch that begins with the weights of another one."""
    content, words, pixels = begin(TINY, of_run(reference))
    file = (folder or reference.path.parent) / START
    file.write_bytes(content)
    how = dataclasses.replace(RECIPE, epochs=1, **recipe)
    run = runs.create(job(data=data, recipe=how, start=words, pixels=pixels), file)
    file.unlink()
    assert worker.work(run.path).state == "finished"
    return run


def test_the_first_test_of_a_run_from_weights_is_that_of_the_weights() -> None:
    reference = uninterrupted(RECIPE)
    run = begun(reference, frozen=3, lr=1e-6, weight_decay=0.0)
    assert run.epochs().test_accuracy.iloc[0] == reference.epochs().test_accuracy.iloc[-1]
    assert run.epochs().test_loss.iloc[0] == pytest.approx(reference.epochs().test_loss.iloc[-1], rel=1e-3)
    assert run.job.start.startswith(f"run {reference.id}, 32 of 32 weights (SHA-256 ")
    assert Job.from_json(run.job.to_json()) == run.job


def test_frozen_stages_of_a_run_are_those_of_its_beginning() -> None:
    reference = uninterrupted(RECIPE)
    run = begun(reference, frozen=2)
    before, after = (load_file(each.path / "checkpoint.safetensors") for each in (reference, run))
    frozen = [name for name in after if name.startswith(("model.conv1", "model.bn1", "model.layer1"))]
    assert len(frozen) == 18
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert not torch.equal(after["model.fc.weight"], before["model.fc.weight"])


def test_pixels_are_scaled_as_the_weights_know_them(tiny_data: Path) -> None:
    reference = uninterrupted(RECIPE)
    arrays = dict(np.load(tiny_data))
    dark = {name: value // 3 if name.endswith("images") else value for name, value in arrays.items()}
    np.savez(tiny_data.parent / "dark.npz", **dark)
    run = begun(reference, "dark.npz")
    assert (run.info()["mean"], run.info()["std"]) == (reference.info()["mean"], reference.info()["std"])
    alone = runs.create(job(data="dark.npz", recipe=dataclasses.replace(RECIPE, epochs=1)))
    assert worker.work(alone.path).state == "finished"
    assert np.allclose(np.array(alone.info()["mean"]), np.array(reference.info()["mean"]) / 3, atol=0.01)


@pytest.mark.parametrize("pixels", [((0.5,), (float("nan"),)), (("a",), (1.0,)), ("ab", "cd")])
def test_pixels_that_are_no_numbers_are_refused(pixels: Any) -> None:
    with pytest.raises((Refused, ValueError, TypeError)):
        job(pixels=pixels)


def test_a_damaged_file_of_weights_is_a_sentence() -> None:
    run = runs.create(job(start="some weights", recipe=Recipe(epochs=1, batch=8)))
    (run.path / START).write_bytes(b"nothing")
    status = worker.work(run.path)
    assert (status.state, "are missing, damaged or another net's" in status.message) == ("failed", True)
