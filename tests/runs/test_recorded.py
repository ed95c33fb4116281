"""The recorded runs that the program shows first: whole, small, and what the documents say of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from resnet.data.dataset import load
from resnet.files import ROOT
from resnet.nets.model import memory_format
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.train.feeds import Resident
from resnet.train.loop import evaluate
from resnet.train.narrow import accelerate

RECORDED = {run.job.net.name: run for run in map(Run, sorted((ROOT / "assets" / "runs").iterdir()))}
NAMES = ["ResNet-20", "plain-20", "ResNet-56", "plain-56"]
RESULTS = (ROOT / "docs" / "RESULTS.md").read_text()


def test_all_are_there_and_small() -> None:
    assert sorted(RECORDED) == sorted(NAMES)
    files = [path for path in (ROOT / "assets" / "runs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_is_whole(name: str) -> None:
    run = RECORDED[name]
    steps, epochs, labels = run.steps(), run.epochs(), run.test_set()[0]
    assert run.status().state == "finished"
    assert run.checkpoint_step() == len(steps) == run.job.recipe.total_steps(390)
    np.testing.assert_array_equal(steps["step"], np.arange(1, len(steps) + 1))
    assert all(np.isfinite(steps[column]).all() for column in ("loss", "norms", "updates"))
    np.testing.assert_array_equal(epochs["epoch"], np.arange(1, run.job.recipe.epochs + 1))
    np.testing.assert_array_equal(run.predictions()["epoch"], epochs["epoch"])
    np.testing.assert_allclose((run.predictions()["predicted"] == labels).mean(1), epochs["test_accuracy"], atol=1e-9)
    [lossless] = run.tests()
    assert (lossless["data"], lossless["images"], lossless["step"]) == ("cifar10-lossless-5k.npz", 1000, len(steps))
    assert "JPEG" in run.info()["source"]


@pytest.mark.parametrize("name", ["ResNet-20", "ResNet-56"])
def test_twins_were_trained_on_the_same_batches(name: str) -> None:
    net, twin = RECORDED[name], RECORDED[name.replace("ResNet", "plain")]
    assert (net.job.group, net.job.recipe) == (twin.job.group, twin.job.recipe)
    np.testing.assert_array_equal(net.steps()["batch"], twin.steps()["batch"])


@pytest.mark.parametrize("name", NAMES)
def test_results_has_the_recorded_accuracies(name: str) -> None:
    run = RECORDED[name]
    accuracy = run.epochs().set_index("epoch")["test_accuracy"]
    last, best, lossless = accuracy.iloc[-1], accuracy.max(), run.tests()[0]["accuracy"]
    train = run.steps()["accuracy"][-390:].mean(dtype=float)
    row = f"| {name} | {last:.2%} | {best:.2%} ({accuracy.idxmax()}) | {lossless:.1%} | {train:.1%} |"
    assert row.replace("%", " %") in RESULTS


def test_train_opens_with_the_deep_pair(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setattr(runs, "SHIPPED", ROOT / "assets" / "runs")
    app = AppTest.from_file(str(ROOT / "pages" / "ui" / "main.py"), default_timeout=120).run()
    app.switch_page("../training/train.py").run()
    assert not app.exception
    said = "\n".join(str(element.value) for element in [*app.markdown, *app.caption])
    for name in ("ResNet-56", "plain-56"):
        accuracy = RECORDED[name].epochs()["test_accuracy"].iloc[-1]
        assert f"**{name}** at epoch 15, step 5,850: test accuracy {accuracy:.2%}".replace("%", " %") in said
    assert "Recipe fast, 15 epochs, weight decay 0.0005, seed 0" in said
    assert "batch norm's: tests use its running statistics" in said, "plain-56 falls to 10 % for two epochs"


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_say_what_was_recorded(name: str, cifar10: Path) -> None:
    run, data = RECORDED[name], load("cifar10")
    if data.fingerprint != run.info()["fingerprint"]:
        pytest.skip("this CIFAR-10 is not the JPEG copy that the recorded runs learnt from")
    some = slice(None, None, 40)
    data = dataclasses.replace(data, test_images=data.test_images[some], test_labels=data.test_labels[some])
    recipe = dataclasses.replace(run.job.recipe, ema=0.0, precision=run.info()["precision"])
    recorded = {row["epoch"]: row["predicted"][some] for row in run.predictions()}
    for epoch in (None, *run.checkpoints()):
        model = load_model(run, epoch)
        feed = Resident(data, recipe, torch.device("cpu"), memory_format(model))
        feed.mean, feed.std = torch.tensor(run.info()["mean"]), torch.tensor(run.info()["std"])
        result = evaluate(accelerate(model, "cpu", recipe.precision), feed, recipe.precision, recipe.flip_test)
        agreed = (result.predicted == recorded[epoch or max(recorded)]).mean()
        assert agreed > (0.99 if epoch is None else 0.97)  # those after an epoch are kept in half precision
