"""A run that is tested on other data and handed on, from a run that was really trained."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnet.cli.main import main
from resnet.data.dataset import Dataset, load, normalise
from resnet.errors import Refused
from resnet.runs import sharing
from resnet.runs import store as runs
from resnet.runs.sharing import share
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.runs.worker import work
from tests.support.tiny import RECIPE, job, uninterrupted, write_data

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


@pytest.fixture
def animals(tiny_data: Path) -> Run:
    """A run of the classes cat, dog and owl."""
    write_data(tiny_data.parent, class_names=np.array(["cat", "dog", "owl"]))
    return uninterrupted(RECIPE)


def reordered(data: Dataset, names: tuple[str, ...], label: Sequence[int]) -> Dataset:
    """The same test images under other numbers: old label i is label[i] of `names`."""
    return dataclasses.replace(data, class_names=names, test_labels=torch.tensor(label)[data.test_labels])


def test_classes_go_by_their_names_whatever_their_order(animals: Run) -> None:
    data = load("tiny.npz")
    own = sharing.test_on(animals, data)
    assert own["notes"] == []
    other = sharing.test_on(animals, reordered(data, ("owl", "cat", "ant", "dog"), (1, 3, 0)))
    assert (other["accuracy"], other["loss"]) == (own["accuracy"], own["loss"])
    assert other["notes"] == ["Its classes (3 of the run's 3) are matched by name."]
    two = dataclasses.replace(data, test_images=data.test_images[1::3], test_labels=data.test_labels[1::3])
    part = sharing.test_on(animals, reordered(two, ("dog",), (9, 0)))
    assert part["accuracy"] == (np.array(animals.predictions()["predicted"][-1])[1::3] == 1).mean()
    assert part["notes"] == ["Its classes (1 of the run's 3) are matched by name."]


def test_numbers_are_the_runs_classes(animals: Run) -> None:
    data = load("tiny.npz")
    own = sharing.test_on(animals, data)
    found = sharing.test_on(animals, dataclasses.replace(data, class_names=("0", "1", "2")))
    assert found["accuracy"] == own["accuracy"]
    assert found["notes"] == ["Its classes have no names: their numbers are taken as those of the run's classes."]
    sorted_as_text = sharing.test_on(animals, reordered(data, ("0", "2", "1"), (0, 2, 1)))
    assert sorted_as_text["accuracy"] == own["accuracy"]


@pytest.mark.parametrize(
    ("names", "label", "strange"),
    [
        (("apple", "banana", "cat"), (0, 1, 2), "apple, banana"),
        (("0", "1", "2", "3"), (1, 2, 3), "1, 2, 3"),
        (("1", "2", "3"), (0, 1, 2), "1, 2, 3"),
        (("Cat", "dog", "owl"), (0, 1, 2), "Cat"),
    ],
)
def test_classes_that_the_run_does_not_know_are_refused(
    animals: Run, names: tuple[str, ...], label: tuple[int, ...], strange: str
) -> None:
    sentence = f"The classes of this run are cat, dog, owl; tiny.npz has pictures of {strange}. Choose"
    with pytest.raises(Refused, match=sentence):
        sharing.test_on(animals, reordered(load("tiny.npz"), names, label))
    assert animals.tests() == []


def test_a_folder_is_tested_whole_on_the_command_line(
    animals: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load("tiny.npz")
    for name, label in (("dog", 1), ("cat", 0)):
        for number, image in enumerate(data.test_images[data.test_labels == label][:6]):
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "mine" / name / f"{number}.png")
    (tmp_path / "mine" / "dog" / "notes.txt").write_text("")
    assert main(["test", animals.id, "--data", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    predicted, labels = animals.predictions()["predicted"][-1], data.test_labels.numpy()
    right = sum((predicted[labels == label][:6] == label).sum() for label in (0, 1))
    assert f": {right / 12:.2%} of 12 test images. The pictures in the folder mine. All pictures" in said
    assert "no picture by its name: 1 (dog/notes.txt)" in said
    assert "Its classes (2 of the run's 3) are matched by name" in said
    (tmp_path / "mine" / "cat").rename(tmp_path / "mine" / "apple")
    assert main(["test", animals.id, "--data", str(tmp_path / "mine")]) == 2
    assert "mine has pictures of apple. Choose" in capsys.readouterr().err


def test_data_that_the_net_cannot_read_are_refused() -> None:
    run, data = uninterrupted(RECIPE), load("tiny.npz")
    with pytest.raises(Refused, match=r"are 0, 1, 2; shapes has pictures of circle, ring, crescent and 7 more"):
        sharing.test_on(run, load("shapes", size=8))
    grey = dataclasses.replace(data, train_images=data.train_images[:, :1], test_images=data.test_images[:, :1])
    with pytest.raises(Refused, match=r"The net reads 3 channels and has 3 classes; tiny.npz has 1 channels"):
        sharing.test_on(run, grey)


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
