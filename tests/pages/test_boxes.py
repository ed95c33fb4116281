"""Detection and segmentation of a photo on a page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from pages.ui import boxes as page
from resnet.errors import Refused
from resnet.work.scheduler import Scheduler
from resnet.zoo import trained
from tests.support.pages import field, fine, texts
from tests.support.systems import detector, segmenter

FASTER, FCN = "Faster R-CNN ResNet-50 FPN", "FCN ResNet-50"
SURE = 8  # by which its logits differ more than at random


def script() -> None:
    import numpy as np
    from PIL import Image

    from pages.ui import boxes

    boxes.show(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)))


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page has in the place of trained nets."""
    made: dict[str, Any] = {name: detector(classes=91) if "R-CNN" in name else segmenter(21) for name in (FASTER, FCN)}
    with torch.no_grad():
        made[FASTER].roi_heads.box_predictor.cls_score.weight.mul_(SURE)
    monkeypatch.setattr(trained, "load_trained", made.__getitem__)
    monkeypatch.setattr(page, "is_downloaded", lambda weights: True)
    return made


def press(app: AppTest, label: str) -> AppTest:
    """A button whose label goes on with what the work will take."""
    [button] = [button for button in app.button if button.label.startswith(f"{label} (about ")]
    return fine(button.click().run())


def opened() -> AppTest:
    return fine(AppTest.from_function(script, default_timeout=300).run())


def shapes(app: AppTest, index: int) -> int:
    """How many boxes a figure has."""
    return app.get("plotly_chart")[index].proto.spec.count('"type":"rect"')


def test_without_weights_the_page_says_what_belongs_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    app = opened()
    assert "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth (160 MB" in texts(app)
    assert str(tmp_path / "checkpoints") in texts(app)
    monkeypatch.setattr(page, "download", _no_network)
    [button] = [button for button in app.button if button.label == "Download"]
    assert [box.value for box in fine(button.click().run()).error] == ["no network"]


def _no_network(weights: object) -> None:
    raise Refused("no network")


def test_boxes_of_a_photo_and_the_map_of_one(nets: dict[str, Any]) -> None:
    app = press(opened(), "Find the objects")
    app = fine(field(app, "slider", "boxes.least").set_value(0.95).run())
    assert "No box has a score of 0.95 or more; the highest is 0." in texts(app)
    app = fine(field(app, "slider", "boxes.least").set_value(0.05).run())
    likeliest = field(app, "selectbox", "boxes.box").options
    assert f"{len(likeliest)} of 20 boxes" in texts(app)
    assert shapes(app, 0) == len(likeliest)
    app = press(app, "Explain this box")
    assert "of the logit, before the softmax, that the box head gives" in texts(app)
    assert shapes(app, 1) == 2, "the box and its proposal"
    field(app, "selectbox", "boxes.layer").set_value("backbone.body.layer2").run()
    app = press(app, "Explain this box")
    assert "at backbone.body.layer2 of the logit" in texts(app)


def test_another_threshold_computes_nothing_anew(nets: dict[str, Any], work_is_done_at_once: Scheduler) -> None:
    app = press(opened(), "Find the objects")
    nets.clear()
    for least in (0.05, 0.1, 0.9):
        field(app, "slider", "boxes.least").set_value(least).run()
        assert not fine(app).error


def test_a_photo_without_objects(nets: dict[str, Any]) -> None:
    nets[FASTER].roi_heads.score_thresh = 1.0
    assert "finds nothing in this photo" in texts(press(opened(), "Find the objects"))


def test_segments_of_a_photo_and_the_map_of_one(nets: dict[str, Any]) -> None:
    app = opened()
    field(app, "selectbox", "boxes.system").set_value(FCN).run()
    app = press(app, "Classify every pixel")
    app = fine(field(app, "slider", "boxes.probability").set_value(0.0).run())
    assert field(app, "selectbox", "boxes.class").options
    app = press(app, "Explain this class")
    assert "summed over the pixels that get this class" in texts(app)
    field(app, "selectbox", "boxes.where").set_value(True).run()
    assert "summed over all pixels" in texts(press(app, "Explain this class"))


def test_a_photo_of_background(nets: dict[str, Any]) -> None:
    with torch.no_grad():
        nets[FCN].classifier[4].bias[0] = 1000.0
    app = opened()
    field(app, "selectbox", "boxes.system").set_value(FCN).run()
    assert "finds only background in this photo with a probability of 0.50" in texts(press(app, "Classify every pixel"))


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 80), (60, 80)), ((3000, 4000), (800, 1067)), ((100, 4000), (33, 1333))]
)
def test_a_photo_is_shown_as_large_as_a_detector_sees_it(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert page._pixels(Image.fromarray(np.zeros((*size, 3), np.uint8))).shape == (*expected, 3)
