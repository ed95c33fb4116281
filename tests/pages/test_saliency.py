"""Saliency: a picture, the nets' answers and maps in every view, what is downloaded, and a link that holds it all."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from pages.ui.lab import brush, downloads
from pages.ui.lab.lapse import NEWEST
from pages.ui.lab.nets import Shown
from pages.ui.lab.picture import Picked
from pages.ui.lab.scene import AS_SEEN, Scene, Setting
from pages.ui.lab.views import VIEWS
from resnet.attribution.methods import METHODS
from resnet.data.shapes import SHAPES
from resnet.data.views import Box, Frame, see
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.runs.store import Run
from resnet.work.explaining import Answer
from resnet.work.weights import Model
from tests.support.pages import TINY, field, fine, open_page, texts

PAGE = "insight/saliency.py"
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
TINY_META = build(TINY, device="meta")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def upload(app: AppTest, name: str, content: bytes) -> AppTest:
    field(app, "button_group", "lab.picture.kind").set_value("Upload").run()
    app.file_uploader[0].set_value((name, content, "image/png")).run()
    return fine(app)


def show(app: AppTest, view: str) -> AppTest:
    field(app, "button_group", "view").set_value(view).run()
    return fine(app)


def maps_of(app: AppTest) -> list[str]:
    """The captions of the maps."""
    return [caption.value for caption in app.caption if "the logit of" in caption.value]


def test_the_first_thing_seen_is_a_finished_picture(pair: list[Run]) -> None:
    app = open_page(PAGE)
    assert [title.value for title in app.subheader][:2] == [run.job.net.name for run in pair]
    assert [caption.split(" at ")[0] for caption in maps_of(app)] == 2 * ["Grad-CAM"]
    assert "All maps share one colour scale, from 0 to" in texts(app)
    assert not app.error


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_drawn_for_both_nets_or_says_why_not(pair: list[Run], method: str) -> None:
    app = open_page(PAGE)
    field(app, "selectbox", "method").set_value(method).run()
    title, reason = METHODS[method].title, METHODS[method].reason(TINY_META)
    assert (f"{title} does not apply to {TINY.name}. {reason}" in texts(fine(app))) == bool(reason)
    assert sum(caption.startswith(title) for caption in maps_of(app)) == (0 if reason else 2)
    assert not app.error


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_without_a_mistake(pair: list[Run], view: str) -> None:
    app = show(open_page(PAGE), view)
    assert not app.error
    assert field(app, "button_group", "view").value == view


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
def test_a_sentence_says_what_is_wrong_with_a_photo(pair: list[Run], name: str, content: bytes, words: str) -> None:
    app = upload(open_page(PAGE), name, content)
    assert words in app.error[0].value


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_an_uploaded_photo_is_explained_and_not_in_the_link(pair: list[Run], mode: str) -> None:
    app = upload(open_page(PAGE), "photo.jpg", encoded(PHOTO.convert(mode), "JPEG"))
    assert len(maps_of(app)) == 2
    assert "An uploaded photo is not in the link to this page." in texts(app)
    assert "photo" not in app.query_params
    assert not app.error


def test_layers_and_classes_are_chosen_by_name(pair: list[Run]) -> None:
    app = open_page(PAGE)
    field(app, "selectbox", "layer").set_value("layer1.0").run()
    [*_, last] = SHAPES
    field(app, "selectbox", "class").set_value(last).run()
    assert all(f"at layer1.0, for the logit of “{last}”" in caption for caption in maps_of(fine(app)))
    [first, *_] = SHAPES
    field(app, "selectbox", "against").set_value(first).run()
    assert all(f"the logit of “{last}”, rather than of “{first}”" in caption for caption in maps_of(fine(app)))


def test_a_link_gives_the_same_view_elsewhere(pair: list[Run]) -> None:
    [name, *_] = SHAPES
    ids = [f"run:{pair[1].id}"]
    method = METHODS["saliency"].title
    app = open_page(
        PAGE, nets=ids[0], photo="sample:coffee", cut="squeeze", method=method, view="All methods", **{"class": name}
    )
    assert field(app, "multiselect", "lab.nets").value == ids
    assert field(app, "selectbox", "method").value == "saliency"
    assert field(app, "selectbox", "class").value == name
    assert field(app, "button_group", "view").value == "methods"
    held = {name: app.query_params[name] for name in ("nets", "photo", "cut")}
    assert held == {"nets": ids[0], "photo": "sample:coffee", "cut": "squeeze"}


def test_a_link_to_what_is_gone_says_so_and_shows_the_usual(pair: list[Run]) -> None:
    app = open_page(PAGE, nets="run:gone", photo="sample:unicorn", method="Tea leaves")
    assert [warning.value.split("'")[1] for warning in app.warning] == ["run:gone", "sample:unicorn"]
    assert len(maps_of(app)) == 2
    assert field(app, "selectbox", "method").value == "grad-cam"


def test_all_methods_are_shown_or_listed_with_the_reason(pair: list[Run]) -> None:
    said = texts(show(open_page(PAGE), "methods"))
    for method in METHODS.values():
        assert f"**{method.title}**" in said
        assert method.reason(TINY_META) in said


def test_the_stages_are_swept_by_a_method_of_layers(pair: list[Run]) -> None:
    app = show(open_page(PAGE), "layers")
    assert [caption.split(",")[0] for caption in maps_of(app)] == [
        f"Grad-CAM at layer{k}" for k in range(1, len(TINY.stages) + 1)
    ]
    field(app, "selectbox", "method").set_value("saliency").run()
    assert "Saliency explains the whole net at once." in fine(app).info[0].value


def test_epochs_are_stepped_through_with_the_twins_in_step(pair: list[Run]) -> None:
    app = show(open_page(PAGE), "epochs")
    slider = field(app, "select_slider", "epoch")
    assert slider.options[-1] == NEWEST
    assert len(slider.options) > 1
    at_the_end = [each.value for each in app.markdown if each.value.startswith("At the end")]
    slider.set_value(slider.options[0]).run()
    said = [each.value for each in fine(app).markdown if each.value.startswith("Epoch")]
    assert len(said) == len(at_the_end) == 2
    assert len(maps_of(app)) == 2


def test_a_sheet_has_the_samples_and_marks_the_answers(pair: list[Run]) -> None:
    app = show(open_page(PAGE), "photos")
    assert "All maps share one scale" in texts(app)
    assert not app.error


@pytest.mark.parametrize("kind", [Refused, ValueError])
def test_refusals_are_shown_as_advice_and_other_errors_are_not(
    pair: list[Run], monkeypatch: pytest.MonkeyPatch, kind: type[ValueError]
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise kind("what happened")

    monkeypatch.setitem(METHODS, "saliency", dataclasses.replace(METHODS["saliency"], function=fail))
    app = open_page(PAGE)
    field(app, "selectbox", "method").set_value("saliency").run()
    assert [box.value for box in app.error] == (["what happened"] if kind is Refused else [])
    assert bool(app.exception) == (kind is not Refused)


def test_a_map_without_evidence_says_so(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    blank = dataclasses.replace(METHODS["grad-cam"], function=lambda model, request: 0 * request.images[:, 0])
    monkeypatch.setitem(METHODS, "grad-cam", blank)
    app = open_page(PAGE)
    assert [box.value for box in app.info] == 2 * [f"This map is 0 everywhere. {blank.blank}"]


def scene(pair: list[Run], **setting: Any) -> Scene:
    """Two nets and a photo that is wider than high, by hand."""
    shown = [Shown(run.id, Model.of(run), run.class_names(), "", run) for run in pair]
    views = [see(PHOTO, Frame(TINY.image_size)) for _ in shown]
    answer = Answer(np.linspace(0.1, 0, TINY.classes))
    return Scene(shown, Picked("sample:cat", "Cat", PHOTO, views), [answer] * 2, Setting("grad-cam", **setting))


def test_maps_lie_over_the_photo_or_over_what_the_net_sees(pair: list[Run]) -> None:
    own = scene(pair)
    photo, window = own.ground(0)
    assert photo.shape == (60, 80, 3)
    assert window == own.picked.views[0].box
    photo, window = scene(pair, ground=AS_SEEN).ground(0)
    assert (photo.shape, tuple(window)) == (
        (TINY.image_size, TINY.image_size, 3),
        (0, 0, TINY.image_size, TINY.image_size),
    )


def test_what_is_downloaded_says_how_it_was_made(pair: list[Run]) -> None:
    own = scene(pair, target=list(SHAPES)[3])
    queries = [own.query(index) for index in range(2)]
    maps = [np.full((TINY.image_size, TINY.image_size), value, np.float32) for value in (1.0, 2.0)]
    said = json.loads(downloads.record(own, queries, maps))
    assert [entry["logit"] for entry in said["maps"]] == 2 * [list(SHAPES)[3]]
    assert [entry["weights"]["name"] for entry in said["maps"]] == [run.id for run in pair]
    assert (
        said["versions"]["torch"] == torch.__version__.split("+")[0] or said["versions"]["torch"] == torch.__version__
    )
    with np.load(io.BytesIO(downloads.values_of(maps))) as found:
        assert [float(found[name].max()) for name in found] == [1, 2]
    image = Image.open(io.BytesIO(downloads.picture(own, queries, maps)))
    assert image.width > 2 * PHOTO.width


def test_a_covered_part_has_the_mean_colour_and_the_rest_stays() -> None:
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    covered = brush.covered_pixels(pixels, Box(1.2, 2.0, 3.5, 5.0))
    assert (covered[:, 2:5, 1:4] == pixels.mean((1, 2)).round()[:, None, None]).all()
    changed = covered != pixels
    changed[:, 2:5, 1:4] = False
    assert not changed.any()
    assert np.array_equal(brush.covered_pixels(pixels, Box(-9, -9, -1, -1)), pixels), "outside of what the net sees"
