"""Boxes, masks and segments against torchvision's own, their maps against torch.autograd and closed forms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.segmentation.fcn import FCN

from resnet.attribution.boxes import box_logits, box_map, detect, layers, region_map, segment
from resnet.data.shapes import draw
from resnet.errors import Refused
from tests.support.systems import detector, photo, segmenter
from tests.support.unchanged import assert_unchanged, found

BOX = torch.tensor([20.0, 5.0, 70.0, 45.0])


def prepare(image: Tensor) -> Tensor:
    """As torchvision's segmenters have it, but smaller: another size than the photo's, and about 0."""
    return F.interpolate(image[None], (64, 96), mode="bilinear")[0] - 0.5


@pytest.fixture(scope="module")
def masker() -> Any:
    return detector()


@pytest.fixture(scope="module")
def fcn() -> nn.Module:
    return segmenter()


# Detections


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
def test_what_is_found_is_what_torchvision_finds(kind: type[FasterRCNN]) -> None:
    net, image = detector(kind), photo()
    with torch.no_grad():
        [theirs] = net([image])
    ours = detect(net, image)
    assert len(ours.boxes) == 20
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(getattr(ours, name), theirs[name])
    if kind is MaskRCNN:
        assert torch.equal(ours.masks, theirs["masks"][:, 0] > 0.5)
        assert 0.05 < ours.masks.float().mean() < 0.95
    else:
        assert ours.masks is None


def test_the_likeliest_are_kept(masker: Any) -> None:
    every, some = detect(masker, photo()), detect(masker, photo(), most=3)
    assert [len(each) for each in some] == [3] * 6
    assert all(torch.equal(part, whole[:3]) for part, whole in zip(some, every, strict=True))
    assert every.scores.tolist() == sorted(every.scores.tolist(), reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_detection_is_traced_to_the_region_that_got_its_score(seed: int) -> None:
    net = detector(FasterRCNN, seed=seed)
    kept = detect(net, photo())
    again = box_logits(net, photo(), kept.proposals).softmax(1).gather(1, kept.labels[:, None])[:, 0]
    torch.testing.assert_close(again, kept.scores, rtol=1e-4, atol=1e-6)  # the regions are scaled there and back
    refined = box_logits(net, photo(), kept.boxes).softmax(1).gather(1, kept.labels[:, None])[:, 0]
    assert (refined - kept.scores).abs().max() > 1e-3, "the refined box is another region, with another score"


def test_nothing_found() -> None:
    none = detect(detector(lowest=0.999), photo())
    assert [tuple(each.shape) for each in none] == [(0, 4), (0,), (0,), (0, 4), (0,), (0, 50, 75)]


# Maps of boxes


def explained(net: Any, image: Tensor, box: Tensor, label: int, layer: str) -> Tensor:
    """Grad-CAM of the class's logit at a stage or at a map of the pyramid, by torch.autograd and without hooks."""
    images, _ = net.transform([image])
    (height, width), size = images.image_sizes[0], image.shape[1:]
    stages = net.backbone.body(images.tensors)
    if ".body." in layer:
        activation = stages[str(int(layer[-1]) - 1)] = stages[str(int(layer[-1]) - 1)].detach().requires_grad_()
        for stage in range(int(layer[-1]), 4):
            stages[str(stage)] = net.backbone.body[f"layer{stage + 1}"](stages[str(stage - 1)])
        pyramid = net.backbone.fpn(stages)
    else:
        pyramid = net.backbone.fpn(stages)
        activation = pyramid[layer[-1]]
    scale = torch.tensor([width / size[1], height / size[0]] * 2, dtype=box.dtype)
    pooled = net.roi_heads.box_roi_pool(pyramid, [box[None] * scale], images.image_sizes)
    logit = net.roi_heads.box_predictor.cls_score(net.roi_heads.box_head(pooled))[0, label]
    [gradient] = torch.autograd.grad(logit, activation)
    cam = torch.einsum("c,chw->hw", gradient.mean((0, 2, 3)), activation[0]).clamp(min=0)
    padded = F.interpolate(cam[None, None], images.tensors.shape[2:], mode="bilinear")
    return F.interpolate(padded[:, :, :height, :width], size, mode="bilinear")[0, 0].detach()


@pytest.mark.parametrize("layer", ["body.layer1", "body.layer3", "body.layer4", "fpn.layer_blocks.0"])
def test_a_boxs_map_is_grad_cam_of_its_logit(layer: str) -> None:
    net, image, box = detector(FasterRCNN).double(), photo().double(), BOX.double()
    expected = [explained(net, image, box, label, f"backbone.{layer}") for label in (1, 2, 3)]
    assert sum(map(torch.count_nonzero, expected)) > 1000
    for label, each in enumerate(expected, 1):
        torch.testing.assert_close(box_map(net, image, box, label, f"backbone.{layer}"), each.float())


def test_a_region_is_read_from_one_map_of_the_pyramid() -> None:
    net = detector(FasterRCNN)
    kept = detect(net, photo(), most=2)
    assert kept.levels.tolist() == [1, 0]
    for region, level in zip(kept.proposals, kept.levels, strict=True):
        pyramid = [f"backbone.fpn.layer_blocks.{i}" for i in range(4)]
        bright = [bool(box_map(net, photo(), region, 1, layer, "layer-cam").any()) for layer in pyramid]
        assert bright == [i == level for i in range(4)]


@pytest.mark.parametrize("box", [(50.0, 25.0, 75.0, 50.0), (4.0, 4.0, 30.0, 20.0), (45.0, 2.0, 73.0, 20.0)])
def test_a_map_lies_where_its_region_does(masker: Any, box: tuple[float, ...]) -> None:
    """At the pyramid nothing outside the region has a gradient: 2 cells of 4 pixels of 96 x 144 are 4.2 of 50 x 75."""
    x1, y1, x2, y2 = box
    for label in range(1, 5):
        values = box_map(masker, photo(), torch.tensor(box), label, "backbone.fpn.layer_blocks.0", "hires-cam")
        rows, columns = torch.where(values > 0)
        assert x1 - 4.2 <= columns.min() < (x1 + x2) / 2 < columns.max() <= x2 + 4.2
        assert y1 - 4.2 <= rows.min() < (y1 + y2) / 2 < rows.max() <= y2 + 4.2


def test_boxes_and_maps_are_in_the_pixels_of_a_photo_of_any_size(masker: Any) -> None:
    small = photo(48, 72)
    large = F.interpolate(small[None], (96, 144), mode="bilinear")[0]  # as the detector sees the small one
    torch.testing.assert_close(2 * detect(masker, small).boxes, detect(masker, large).boxes, rtol=0, atol=1e-3)
    maps = [box_map(masker, image, BOX * by, 1, "backbone.body.layer3") for image, by in ((small, 1), (large, 2))]
    assert [each.shape for each in maps] == [(48, 72), (96, 144)]
    shrunk = F.interpolate(maps[1][None, None], (48, 72), mode="bilinear")[0, 0]
    torch.testing.assert_close(maps[0], shrunk, rtol=1e-4, atol=1e-4 * float(shrunk.max()))


# Segments


def test_segments_are_the_likeliest_classes_of_the_photos_pixels(fcn: nn.Module) -> None:
    with torch.no_grad():
        out = fcn(prepare(photo())[None])["out"]
    expected = F.interpolate(out, (50, 75), mode="bilinear").softmax(1)[0].max(0)
    ours = segment(fcn, photo(), prepare)
    assert torch.equal(ours.classes, expected.indices)
    torch.testing.assert_close(ours.scores, expected.values)
    assert len(ours.classes.unique()) > 1


@pytest.mark.parametrize("pixels", [None, 1, 800])
def test_a_regions_map_before_a_linear_head_in_closed_form(fcn: Any, pixels: int | None) -> None:
    """The weights of each interpolation add up to 1: the mean gradient of a sum over R pixels is w R / (h w)."""
    region = None
    if pixels:
        region = torch.zeros(50, 75, dtype=torch.bool)
        region.view(-1)[torch.randperm(50 * 75)[:pixels]] = True
    head = fcn.classifier[-1]
    with torch.no_grad():
        hidden = nn.Sequential(*list(fcn.classifier)[:-1])(
            fcn.backbone(prepare(photo())[None])["out"]
        )  # (1, 128, 2, 3)
        logits = F.conv2d(hidden, head.weight)[0, 3]
    expected = (logits * (pixels or 50 * 75) / logits.numel()).relu()
    assert expected.max() > 0
    # from (2, 3) to the (64, 96) that the net reads, to the photo
    read = F.interpolate(expected[None, None], (64, 96), mode="bilinear")
    shown = F.interpolate(read, (50, 75), mode="bilinear")[0, 0]
    assert layers(fcn)[-1] == "classifier.3"
    torch.testing.assert_close(region_map(fcn, photo(), prepare, 3, "classifier.3", region), shown)


def test_a_regions_map_is_grad_cam_of_its_summed_logits(fcn: Any) -> None:
    region = torch.zeros(50, 75, dtype=torch.bool)
    region[30:, 50:] = True
    hidden = fcn.backbone(prepare(photo())[None])["out"].detach().requires_grad_()
    logits = F.interpolate(fcn.classifier(hidden), (64, 96), mode="bilinear")
    summed = (F.interpolate(logits, (50, 75), mode="bilinear")[0, 1] * region).sum()
    [gradient] = torch.autograd.grad(summed, hidden)
    cam = (gradient.mean((2, 3), keepdim=True) * hidden).sum(1, keepdim=True).relu()
    expected = F.interpolate(F.interpolate(cam, (64, 96), mode="bilinear"), (50, 75), mode="bilinear")[0, 0].detach()
    assert expected.max() > 0
    torch.testing.assert_close(region_map(fcn, photo(), prepare, 1, "backbone.layer4", region), expected)


# Nets and requests


def test_layers_where_a_net_can_be_explained(masker: Any, fcn: nn.Module) -> None:
    stages = [f"layer{i}" for i in range(1, 5)]
    assert layers(fcn) == [*(f"backbone.{stage}" for stage in stages), "classifier.3"]
    pyramid = [f"backbone.fpn.layer_blocks.{i}" for i in range(4)]
    assert layers(masker) == [*(f"backbone.body.{stage}" for stage in stages), *pyramid]


CALLS: dict[str, Callable[[Any], object]] = {
    "detect": lambda net: detect(net, photo()),
    "box_logits": lambda net: box_logits(net, photo(), BOX[None]),
    "box_map": lambda net: box_map(net, photo(), BOX, 1, "backbone.body.layer2"),
    "segment": lambda net: segment(net, photo(), prepare),
    "region_map": lambda net: region_map(net, photo(), prepare, 1, "backbone.layer2"),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_the_net_is_given_back_as_it_was(call: str, fails: bool) -> None:
    net: Any = segmenter() if call in ("segment", "region_map") else detector()
    net.train()
    net.backbone.eval()
    next(net.parameters()).requires_grad_(False)
    if fails:
        name = "roi_heads.box_head" if isinstance(net, FasterRCNN) else "classifier"
        net.get_submodule(name).register_forward_hook(_fail)
    before = found(net)
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            CALLS[call](net)
    else:
        CALLS[call](net)
    assert_unchanged(net, before)
    assert not isinstance(net, FasterRCNN) or net.roi_heads.box_roi_pool.scales is None


def _fail(*_: object) -> None:
    raise RuntimeError("in the middle")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: detect(segmenter(), photo()), "Boxes come from a Faster or Mask R-CNN.*FCN"),
        (lambda net: detect(net, photo()[None]), r"A photo is \(3, H, W\)"),
        (lambda net: detect(net, (255 * photo()).byte()), "floats from 0 to 1. Received torch.uint8"),
        (lambda net: box_logits(net, photo(), BOX[None].flip(1)), "x1 < x2 and y1 < y2"),
        (lambda net: box_logits(net, photo(), BOX[None] + 80), "inside the photo.*0 to 75 and 0 to 50"),
        (lambda net: box_logits(net, photo(), BOX[None] * torch.nan), "x1 < x2"),
        (lambda net: box_map(net, photo(), BOX, 5, "backbone.body.layer4"), "0 to 4"),
        (lambda net: box_map(net, photo(), BOX, 1, "layer4"), "Received 'layer4'.*backbone.body.layer1"),
        (lambda net: box_map(net, photo(), BOX, 1, "backbone.body.layer4", "nonsense"), "nonsense"),
    ],
)
def test_refused(masker: Any, call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        call(masker)


@pytest.mark.parametrize("region", [torch.zeros(50, 75, dtype=torch.bool), torch.ones(75, 50, dtype=torch.bool)])
def test_a_region_is_of_the_photo_and_not_empty(fcn: nn.Module, region: Tensor) -> None:
    with pytest.raises(Refused, match=r"at least one of the photo's pixels.*\(50, 75\)"):
        region_map(fcn, photo(), prepare, 1, "backbone.layer4", region)


# Trained nets look at the object


class Backbone(nn.Module):
    """Photos (N, 3, 32, 32) -> {"out": (N, 64, 8, 8)}."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(*_conv(3, 16, 1), *_conv(16, 32, 2))
        self.layer2 = nn.Sequential(*_conv(32, 32, 1), *_conv(32, 64, 2), *_conv(64, 64, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.layer2(self.layer1(x))}


def _conv(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A segmenter of the shapes, after 200 steps."""
    torch.manual_seed(0)
    net = FCN(Backbone(), nn.Conv2d(64, 11, 1)).train()
    images, labels, masks = draw(1600, 0)
    x, y = torch.from_numpy(images) / 127.5 - 1, torch.from_numpy(masks * (labels[:, None, None] + 1))
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch])["out"], y[batch]).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.slow
def test_a_trained_segmenter_looks_at_the_object(trained: nn.Module) -> None:
    images, labels, masks = draw(60, 1)
    hits, inside = [], []
    for image, label, mask in zip(images, labels, masks, strict=True):
        pixels = torch.from_numpy(image) / 255
        values = region_map(trained, pixels, lambda x: 2 * x - 1, int(label) + 1, "backbone.layer2").numpy()
        hits.append(mask.flat[values.argmax()])
        inside.append(values[mask].sum() / values.sum() if values.any() else 0.0)
    assert masks.mean() < 0.2
    assert np.mean(hits) > 0.8
    assert np.mean(inside) > 0.6
