"""`gradients` and `explain`: the very numbers of a notebook and of the pages, on a net that was really trained."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from PIL import Image
from safetensors.torch import load_file, save_file

import resnet
from pages.ui import cached
from resnet.cli.main import main
from resnet.data.photos import open_photo, photo_batch
from resnet.nets.inputs import Inputs
from resnet.runs import process
from resnet.runs import store as runs
from resnet.runs.jobs import Status
from resnet.runs.store import Run
from resnet.work.analysing import NOISE, OWN, Analysed
from resnet.work.explaining import Answers, Maps, Picture, Query
from resnet.work.weights import Model, Weights
from tests.support.tiny import RECIPE, TINY_CODE, uninterrupted
from tests.support.work import done

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back")
COUNT = 16


@pytest.fixture(params=["channel", "pixel"])
def run(request: pytest.FixtureRequest, tiny_data: Path) -> Run:
    """Trained on images normalised by channel, and by pixel as in the recipe `paper`."""
    return uninterrupted(dataclasses.replace(RECIPE, scaling=request.param))


@pytest.fixture
def trained_once(tiny_data: Path) -> Run:
    return uninterrupted(dataclasses.replace(RECIPE, epochs=1))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return path


def test_a_runs_gradients_are_the_same_everywhere(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = resnet.open_run(resnet.find(run.id))
    notebook = resnet.gradient_norms(trained.model, *trained.test_batch(COUNT))
    page = done(Analysed("gradients", (Model.of(run),), OWN, COUNT))[list(notebook)]
    assert_frame_equal(notebook, page, check_exact=True)
    path = tmp_path / "norms.csv"
    assert main(["gradients", "--run", run.id, "--count", str(COUNT), "--csv", str(path)]) == 0
    written = pd.read_csv(path)
    assert_frame_equal(written[["name", "kind", "depth", "norm"]], page, check_exact=True)
    assert f"{run.job.net.name}, ||dL/dx||: x " in capsys.readouterr().out


@pytest.mark.usefixtures("own_cache")
def test_a_runs_surface_is_kept_where_the_page_finds_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = uninterrupted(RECIPE)
    command = ["surface", run.id, "--points", "3", "--images", str(COUNT), "--out", str(tmp_path / "shipped")]
    assert main(command) == 0
    asked = Analysed("line", (Model.of(run),), OWN, COUNT, options=(("points", 3),))
    kept = done(asked)
    middle = kept.query("a == 0").iloc[0]
    assert f"{middle.loss:.4g} nats and {middle.accuracy:.1%} right in the middle" in capsys.readouterr().out
    both = [
        {path.name: path.read_bytes() for path in tmp_path.glob(place)} for place in ("shipped/*", "cache/**/*.npz")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 2, "the surface, and its middle row as a line"
    for path in tmp_path.glob("cache/**/*.npz"):
        path.unlink()
    computed = done(asked).sort_values("a", ignore_index=True)
    assert_frame_equal(computed.astype(kept.dtypes), kept.sort_values("a", ignore_index=True))
    assert main([*command[:4], "--images", "1000"]) == 2, "there are 40"


def test_a_nets_gradients_are_the_same_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "norms.csv"
    arguments = ["gradients", TINY_CODE, "--seed", "3", "--norm", "group", "--count", str(COUNT), "--csv", str(path)]
    assert main(arguments) == 0
    written = pd.read_csv(path)
    net = dataclasses.replace(resnet.from_code(TINY_CODE), norm="group")
    models = tuple(Model(each, Weights("seed", "3")) for each in (net, resnet.plain_twin(net)))
    page = done(Analysed("gradients", models, NOISE, COUNT))
    assert_frame_equal(written[list(page)], page, check_exact=True)
    told = capsys.readouterr().out
    assert len([line for line in told.splitlines() if "per layer towards the input, first / last" in line]) == 4


def test_alone_and_a_data_sets_images(tmp_path: Path) -> None:
    path = tmp_path / "norms.csv"
    asked = ["gradients", TINY_CODE, "--images", "tiny.npz", "--count", str(COUNT), "--alone", "--csv", str(path)]
    assert main(asked) == 0
    written = pd.read_csv(path)
    net = dataclasses.replace(resnet.from_code(TINY_CODE), classes=3)  # as the data have
    page = done(Analysed("gradients", (Model(net, Weights("seed", "0")),), "tiny.npz", COUNT))
    assert_frame_equal(written[list(page)], page, check_exact=True)


@pytest.mark.parametrize("method", resnet.METHODS)
def test_a_photos_map_is_the_same_everywhere(
    run: Run, photo: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = run.job.net
    model = Model.of(run)
    pixels = cached.photo_view(photo.read_bytes(), model.frame, "crop").pixels
    picture = Picture.of(pixels)
    [said] = done(Answers((model,), (picture,)))
    [page] = done(Maps((Query(model, picture, method, "layer1", *said.top(1)),)))

    opened = resnet.open_run(resnet.find(run.id))
    images = opened.prepare(photo_batch(open_photo(photo.read_bytes()), net.image_size, net.in_channels))
    _, classes = resnet.top_k(opened.model, images)
    notebook = resnet.explain(method, opened.model, images, int(classes[0, 0]), "layer1")
    assert np.array_equal(notebook[0].numpy(), page)

    out = tmp_path / "map.npy"
    arguments = ["explain", str(photo), "--run", run.id, "--method", method, "--layer", "layer1", "--out", str(out)]
    assert main(arguments) == 0
    assert np.array_equal(np.load(out), page)
    first, *rest = capsys.readouterr().out.splitlines()
    blank = [line for line in rest if line.startswith("The map is 0 everywhere.")]
    assert bool(blank) == (not page.any())
    last = [line for line in rest if line not in blank][-1]
    [likeliest] = said.top(1)
    name = opened.class_names[likeliest]
    assert first == f"{said.probabilities[likeliest]:7.2%}  {name}"
    assert f"for the logit of {name}, {page.min():.4g} to {page.max():.4g}" in last


def test_a_map_as_a_picture_is_white_at_its_largest_value(run: Run, photo: Path, tmp_path: Path) -> None:
    asked = ["explain", str(photo), "--run", run.id, "--method", "saliency", "--target", "2"]
    assert main([*asked, "--out", str(tmp_path / "map.npy")]) == main([*asked, "--out", str(tmp_path / "map.png")]) == 0
    values, grey = np.load(tmp_path / "map.npy"), np.asarray(Image.open(tmp_path / "map.png"))
    assert grey.shape == values.shape == (8, 8)
    assert grey.max() == 255
    assert np.abs(grey - 255 * values / values.max()).max() <= 0.5001


def test_why_this_rather_than_that(run: Run, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened, out = resnet.open_run(resnet.find(run.id)), tmp_path / "map.npy"
    first, second = opened.class_names[:2]
    asked = ["explain", str(photo), "--run", run.id, "--method", "saliency", "--target", first, "--against", second]
    assert main([*asked, "--out", str(out)]) == 0
    assert f"for the logit of {first} minus that of {second}, " in capsys.readouterr().out
    images = opened.prepare(photo_batch(open_photo(photo.read_bytes()), 8, 3))
    [wanted] = resnet.explain("saliency", opened.model, images, 0, against=1).numpy()
    assert np.array_equal(np.load(out), wanted)


@pytest.mark.parametrize("opset", [13, 18])
def test_a_trained_run_is_exported_with_all_that_its_user_needs(run: Run, tmp_path: Path, opset: int) -> None:
    out = tmp_path / "net.onnx"
    assert main(["export", "onnx", "--run", run.id, "--opset", str(opset), "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    inputs = Inputs.from_json(session.get_modelmeta().custom_metadata_map["inputs"])
    opened = resnet.open_run(resnet.find(run.id))
    assert inputs.class_names == opened.class_names
    pixels = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 3, 8, 8), np.uint8))
    mean, std = (torch.tensor(values) for values in (inputs.mean, inputs.std))
    by_hand = (pixels / 255 - mean.reshape(3, *mean.shape[1:] or (1, 1))) / std.reshape(3, *std.shape[1:] or (1, 1))
    (logits,) = session.run(["logits"], {"images": by_hand.numpy()})
    with torch.no_grad():
        expected = opened.model.eval()(opened.prepare(pixels)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("arguments", [["onnx"], [TINY_CODE, "onnx", "--run", "some-run"]], ids=["neither", "both"])
def test_export_takes_a_net_or_a_run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err.startswith("Export takes a net, or a run.")


def test_a_training_begins_with_the_weights_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "start", lambda *found: [each.write_status(Status("finished")) for each in found])
    net = dataclasses.replace(resnet.from_code(TINY_CODE), classes=7)
    state = resnet.build(net, seed=4).state_dict()
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "some.pth")
    asked = ["train", "--net", TINY_CODE, "--data", "tiny.npz", "--twin", "--scratch", "--frozen", "1"]
    assert main([*asked, "--from", str(tmp_path / "some.pth")]) == 0
    begun, *others = sorted(runs.all_runs(), key=lambda each: not each.job.start)
    content = (begun.path / "start.safetensors").read_bytes()
    checksum = hashlib.sha256(content).hexdigest()[:12]
    assert begun.job.start == f"some.pth, 30 of 32 weights (SHA-256 {checksum}…)"
    assert (begun.job.recipe.frozen, [other.job.recipe.frozen for other in others]) == (1, [0, 0])
    assert sorted(other.job.net.plain for other in others) == [False, True]
    assert not any((other.path / "start.safetensors").exists() or other.job.start for other in others)
    assert len({each.job.group for each in (begun, *others)}) == 1
    taken = load_file(begun.path / "start.safetensors")
    assert taken.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[name]) for name, value in taken.items())
    assert "from weights" in capsys.readouterr().out


BEGINNINGS = {
    "no run": ("nonsense", "There is no run named 'nonsense'"),
    "no epoch": ("RUN@first", "A run's epoch is a number. Received first."),
    "an epoch not kept": ("RUN@77", "has no checkpoint yet"),
    "torchvision": ("torchvision", "torchvision's weights of ResNet-6 (custom) must be one"),
    "another net's file": ("FILE", "These weights do not fit"),
}


@pytest.mark.parametrize("what", BEGINNINGS)
def test_what_a_training_cannot_begin_with_is_a_sentence(
    what: str, tmp_path: Path, trained_once: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    text, sentence = BEGINNINGS[what]
    save_file(resnet.build(resnet.from_code("plain-20")).state_dict(), tmp_path / "other.safetensors")
    named = text.replace("RUN", trained_once.id).replace("FILE", str(tmp_path / "other.safetensors"))
    assert main(["train", "--net", TINY_CODE, "--data", "tiny.npz", "--from", named]) == 2
    assert sentence in capsys.readouterr().err


WRONG = {
    "run and net": (["gradients", TINY_CODE, "--count", "1"], "A batch of ResNet-6 (custom) has 2 images or more"),
    "norm": (["gradients", TINY_CODE, "--norm", "layer"], "Norm must be one this program knows. Received 'layer'."),
    "images": (["gradients", TINY_CODE, "--images", "nonsense"], "There is no data set 'nonsense'."),
    "clips": (
        ["gradients", "ResNet3D-18", "--images", "tiny.npz", "--count", "2"],
        "A data set's images are for a net",
    ),
    "run": (["gradients", "--run", "nonsense"], "There is no run named 'nonsense'"),
    "photo": (["explain", "no.png", "--run", "RUN", "--out", "map.png"], "[Errno 2] No such file or directory"),
    "ending": (["explain", "PHOTO", "--run", "RUN", "--out", "map.gif"], "A map is written as .npy or as .png."),
    "method": (["explain", "PHOTO", "--run", "RUN", "--method", "me", "--out", "map.npy"], "The method must be one"),
    "layer": (["explain", "PHOTO", "--run", "RUN", "--layer", "layer9", "--out", "map.npy"], "Grad-CAM needs one of"),
    "target": (
        ["explain", "PHOTO", "--run", "RUN", "--target", "9", "--out", "map.npy"],
        "A class is one of the run's",
    ),
    "against": (
        ["explain", "PHOTO", "--run", "RUN", "--against", "no", "--out", "map.npy"],
        "A class is one of the run's",
    ),
    "epoch": (["explain", "PHOTO", "--run", "RUN", "--epoch", "99", "--out", "map.npy"], "RUN has no checkpoint"),
    "a run's norm": (["gradients", "--run", "RUN", "--norm", "none"], "A run is measured with its own norm"),
}


def test_a_mistake_is_one_sentence_and_exit_2(
    trained_once: Run, photo: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, sentence in WRONG.values():
        named = {"RUN": trained_once.id, "PHOTO": str(photo)}
        assert main([named.get(word, word) for word in arguments]) == 2
        out, error = capsys.readouterr()
        assert error.startswith(sentence.replace("RUN", trained_once.id))
        assert error.count("\n") == 1
        assert out == ""
    assert not list(tmp_path.glob("map.*"))
