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
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.train.feeds import Resident
from resnet.train.loop import evaluate
from resnet.train.narrow import accelerate

ALL = [*map(Run, sorted((ROOT / "assets" / "runs").iterdir()))]
RECORDED = {run.job.net.name: run for run in ALL if run.job.data == "cifar10"}
BEGUN, SCRATCH = sorted((run for run in ALL if run.job.data == "shapes"), key=lambda run: not run.job.start)
NAMES = ["ResNet-20", "plain-20", "ResNet-56", "plain-56"]
RESULTS = (ROOT / "docs" / "RESULTS.md").read_text()


def test_all_are_there_and_small() -> None:
    assert sorted(RECORDED) == sorted(NAMES)
    assert len(ALL) == len(NAMES) + 2
    files = [path for path in (ROOT / "assets").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6


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


def test_one_net_was_trained_from_weights_and_from_scratch_on_the_same_batches() -> None:
    assert BEGUN.job.net == SCRATCH.job.net
    assert BEGUN.job.group == SCRATCH.job.group
    np.testing.assert_array_equal(BEGUN.steps()["batch"], SCRATCH.steps()["batch"])
    assert BEGUN.job.start.startswith(f"run {RECORDED['ResNet-56'].id}, ")
    assert BEGUN.job.train_images == 200
    assert BEGUN.epochs()["test_accuracy"].iloc[-1] > SCRATCH.epochs()["test_accuracy"].iloc[-1] + 0.3
    assert BEGUN.job.title in {row.split(" |")[0].strip("| ") for row in RESULTS.splitlines()}


@pytest.mark.parametrize("run", [BEGUN, SCRATCH], ids=["from weights", "from scratch"])
def test_the_weights_of_the_pair_on_shapes_say_what_was_recorded(run: Run) -> None:
    data = load("shapes", size=32)
    assert run.status().state == "finished"
    assert run.checkpoint_step() == len(run.steps()) == 300
    opened = open_run(run)
    with torch.no_grad():
        predicted = opened.model.eval()(opened.prepare(data.test_images)).argmax(1).numpy()
    agreed = (predicted == run.predictions()["predicted"][-1]).mean()
    assert agreed > 0.99, "its weights are kept in half precision"
    accuracy = run.epochs()["test_accuracy"].iloc[-1]
    assert f"| {run.job.title} | {accuracy:.1%}".replace("%", " %") in RESULTS


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
