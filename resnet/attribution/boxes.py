"""Detection and segmentation: what a net finds in a photo, and where it looks for one box or one region's class.

A photo is (3, H, W), floats from 0 to 1. Boxes are (x1, y1, x2, y2). All boxes, masks and maps are in the photo's
pixels, whatever size the net scales it to.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from resnet.attribution.methods import explain
from resnet.errors import Refused
from resnet.nets.borrow import borrowed

Prepare = Callable[[Tensor], Tensor]  # a photo (3, H, W) -> what a segmenter reads (3, h, w)


class Detections(NamedTuple):
    """K objects, likeliest first; tensors, or arrays where a page gets them.

    A detector looks at a region that was proposed to it, gives it a probability of each class, and shifts its edges for
    the box. So `scores` belong to `proposals`, and the class logits of these are what `box_map` explains.
    """

    boxes: Any  # (K, 4)
    labels: Any  # (K,) int64
    scores: Any  # (K,), the softmax over all classes and the background
    proposals: Any  # (K, 4)
    levels: Any  # (K,) int64: the map of the feature pyramid from which the region is read, 0 the finest
    masks: Any  # (K, H, W) bool, where the mask head's probability exceeds 1/2; None without a mask head


class Segmentation(NamedTuple):
    """The likeliest class of each pixel and its softmax probability; tensors, or arrays where a page gets them."""

    classes: Any  # (H, W) int64
    scores: Any  # (H, W)


@torch.no_grad()
def detect(model: nn.Module, photo: Tensor, most: int = 100) -> Detections:
    """The `most` likeliest objects that a detector of torchvision's finds; Refused for another net or no photo.

    The net is borrowed in eval mode. What is found equals `model([photo])`; each detection is traced through
    non-maximum suppression to the proposal whose decoded box and score it has.
    """
    size, said = _size(photo), []
    with borrowed(_detector(model)):
        head: Any = model.get_submodule("roi_heads")
        head.box_predictor.register_forward_hook(lambda _, __, out: said.append(out))
        seen, _ = model.get_submodule("transform")([photo])
        features, scaled = _features(model, seen.tensors), seen.image_sizes[0]
        [regions], _ = model.get_submodule("rpn")(seen, features)  # (N, 4)
        [found], _ = head(features, [regions], seen.image_sizes)
        boxes, labels, scores = (found[name][:most] for name in ("boxes", "labels", "scores"))
        [(logits, shifts)] = said
        decoded = clip_boxes_to_image(head.box_coder.decode(shifts, [regions]), scaled)  # (N, classes, 4)
        away = (decoded[:, labels] - boxes).abs().sum(2) + (logits.softmax(1)[:, labels] - scores).abs()  # (N, K)
        regions = regions[away.argmin(0)] if len(boxes) else boxes
        levels = head.box_roi_pool.map_levels([regions])
    boxes, regions = resize_boxes(boxes, scaled, size), resize_boxes(regions, scaled, size)
    masks = _pasted(found["masks"], boxes, size) if "masks" in found else None
    return Detections(boxes, labels, scores, regions, levels, masks)


def _pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, H, W) bool of probabilities in boxes; one after the other, for as floats they take four times the memory."""
    pasted = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for k in range(len(boxes)):
        pasted[k] = paste_masks_in_image(masks[[k]], boxes[[k]], size)[0, 0] > 0.5
    return pasted


@torch.no_grad()
def box_logits(model: nn.Module, photo: Tensor, boxes: Tensor) -> Tensor:
    """What the box head says of regions (K, 4) of the photo: logits (K, classes), the background first.

    For the proposal of a detection their softmax has its score. Refused as `detect`, and for boxes outside the photo.
    """
    _, seen, regions = _seen(_detector(model), photo, boxes)
    with borrowed(model):
        return _Region(model, seen, regions)(seen.tensors)


def box_map(model: nn.Module, photo: Tensor, box: Tensor, label: int, layer: str, method: str = "grad-cam") -> Tensor:
    """The map (H, W) of the logit, before the softmax, that the box head gives class `label` in region `box` (4,).

    The region is held fixed: no gradient goes through the proposals or the choice among boxes. Grad-CAM weighs whole
    channels, so that it also shows what resembles the object elsewhere in the photo; "hires-cam" multiplies each
    activation with its own gradient, as ODAM does before it smooths (arXiv 2304.06354). Refused as `box_logits` and
    `explain`.
    """
    size, seen, region = _seen(_detector(model), photo, box[None])
    high, wide = seen.image_sizes[0]
    maps = explain(method, _Region(model, seen, region), seen.tensors, label, _within(model, layer))
    return _resized(maps[0, :high, :wide], size)  # without the padding at the right and lower edges


@torch.no_grad()
def segment(model: nn.Module, photo: Tensor, prepare: Prepare) -> Segmentation:
    """The class of each pixel by a segmenter, whose logits are brought to the photo's size (bilinear).

    `prepare` is `weights.transforms()`. The net is borrowed in eval mode. Refused for no photo.
    """
    size = _size(photo)
    with borrowed(model):
        logits = _pixel_logits(model, prepare(photo)[None], size)[0]  # (classes, H, W)
    classes = logits.argmax(0)
    return Segmentation(classes, (logits.gather(0, classes[None])[0] - logits.logsumexp(0)).exp())


def region_map(
    model: nn.Module,
    photo: Tensor,
    prepare: Prepare,
    label: int,
    layer: str,
    region: Tensor | None = None,
    method: str = "grad-cam",
) -> Tensor:
    """The map (H, W) of one class's logits, before the softmax, summed over the pixels of `region` (H, W) bool.

    Without a region over all pixels. With Grad-CAM this is Seg-Grad-CAM (Vinogradova et al., arXiv 2002.11434).
    Refused as `explain`, and for a region that is empty or of another size.
    """
    size = _size(photo)
    chosen = torch.ones(size, dtype=torch.bool) if region is None else region
    if chosen.shape != size or not chosen.any():
        raise Refused("A region has at least one of the photo's pixels.", f"{tuple(chosen.shape)}", f"{size} of bool")
    images = prepare(photo)[None]
    return _resized(explain(method, _Sum(model, chosen), images, label, _within(model, layer))[0], size)


def layers(model: nn.Module) -> list[str]:
    """Where such a net can be explained, input to output: its stages, the feature pyramid, the head's last maps."""
    stages = [name for name, _ in model.named_modules() if re.fullmatch(r"backbone\.(body\.)?layer\d", name)]
    levels = [name for name, _ in model.named_modules() if re.fullmatch(r"backbone\.fpn\.layer_blocks\.\d", name)]
    heads = [name for name, _ in model.named_modules() if re.fullmatch(r"classifier\.\d", name)]
    return stages + levels + heads[-2:-1]


class _Region(nn.Module):
    """A detector as a classifier of one region: the scaled and padded photo (1, 3, h, w) -> its logits (1, classes)."""

    def __init__(self, net: nn.Module, seen: ImageList, regions: Tensor) -> None:
        super().__init__()
        self.net, self.sizes, self.regions = net, seen.image_sizes, regions

    def forward(self, images: Tensor) -> Tensor:
        head: Any = self.net.get_submodule("roi_heads")
        pooled = head.box_roi_pool(_features(self.net, images), [self.regions], self.sizes)
        return head.box_predictor(head.box_head(pooled))[0]


class _Sum(nn.Module):
    """A segmenter as a classifier of a region: the prepared photo (1, 3, h, w) -> its logits there, summed."""

    def __init__(self, net: nn.Module, region: Tensor) -> None:
        super().__init__()
        self.net, self.region = net, region

    def forward(self, images: Tensor) -> Tensor:
        return _pixel_logits(self.net, images, self.region.shape)[:, :, self.region].sum(2)  # (1, classes)


def _within(model: nn.Module, layer: str) -> str:
    """The layer's name in `_Region` or `_Sum`."""
    if layer not in dict(model.named_modules()):
        raise Refused("A map needs one of the net's layers.", repr(layer), ", ".join(layers(model)))
    return f"net.{layer}"


def _seen(model: nn.Module, photo: Tensor, boxes: Tensor) -> tuple[tuple[int, int], ImageList, Tensor]:
    """The photo's size (H, W), the photo as the detector scales and pads it, and boxes (K, 4) scaled with it."""
    size = _size(photo)
    inside = clip_boxes_to_image(boxes, size)
    if not (inside[:, 2:] > inside[:, :2]).all():
        rule = "A box is x1 < x2 and y1 < y2, inside the photo."
        raise Refused(rule, str(boxes.tolist()), f"0 to {size[1]} and 0 to {size[0]}")
    with borrowed(model):
        seen, _ = model.get_submodule("transform")([photo])
    return size, seen, resize_boxes(inside, size, seen.image_sizes[0])


def _features(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    features = model.get_submodule("backbone")(images)
    return {"0": features} if isinstance(features, Tensor) else features


def _pixel_logits(model: nn.Module, images: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, classes, *size) of prepared photos (N, 3, h, w)."""
    out = model(images)
    return F.interpolate(out["out"] if isinstance(out, dict) else out, size, mode="bilinear", align_corners=False)


def _resized(values: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _size(photo: Tensor) -> tuple[int, int]:
    if photo.dim() != 3 or not photo.is_floating_point():
        raise Refused("A photo is (3, H, W), floats from 0 to 1.", f"{photo.dtype} {tuple(photo.shape)}")
    return photo.shape[1], photo.shape[2]


def _detector(model: nn.Module) -> nn.Module:
    if not isinstance(model, GeneralizedRCNN) or not hasattr(model.roi_heads, "box_predictor"):
        raise Refused("Boxes come from a Faster or Mask R-CNN of torchvision's.", type(model).__name__)
    return model
