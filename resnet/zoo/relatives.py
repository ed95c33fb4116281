"""Nets before and after ResNet, from torchvision's own builders, profiled as our nets are."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights
from torchvision.ops import StochasticDepth

from resnet.costs.profiler import Profile, ProfileError, profile_module
from resnet.costs.recorder import Row
from resnet.errors import Refused, choose
from resnet.zoo.layouts import is_counter

# torchvision's files of DenseNet have norm.1 where its nets have norm1.
_LEGACY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
MAX_SIZE = 4096  # pixels a side
Starts = dict[str, str]  # the module that opens a stage -> the stage, in running order


@dataclass(frozen=True)
class Family:
    """The paper that a group of nets comes from; `link` is what it took from ResNet, or gave to it."""

    name: str
    title: str
    arxiv: str
    year: int
    link: str


VGG = Family(
    "VGG", "Very Deep Convolutional Networks for Large-Scale Image Recognition", "1409.1556", 2014,
    "Gave ResNet its rule: stacks of 3 x 3 convolutions, twice the channels where the map halves.",
)  # fmt: skip
DENSENET = Family(
    "DenseNet", "Densely Connected Convolutional Networks", "1608.06993", 2016,
    "Concatenates where ResNet adds: a layer reads the maps of all layers before it in its block.",
)  # fmt: skip
REGNET = Family(
    "RegNet", "Designing Network Design Spaces", "2003.13678", 2020,
    "Keeps ResNeXt's block without its bottleneck and draws widths and depths from a line; Y adds channel gates.",
)  # fmt: skip
EFFICIENTNET = Family(
    "EfficientNet", "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", "1905.11946", 2019,
    "Turns the bottleneck inside out: the shortcut joins the narrow ends, the depthwise convolution is wide.",
)  # fmt: skip
EFFICIENTNET_V2 = Family(
    "EfficientNetV2", "EfficientNetV2: Smaller Models and Faster Training", "2104.00298", 2021,
    "Goes back to full 3 x 3 convolutions in its early residual blocks, because they run faster.",
)  # fmt: skip
CONVNEXT = Family(
    "ConvNeXt", "A ConvNet for the 2020s", "2201.03545", 2022,
    "Starts from ResNet-50 and borrows from transformers: a patch stem, depthwise 7 x 7, one GELU a block.",
)  # fmt: skip


@dataclass(frozen=True)
class Relative:
    """A net of another family: torchvision's builder, and the modules that open its stages."""

    family: Family
    builder: str
    starts: tuple[tuple[str, str], ...]

    @property
    def weights(self) -> list[WeightsEnum]:
        """torchvision's trained weights, none of them downloaded."""
        return list(get_model_weights(self.builder))

    @property
    def image_size(self) -> int:
        """Pixels a side for which torchvision publishes its weights; the smallest of several."""
        return min(weights.transforms.keywords["crop_size"] for weights in self.weights)


def _vgg(depth: int, bn: bool, convs: tuple[int, ...]) -> Relative:
    """Five stages of convolutions, each with its ReLU and perhaps its norm; a max-pool closes each."""
    first = [sum(convs[:k]) * (3 if bn else 2) + k for k in range(5)]
    starts = {f"features.{index}": f"stage{k}" for k, index in enumerate(first, 1)} | {"avgpool": "head"}
    return Relative(VGG, f"vgg{depth}" + "_bn" * bn, tuple(starts.items()))


def _densenet(depth: int) -> Relative:
    """A transition halves the map, so it opens the next stage, as ResNet's strided block does."""
    later = {f"features.transition{k - 1}": f"stage{k}" for k in (2, 3, 4)}
    starts = {"features.conv0": "stem", "features.denseblock1": "stage1"} | later | {"features.norm5": "head"}
    return Relative(DENSENET, f"densenet{depth}", tuple(starts.items()))


def _efficientnet(family: Family, size: str, stages: int = 7) -> Relative:
    starts = {"features.0": "stem"} | {f"features.{k}": f"stage{k}" for k in range(1, stages + 1)}
    return Relative(family, f"efficientnet_{size}", (*starts.items(), (f"features.{stages + 1}", "head")))


def _regnet(size: str) -> Relative:
    starts = {"stem": "stem"} | {f"trunk_output.block{k}": f"stage{k}" for k in (1, 2, 3, 4)} | {"avgpool": "head"}
    return Relative(REGNET, f"regnet_{size}", tuple(starts.items()))


def _convnext(size: str) -> Relative:
    """A downsampling layer opens the next stage."""
    first = {"features.1": "stage1", "features.2": "stage2", "features.4": "stage3", "features.6": "stage4"}
    return Relative(CONVNEXT, f"convnext_{size}", (("features.0", "stem"), *first.items(), ("avgpool", "head")))


_VGG_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_REGNET_SIZES = {
    "X": ("400MF", "800MF", "1.6GF", "3.2GF", "8GF", "16GF", "32GF"),
    "Y": ("400MF", "800MF", "1.6GF", "3.2GF", "8GF", "16GF", "32GF", "128GF"),
}

RELATIVES: dict[str, Relative] = {
    **{
        f"VGG-{depth}" + " BN" * bn: _vgg(depth, bn, convs)
        for depth, convs in _VGG_CONVS.items()
        for bn in (False, True)
    },
    **{f"DenseNet-{depth}": _densenet(depth) for depth in (121, 161, 169, 201)},
    **{
        f"RegNet-{kind} {size}": _regnet(f"{kind}_{size}".lower().replace(".", "_"))
        for kind, sizes in _REGNET_SIZES.items()
        for size in sizes
    },
    **{f"EfficientNet-B{k}": _efficientnet(EFFICIENTNET, f"b{k}") for k in range(8)},
    "EfficientNetV2-S": _efficientnet(EFFICIENTNET_V2, "v2_s", stages=6),
    "EfficientNetV2-M": _efficientnet(EFFICIENTNET_V2, "v2_m"),
    "EfficientNetV2-L": _efficientnet(EFFICIENTNET_V2, "v2_l"),
    **{f"ConvNeXt-{size[0].upper()}": _convnext(size) for size in ("tiny", "small", "base", "large")},
}


def relative(name: str) -> Relative:
    """The entry of `RELATIVES`; Refused where there is none."""
    return choose("relative", name, RELATIVES)


class _EmptyOnMeta(TorchFunctionMode):
    """Weights take no memory; RegNet's builder, unlike the others, computes its widths with real tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        return func(*args, **(options | {"device": "meta"} if func is torch.empty else options))


def build_relative(name: str, classes: int = 1000, device: str | torch.device = "meta") -> nn.Module:
    """torchvision's untrained net for RGB images, in eval mode; Refused for an unknown name."""
    make, place = get_model_builder(relative(name).builder), torch.device(device)
    with _EmptyOnMeta() if place.type == "meta" else place:
        return make(weights=None, num_classes=classes).to(place).eval()


def open_relative(name: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The net with torchvision's weights for it, in eval mode; Refused where they are another net's.

    Nothing in it works in place, so that what a hook sees stays as it was: DenseNet's last ReLU, behind its last
    norm, excepted.
    """
    model = build_relative(name)
    wanted = {_LEGACY.sub(r"\1\2.", key): value.float() for key, value in tensors.items() if not is_counter(key)}
    try:
        model.load_state_dict(wanted, assign=True)
    except RuntimeError:
        raise Refused(f"These are not the weights of {name}.") from None
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model


@cache
def stage_ends(name: str) -> dict[str, str]:
    """The module whose output is each stage's, in running order, as {"stage1": "layer1"}. Refused."""
    modules = [module for module, _ in build_relative(name).named_modules()]
    ends = {}
    for (start, stage), (following, _) in pairwise(relative(name).starts):
        level = start.rpartition(".")[0]
        before = [m for m in modules[: modules.index(following)] if m and m.rpartition(".")[0] == level]
        if stage != "stem":
            ends[stage] = before[-1]
    return ends


def profile_relative(name: str, image_size: int | None = None, classes: int = 1000) -> Profile:
    """Profile a relative for an image of (3, image_size, image_size), its own `image_size` where none is given.

    Refused for an unknown name or size; ProfileError where the image is too small for the net.
    """
    size = relative(name).image_size if image_size is None else image_size
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise Refused("An image's side is a whole number of pixels.", repr(size), f"1 to {MAX_SIZE:,}")
    return _profiled(name, size, classes)


@lru_cache(maxsize=256)
def _profiled(name: str, size: int, classes: int) -> Profile:
    starts = dict(relative(name).starts)
    try:
        result = profile_module(_chain(build_relative(name, classes)), (3, size, size))
    except ProfileError as error:
        error.rows = tuple(_staged(error.rows, starts))
        raise
    return Profile(result.input_shape, tuple(_staged(result.rows, starts)))


def _chain(model: nn.Module) -> nn.Module:
    """The same net as a chain, of which the profiler runs equal blocks once; DenseNet, which is none, as it is."""
    parts = dict(model.named_children())
    if "avgpool" not in parts:
        return model
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0  # its chance grows from block to block and changes no shape
    *body, head = parts.items()
    flattens = any(isinstance(module, nn.Flatten) for module in model.modules())
    return nn.Sequential(OrderedDict([*body, *([] if flattens else [("flatten", nn.Flatten())]), head]))


def _staged(rows: Iterable[Row], starts: Starts) -> Iterator[Row]:
    """The rows under the family's stages: a stage goes on until the first row of the module that opens the next."""
    stage = ""
    for row in rows:
        parts = row.name.split(".")
        opened = [starts[name] for k in range(1, len(parts) + 1) if (name := ".".join(parts[:k])) in starts]
        stage = opened[-1] if opened else stage
        yield row._replace(stage=stage)
