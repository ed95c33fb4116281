"""A run that is tested on other data and handed on, from a run that was really trained."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from resnet.data.dataset import load, normalise
from resnet.errors import Refused
from resnet.runs import sharing
from resnet.runs import store as runs
from resnet.runs.sharing import share
from resnet.runs.weights import load_model
from resnet.runs.worker import work
from tests.support.tiny import RECIPE, job, uninterrupted

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back")

AVERAGED = dataclasses.replace(RECIPE, epochs=5, ema=0.5)


def test_the_accuracy_on_other_data_is_that_of_a_plain_loop_and_is_kept() -> None:
    run = uninterrupted(AVERAGED)
    data = load("tiny.npz")
    other = dataclasses.replace(data, name="other", source="Elsewhere.", test_images=data.test_images.flip(0) // 2)
    found = sharing.test_on(run, other)
    with torch.no_grad():
        x = normalise(other.test_images, data.mean, data.std)  # as the net learnt, whatever the other data's mean is
        logits = load_model(run).eval()(x)
    assert found["accuracy"] == (logits.argmax(1) == other.test_labels).double().mean().item()
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, other.test_labels).item(), rel=1e-5)
    assert (found["data"], found["source"], found["images"], found["step"]) == ("other", "Elsewhere.", 40, 40)
    assert run.tests() == [found]
    again = sharing.test_on(run, data)
    sharing.test_on(run, other)
    assert [test["data"] for test in run.tests()] == [again["data"], "other"]
    assert again["accuracy"] == run.epochs().test_accuracy.iloc[-1]


def test_data_that_the_net_cannot_read_are_refused() -> None:
    run = uninterrupted(RECIPE)
    with pytest.raises(Refused, match="The net reads 3 channels and has 3 classes; shapes has"):
        sharing.test_on(run, load("shapes", size=8))


@pytest.mark.parametrize("text", ["", "5", "{}", "[5]", "[" * 10_000])
def test_damaged_tests_read_as_none(text: str) -> None:
    run = uninterrupted(RECIPE)
    (run.path / "tests.json").write_text(text)
    assert run.tests() == []


def test_a_shared_run_has_all_that_can_be_looked_at_and_nothing_else(tmp_path: Path) -> None:
    run = uninterrupted(AVERAGED)
    sharing.test_on(run, load("tiny.npz"))
    copy = share(run, tmp_path / "out", epochs=2)
    assert copy.path == tmp_path / "out" / run.id
    assert copy.job == run.job
    assert (copy.status().state, copy.status().host) == ("finished", "")
    assert np.array_equal(copy.steps(), run.steps())
    assert copy.info() == run.info()
    assert copy.epochs().equals(run.epochs())
    assert np.array_equal(copy.predictions(), run.predictions())
    assert copy.tests() == run.tests()
    assert all(np.array_equal(a, b) for a, b in zip(copy.test_set(), run.test_set(), strict=True))
    whole, handed = load_model(run).state_dict(), load_model(copy).state_dict()
    assert all(torch.equal(whole[name], handed[name]) for name in whole)
    assert not any(
        name.startswith(("momentum.", "average.")) for name in load_file(copy.path / "checkpoint.safetensors")
    )
    assert not (copy.path / "worker.log").exists()
    assert len(run.checkpoints()) > len(copy.checkpoints()) == 2
    for epoch in copy.checkpoints():
        for name, value in load_model(copy, epoch).state_dict().items():
            torch.testing.assert_close(value, load_model(run, epoch).state_dict()[name], rtol=1e-3, atol=1e-6)


def test_the_weights_after_an_epoch_are_those_that_were_tested() -> None:
    run = uninterrupted(AVERAGED)
    assert list(run.checkpoints()) == [1, 2, 3, 4]
    data = load("tiny.npz")
    for epoch, predicted in zip(run.epochs().epoch, run.predictions()["predicted"], strict=True):
        if epoch in run.checkpoints():
            with torch.no_grad():
                logits = load_model(run, epoch).eval()(normalise(data.test_images, data.mean, data.std))
            assert logits.argmax(1).tolist() == predicted.tolist()
    with pytest.raises(Refused, match="has no checkpoint yet"):
        load_model(run, 5)


def test_a_run_that_goes_on_or_has_nothing_is_not_shared(tmp_path: Path) -> None:
    run = runs.create(job())
    with pytest.raises(Refused, match=r"is stopped\. A run can be shared once it has ended or is paused"):
        share(run, tmp_path)
    assert work(run.path).state == "finished"
    share(run, tmp_path)
    with pytest.raises(Refused, match=r"exists\. Remove it, or choose another folder"):
        share(run, tmp_path)
