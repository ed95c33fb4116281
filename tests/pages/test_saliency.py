"""Saliency: photos and samples, explained with both nets of a pair."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from resnet.attribution.methods import METHODS
from resnet.data.shapes import SHAPES
from resnet.errors import Refused
from resnet.exports.forms import export
from resnet.nets.codes import to_code
from resnet.nets.inputs import Inputs
from resnet.nets.model import build
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.runs.worker import work as train
from tests.support import tiny
from tests.support.pages import TINY, field, fine, open_page, press, texts


def test_saliency_without_a_run_offers_to_train_a_pair(started: list[Run]) -> None:
    app = open_page("insight/saliency.py")
    assert "no trained run" in texts(app)
    press(app, "Train a small pair on drawn shapes (about a minute)")
    assert [run.job.net.plain for run in started] == [False, True]


def saved(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def upload(app: AppTest, name: str, content: bytes) -> AppTest:
    field(app, "button_group", "saliency.kind").set_value("Upload").run()
    app.file_uploader[0].set_value((name, content, "image/png")).run()
    return fine(app)


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"just words", "This is text, not a PNG"),
        ("empty.jpg", b"", "empty"),
        ("cut.jpg", encoded(PHOTO, "JPEG")[:700], "damaged or cut off"),
        ("huge.png", encoded(Image.new("1", (30_000, 30_000)), "PNG"), "30,000 x 30,000"),
        ("tiny.png", encoded(PHOTO.resize((4, 4)), "PNG"), "at least 8 x 8"),
        ("paper.jpg", b"%PDF-1.7", "This is a PDF, not a PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_saliency_says_what_is_wrong_with_a_photo(pair: list[Run], name: str, content: bytes, words: str) -> None:
    app = upload(open_page("insight/saliency.py"), name, content)
    assert words in app.error[0].value


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("method", METHODS)
def test_saliency_explains_a_photo_with_both_nets(pair: list[Run], method: str, mode: str) -> None:
    app = upload(open_page("insight/saliency.py"), "photo.jpg", encoded(PHOTO.convert(mode), "JPEG"))
    field(app, "button_group", "saliency.method").set_value(method).run()
    captions = [caption.value for caption in fine(app).caption]
    assert sum(caption.startswith(f"{METHODS[method].title} for the logit of") for caption in captions) == 2
    assert not app.error


def test_saliency_of_a_sample_by_layer_and_class(pair: list[Run]) -> None:
    app = open_page("insight/saliency.py")
    field(app, "slider", "saliency.sample").set_value(3).run()
    field(app, "selectbox", "saliency.layer").set_value("layer1.0").run()
    target = next(box for box in app.selectbox if box.label == "Class to explain")
    target.set_value(7).run()
    assert texts(fine(app)).count(f"logit of “{list(SHAPES)[7]}”") == 2


@pytest.mark.parametrize("kind", [Refused, ValueError])
def test_saliency_shows_refusals_as_advice_and_no_other_error(
    pair: list[Run], monkeypatch: pytest.MonkeyPatch, kind: type[ValueError]
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise kind("what happened")

    method = dataclasses.replace(METHODS["saliency"], title=kind.__name__, function=fail)
    monkeypatch.setitem(METHODS, f"fails with {kind.__name__}", method)
    app = open_page("insight/saliency.py")
    field(app, "button_group", "saliency.method").set_value(f"fails with {kind.__name__}").run()
    assert [box.value for box in app.error] == (["what happened"] if kind is Refused else [])
    assert bool(app.exception) == (kind is not Refused)


def test_a_run_without_a_twin_is_explained_alone(pair: list[Run]) -> None:
    pair[1].delete()
    app = open_page("insight/saliency.py")
    assert field(app, "selectbox", "saliency.beside").value == "no other net"
    assert "The colour scale runs from 0 to" in texts(app)
    assert [title.value for title in app.subheader] == [TINY.name]


def test_the_residual_net_comes_first_and_its_twin_stands_beside_it(pair: list[Run]) -> None:
    app = open_page("insight/saliency.py")
    assert field(app, "selectbox", "saliency.first").value == pair[0].id
    assert field(app, "selectbox", f"saliency.beside.{pair[0].id}").value == pair[1].id


def test_runs_on_other_data_stand_side_by_side(pair: list[Run], data_of_its_own: Path) -> None:
    tiny.write_data(data_of_its_own)
    other = runs.create(tiny.job(net=dataclasses.replace(TINY, classes=3, image_size=8)))
    assert train(other.path).state == "finished"
    app = open_page("insight/saliency.py")
    field(app, "selectbox", "saliency.first").set_value(other.id).run()
    assert field(app, "selectbox", "saliency.beside").value == "no other net", "it has no twin"
    field(app, "selectbox", "saliency.beside").set_value(pair[0].id).run()
    captions = [caption.value for caption in fine(app).caption if "for the logit of" in caption.value]
    assert "8 x 8 pixels" in captions[0]
    assert "32 x 32 pixels" in captions[1]
    assert captions[0].split("“")[1][0] in "012"
    assert captions[1].split("“")[1].split("”")[0] in SHAPES, "its own likeliest class, for it has no class 0"


def test_a_map_without_positive_evidence_says_so(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    blank = dataclasses.replace(METHODS["grad-cam"], function=lambda model, request: 0 * request.images[:, 0])
    monkeypatch.setitem(METHODS, "grad-cam", blank)
    app = open_page("insight/saliency.py")
    assert [box.value for box in app.info] == 2 * [f"This map is 0 everywhere. {blank.blank}"]


def test_a_net_with_weights_from_a_file_is_explained(pair: list[Run]) -> None:
    state = build(TINY, seed=3).state_dict()
    app = open_page("insight/saliency.py", net=to_code(TINY))
    field(app, "selectbox", "saliency.first").set_value("another net, or other weights").run()
    field(app, "selectbox", "saliency.weights").set_value("my own file").run()
    app.file_uploader[0].set_value(("own.pth", saved({"state_dict": state}), "application/octet-stream")).run()
    assert "Top predictions, the file own.pth." in texts(fine(app))
    assert field(app, "selectbox", "saliency.moments").value == "ImageNet's", "the file does not say it"
    inputs = Inputs((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), tuple("abcdefghij"))
    content = export("weights", TINY, build(TINY, seed=3), inputs)
    app.file_uploader[0].set_value(("ours.safetensors", content, "application/octet-stream")).run()
    assert "saliency.moments" not in [box.key for box in fine(app).selectbox], "the file says it"
    [caption] = [caption.value for caption in app.caption if "for the logit of" in caption.value]
    assert caption.split("“")[1][0] in "abcdefghij"


def test_what_was_changed_in_reading_a_photo_is_said(pair: list[Run]) -> None:
    scan = Image.fromarray(np.linspace(0, 4095, 40 * 60).reshape(40, 60).astype(np.uint16))
    app = upload(open_page("insight/saliency.py"), "scan.png", encoded(scan, "PNG"))
    assert "0 to 4,095" in texts(app)
    frames = [PHOTO.convert("P"), PHOTO.rotate(90).convert("P")]
    app = upload(app, "moving.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert "The first of its 2 pictures was taken." in texts(app)
    assert not app.error


def test_pictures_of_eight_bands_are_explained(data_of_its_own: Path) -> None:
    arrays: dict[str, Any] = {}
    for part, count in (("train", 64), ("test", 40)):
        arrays[f"{part}_images"] = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 8), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 3
    np.savez(data_of_its_own / "tiny.npz", **arrays)
    run = runs.create(tiny.job(net=dataclasses.replace(TINY, classes=3, image_size=12, in_channels=8)))
    assert train(run.path).state == "finished"
    app = open_page("insight/saliency.py")
    assert "for the logit of" in texts(app)
    assert not app.error
    app = upload(app, "photo.jpg", encoded(PHOTO, "JPEG"))
    assert [box.value[:46] for box in app.error] == ["A net for photos takes 3 channels (RGB) or 1 ("]


def test_a_net_for_volumes_explains_no_pictures(pair: list[Run]) -> None:
    app = open_page("insight/saliency.py", net="ResNet3D-18")
    field(app, "selectbox", "saliency.first").set_value("another net, or other weights").run()
    assert "this net reads clips or volumes" in fine(app).error[0].value
