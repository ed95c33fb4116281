"""Detection, segmentation and video: whole systems on a residual backbone, their costs part by part.

torchvision builds them, but for DeepLabV3+, which stands on our own dilated backbone.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model_builder
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops.misc import FrozenBatchNorm2d

from resnet.costs.profiler import Profile, profile_module
from resnet.costs.recorder import Row
from resnet.errors import choose
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, SpecError, check_int, with_output_stride

MAX_SIZE = 4096  # pixels a side
PROPOSALS, DETECTIONS = 1000, 100  # torchvision's upper limits for one image
ROI, MASK_ROI = (256, 7, 7), (256, 14, 14)  # what RoIAlign hands to the box head and to the mask head
ATROUS_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride, arXiv 1802.02611, 4.1


def _norm_act(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
    """A same-padded convolution, its norm and its ReLU."""
    return [nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]


class DeepLabV3Plus(nn.Module):
    """Images (N, C, H, W) -> logits (N, classes, H, W): a dilated backbone, ASPP and a decoder (arXiv 1802.02611).

    The decoder joins the upsampled ASPP with stage 1's maps, reduced to 48 channels. SpecError for another output
    stride than 8 or 16.
    """

    def __init__(self, spec: NetSpec, output_stride: int = 16, classes: int = 21, seed: int = 0) -> None:
        super().__init__()
        if output_stride not in ATROUS_RATES:
            raise SpecError("output_stride", "DeepLabV3+ has rates for two output strides.", output_stride, "8 or 16")
        self.backbone = build(with_output_stride(spec, output_stride), seed, torch.get_default_device())
        for name in ("avgpool", "flatten", "fc"):  # a classifier's
            delattr(self.backbone, name)
        low, high = (spec.stages[index].width * spec.expansion for index in (0, -1))
        self.aspp = ASPP(high, list(ATROUS_RATES[output_stride]))
        self.reduce = nn.Sequential(*_norm_act(low, 48, 1))
        self.decoder = nn.Sequential(*_norm_act(256 + 48, 256, 3), *_norm_act(256, 256, 3))
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        stages = self.backbone.features(x)
        high = self.aspp(list(stages.values())[-1])  # (N, 256, H/16, W/16)
        low = self.reduce(stages["stage1"])  # (N, 48, H/4, W/4)
        high = F.interpolate(high, low.shape[2:], mode="bilinear", align_corners=False)
        logits = self.classifier(self.decoder(torch.cat([high, low], dim=1)))  # (N, classes, H/4, W/4)
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)


def _detector(kind: type[FasterRCNN], classes: int) -> nn.Module:
    """torchvision's first version, as its builder makes it with weights: the norms are frozen, their epsilon is 0."""
    norm = partial(FrozenBatchNorm2d, eps=0.0)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm)
    return kind(backbone, classes)


def _detector_v2(builder: str, classes: int) -> nn.Module:
    return get_model_builder(builder)(weights=None, weights_backbone=None, num_classes=classes)


def _segmenter(builder: str, classes: int) -> nn.Module:
    make = get_model_builder(builder)
    return make(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)


def _clip_net(builder: str, classes: int) -> nn.Module:
    return get_model_builder(builder)(weights=None, num_classes=classes)


def _deeplab_v3_plus(preset: str, output_stride: int, classes: int) -> nn.Module:
    return DeepLabV3Plus(PRESETS[preset], output_stride, classes)


# Which part of a system a module belongs to: the first pattern that fits the start of its name.
_BACKBONE = {r"backbone\.(?:body\.)?layer(\d)": r"stage\1"}
_DETECTOR = _BACKBONE | {
    r"backbone\.fpn": "feature pyramid",
    r"backbone": "backbone stem",
    r"rpn": "region proposals",
}
_FCN = _BACKBONE | {r"backbone": "backbone stem", r"classifier": "head", r"aux": "auxiliary head", r"": "upsampling"}
_DEEPLAB = {r"classifier\.0": "ASPP"} | _FCN
_DEEPLAB_PLUS = _BACKBONE | {r"backbone": "backbone stem", r"aspp": "ASPP", r"classifier": "head", r"": "decoder"}
_CLIP = {r"stem": "stem", r"layer(\d)": r"stage\1", r"": "head"}


@dataclass(frozen=True)
class System:
    """A task's net: `builder` is torchvision's name of it, "" for our own; `parts` name its stages."""

    task: str
    title: str
    arxiv: str
    year: int
    builder: str
    make: Callable[[int], nn.Module]  # classes -> net
    classes: int
    image_size: int
    parts: tuple[tuple[str, str], ...]
    frames: int = 0


_FASTER = "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", "1506.01497", 2015
_MASK = "Mask R-CNN", "1703.06870", 2017
_BETTER = "Benchmarking Detection Transfer Learning with Vision Transformers", "2111.11429", 2021  # the v2 detectors
_FULLY = "Fully Convolutional Networks for Semantic Segmentation", "1411.4038", 2014
_ATROUS = "Rethinking Atrous Convolution for Semantic Image Segmentation", "1706.05587", 2017
_PLUS = "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", "1802.02611", 2018
_CLIPS = "A Closer Look at Spatiotemporal Convolutions for Action Recognition", "1711.11248", 2017


def _detection(paper: tuple[str, str, int], builder: str, make: Callable[[int], nn.Module]) -> System:
    return System("detection", *paper, builder, make, 91, 800, tuple(_DETECTOR.items()))


def _segmentation(paper: tuple[str, str, int], builder: str, parts: Mapping[str, str]) -> System:
    return System("segmentation", *paper, builder, partial(_segmenter, builder), 21, 520, tuple(parts.items()))


def _plus(preset: str, output_stride: int) -> System:
    make = partial(_deeplab_v3_plus, preset, output_stride)
    return System("segmentation", *_PLUS, "", make, 21, 520, tuple(_DEEPLAB_PLUS.items()))


def _video(builder: str) -> System:
    return System("video", *_CLIPS, builder, partial(_clip_net, builder), 400, 112, tuple(_CLIP.items()), frames=16)


_V2_FASTER, _V2_MASK = "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2"
SYSTEMS: dict[str, System] = {
    "Faster R-CNN ResNet-50 FPN": _detection(_FASTER, "fasterrcnn_resnet50_fpn", partial(_detector, FasterRCNN)),
    "Faster R-CNN ResNet-50 FPN v2": _detection(_BETTER, _V2_FASTER, partial(_detector_v2, _V2_FASTER)),
    "Mask R-CNN ResNet-50 FPN": _detection(_MASK, "maskrcnn_resnet50_fpn", partial(_detector, MaskRCNN)),
    "Mask R-CNN ResNet-50 FPN v2": _detection(_BETTER, _V2_MASK, partial(_detector_v2, _V2_MASK)),
    "FCN ResNet-50": _segmentation(_FULLY, "fcn_resnet50", _FCN),
    "FCN ResNet-101": _segmentation(_FULLY, "fcn_resnet101", _FCN),
    "DeepLabV3 ResNet-50": _segmentation(_ATROUS, "deeplabv3_resnet50", _DEEPLAB),
    "DeepLabV3 ResNet-101": _segmentation(_ATROUS, "deeplabv3_resnet101", _DEEPLAB),
    "DeepLabV3+ ResNet-50 OS16": _plus("ResNet-50", 16),
    "DeepLabV3+ ResNet-50 OS8": _plus("ResNet-50", 8),
    "DeepLabV3+ ResNet-101 OS16": _plus("ResNet-101", 16),
    "R3D-18": _video("r3d_18"),
    "MC3-18": _video("mc3_18"),
    "R(2+1)D-18": _video("r2plus1d_18"),
}


def system(name: str) -> System:
    """The entry of `SYSTEMS`; Refused where there is none."""
    return choose("system", name, SYSTEMS)


def build_system(name: str, classes: int | None = None, device: str | torch.device = "meta") -> nn.Module:
    """The untrained net in eval mode; Refused for an unknown name."""
    entry = system(name)
    with torch.device(device):
        return entry.make(entry.classes if classes is None else classes).eval()


def profile_system(
    name: str, image_size: int | None = None, proposals: int = PROPOSALS, detections: int = DETECTIONS
) -> Profile:
    """Profile a system for one square image, or clip, of image_size pixels a side.

    A detector first scales every image: image_size is the side after that, 800 as torchvision has it. Its box head
    runs `proposals` times and its mask head `detections` times, which the stage's name says: a row of theirs has the
    shape of one region and the costs of all. RoIAlign and the choice of boxes have no MACs and no row; no receptive
    field is given after an upsampling. torchvision publishes its GFLOPS for 1000 proposals, with no detection in
    Mask R-CNN's first version and 100 in its second. Refused for an unknown name or a number out of range.
    """
    entry = system(name)
    size = entry.image_size if image_size is None else image_size
    check_int("image_size", size, 1, MAX_SIZE)
    check_int("proposals", proposals, 0, PROPOSALS)
    check_int("detections", detections, 0, DETECTIONS)
    return _profiled(name, size, proposals, detections)


@lru_cache(maxsize=256)
def _profiled(name: str, size: int, proposals: int, detections: int) -> Profile:
    entry, model = system(name), build_system(name)
    shape = (3, *[entry.frames] * bool(entry.frames), size, size)
    if entry.task != "detection":
        return Profile(shape, tuple(_named(model, profile_module(model, shape).rows, entry.parts)))
    rows = list(_named(model, profile_module(_Dense(model), shape).rows, entry.parts))
    rows += _regions(model, "box", ROI, proposals, shape)
    rows += _regions(model, "mask", MASK_ROI, detections, shape)
    return Profile(shape, tuple(rows))


class _Dense(nn.Module):
    """What a detector computes everywhere in the image: backbone, feature pyramid, region proposals."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rpn = detector.get_submodule("backbone"), detector.get_submodule("rpn")

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        maps = list(self.backbone(x).values())  # 5 of (N, 256, H/4 .. H/64, ...)
        return self.rpn.get_submodule("head")(maps)


def _named(model: nn.Module, rows: Iterable[Row], parts: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """The rows under the stages of that system; a dilated convolution's kernel is written with its atrous rate."""
    joined = False  # with what an upsampled map sees, which the profiler does not know
    for row in rows:
        match, stage = next((m, stage) for pattern, stage in parts if (m := re.match(pattern, row.name)))
        joined = joined or row.op == "upsample"
        yield row._replace(
            stage=match.expand(stage),
            kernel=row.kernel + _rate(model.get_submodule(row.name)),
            op="norm" if row.kind == "FrozenBatchNorm2d" else row.op,
            receptive_field=() if joined else row.receptive_field,
            stride=() if row.op == "upsample" else row.stride,
        )


def _rate(layer: nn.Module) -> str:
    rate = layer.dilation[0] if isinstance(layer, nn.Conv2d) else 1
    return f", rate {rate}" if rate != 1 else ""


def _regions(model: nn.Module, head: str, roi: tuple[int, ...], times: int, image: tuple[int, ...]) -> Iterator[Row]:
    """The rows of a head that runs on each of `times` regions of shape roi; none where the detector lacks it."""
    names = f"{head}_head", f"{head}_predictor"
    found = [(name, getattr(model.get_submodule("roi_heads"), name)) for name in names]
    chain = nn.Sequential(OrderedDict((name, part) for name, part in found if part is not None))
    sides = tuple(image[1:])  # a region may lie anywhere
    for row in profile_module(chain, roi).rows if len(chain) else ():
        yield row._replace(
            name=f"roi_heads.{row.name}",
            stage=f"{head} head x {times}",
            macs=row.macs * times,
            activations=row.activations * times,
            reads=row.reads * times,
            first=False,
            receptive_field=sides,
            stride=sides,
        )
