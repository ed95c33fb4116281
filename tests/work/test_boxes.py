"""Work about boxes and segments: plain values, the library's results, and memory within the prediction."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from resnet.attribution.boxes import box_map, detect, region_map, segment
from resnet.costs.memory import allocated_peak
from resnet.errors import Refused
from resnet.work.boxes import MOST, BoxMap, Detected, RegionMap, Segmented
from resnet.work.contract import Request
from resnet.work.explaining import Picture
from resnet.zoo import trained
from resnet.zoo.systems import build_system
from resnet.zoo.trained import TRAINED
from tests.support.systems import detector, segmenter
from tests.support.work import done

MASK, FULLY = "Mask R-CNN ResNet-50 FPN v2", "FCN ResNet-50"
PICTURE = Picture.of(np.random.default_rng(0).integers(0, 256, (3, 50, 75), np.uint8))
PHOTO = torch.tensor(PICTURE.batch()[0] / 255, dtype=torch.float32)
BOX = (20.0, 5.0, 70.0, 45.0)
REQUESTS: list[Request] = [
    Detected(MASK, PICTURE),
    Segmented(FULLY, PICTURE),
    BoxMap(MASK, PICTURE, BOX, 1, "backbone.body.layer3"),
    RegionMap(FULLY, PICTURE, 1, "backbone.layer3"),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Small nets in the place of the trained ones."""
    nets: dict[str, Any] = {MASK: detector(), FULLY: segmenter()}
    monkeypatch.setattr(trained, "load_trained", nets.__getitem__)
    return nets


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_work_is_plain_values_with_a_price(request_: Request) -> None:
    copy = pickle.loads(pickle.dumps(request_))  # noqa: S301 - its own
    assert copy == request_
    assert hash(copy) == hash(request_)
    assert 1e8 < request_.cost().bytes < 4e9
    assert not request_.cost().light, "it starts at a click"


def test_work_gives_what_the_library_gives(small: dict[str, Any]) -> None:
    prepare = TRAINED[FULLY].transforms()
    kept, expected = done(Detected(MASK, PICTURE)), detect(small[MASK], PHOTO, MOST)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(kept, expected, strict=True))
    assert isinstance(pickle.loads(pickle.dumps(kept)).masks, np.ndarray)  # noqa: S301 - its own
    map_ = box_map(small[MASK], PHOTO, torch.tensor(BOX), 1, "backbone.body.layer3")
    assert np.array_equal(done(BoxMap(MASK, PICTURE, BOX, 1, "backbone.body.layer3")), map_)
    classes = segment(small[FULLY], PHOTO, prepare).classes
    assert np.array_equal(done(Segmented(FULLY, PICTURE)).classes, classes)
    label = int(classes[0, 0])
    for everywhere, region in ((False, classes == label), (True, None)):
        map_ = region_map(small[FULLY], PHOTO, prepare, label, "backbone.layer3", region)
        assert np.array_equal(done(RegionMap(FULLY, PICTURE, label, "backbone.layer3", everywhere)), map_)


def test_a_larger_photo_costs_a_segmenter_more_where_it_is_longer() -> None:
    square, long = (Picture((3, 100, side), b"") for side in (100, 300))
    assert Segmented(FULLY, long).cost().seconds > 2 * Segmented(FULLY, square).cost().seconds
    early, late = (RegionMap(FULLY, square, 1, layer).cost() for layer in ("backbone.layer1", "classifier.3"))
    assert early.bytes > late.bytes
    assert early.seconds > late.seconds


def test_a_region_without_pixels_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="at least one of the photo's pixels"):
        done(RegionMap(FULLY, PICTURE, 99, "backbone.layer3"))


HEAVY: list[Request] = [
    Detected(MASK, PICTURE),
    BoxMap(MASK, PICTURE, BOX, 1, "backbone.body.layer1"),
    Segmented(FULLY, PICTURE),
    RegionMap(FULLY, PICTURE, 1, "backbone.layer1", everywhere=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("request_", HEAVY, ids=lambda each: type(each).__name__)
def test_work_takes_no_more_memory_than_predicted(request_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        """As the trained net is loaded: a file's tensors, and the net; 100 boxes in noise."""
        file = {key: torch.zeros(value.shape) for key, value in build_system(name).state_dict().items()}
        net: Any = build_system(name, device="cpu")
        assert file.keys() == net.state_dict().keys()
        if name == MASK:
            net.roi_heads.score_thresh = 0.0
        return net

    monkeypatch.setattr(trained, "load_trained", load)
    assert 0.25 < allocated_peak(lambda: done(request_)) / request_.cost().bytes < 1
