"""What a net is, before any tensor exists: frozen, validated, and the same in JSON, in a URL and in memory."""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from resnet.errors import Refused
from resnet.nets.kinds import ACTIVATION_KINDS, BLOCK_KINDS, NORM_KINDS, SHORTCUT_KINDS, STEMS

MAX_BLOCKS, MAX_WIDTH = 600, 4096  # 1202 layers are 600 basic blocks
CIFAR_DEPTHS = range(8, 1203, 6)  # 6n+2
STRIDE_ON = ("3x3", "1x1")


class SpecError(Refused):
    """A rule that a net breaks; `field` names the entry to fix."""

    def __init__(self, field: str, rule: str, received: object, choices: str) -> None:
        super().__init__(rule, _short(repr(received)), choices)
        self.args, self.field = (field, rule, received, choices), field


def _short(text: str) -> str:
    """At most 100 characters: what came may be a stranger's."""
    return text if len(text) <= 100 else f"{text[:99]}…"


def _label(field: str) -> str:
    return field.replace("_", " ").capitalize()


def _check_choice(field: str, value: object, choices: Collection[str]) -> None:
    if type(value) is not str or value not in choices:
        rule = f"{_label(field)} must be one this program knows."
        raise SpecError(field, rule, value, " or ".join(filter(None, choices)))


def check_int(field: str, value: object, low: int, high: int) -> None:
    """SpecError unless the value is a whole number from low to high."""
    if type(value) is not int or not low <= value <= high:
        raise SpecError(field, f"{_label(field)} must be a whole number in range.", value, f"{low} to {high:,}")


def _check_switch(field: str, value: object) -> None:
    if type(value) is not bool:
        raise SpecError(field, f"{_label(field)} is a switch.", value, "true or false")


@dataclass(frozen=True)
class StageSpec:
    """`blocks` blocks of `width` channels (before expansion); the first one strides. SpecError where out of range.

    The first block's wide convolution still has the dilation of the stage before, as in torchvision.
    """

    blocks: int
    width: int
    stride: int = 1
    dilation: int = 1
    shortcut: str = ""  # "" is the net's own

    def __post_init__(self) -> None:
        check_int("blocks", self.blocks, 1, MAX_BLOCKS)
        check_int("width", self.width, 1, MAX_WIDTH)
        check_int("stride", self.stride, 1, 4)
        check_int("dilation", self.dilation, 1, 16)
        _check_choice("shortcut", self.shortcut, ("", *SHORTCUT_KINDS))


INT_RANGES = {
    "cardinality": (1, 256),
    "base_width": (1, 1024),
    "se": (0, 64),
    "stem_width": (1, MAX_WIDTH),
    "in_channels": (1, 64),
    "classes": (2, 100_000),
    "image_size": (8, 1024),
    "frames": (0, 256),
}
CHOICES: dict[str, Collection[str]] = {
    "block": BLOCK_KINDS,
    "shortcut": SHORTCUT_KINDS,
    "stride_on": STRIDE_ON,
    "stem": STEMS,
    "norm": NORM_KINDS,
    "activation": ACTIVATION_KINDS,
}


@dataclass(frozen=True)
class NetSpec:
    """A residual net (He et al. 2015, arXiv 1512.03385), or with shortcut "none" its plain twin.

    SpecError (a ValueError) where a rule is broken; a spec that constructs builds.
    """

    stages: tuple[StageSpec, ...]
    block: str = "basic"
    shortcut: str = "B"
    cardinality: int = 1  # groups of a bottleneck's 3x3 (ResNeXt, arXiv 1611.05431)
    base_width: int = 64  # a bottleneck's 3x3 has width x base_width / 64 channels in each group
    stride_on: str = "3x3"  # where a bottleneck strides: "1x1" is v1, "3x3" is v1.5
    se: int = 0  # reduction of the squeeze-and-excitation at each branch's end (arXiv 1709.01507), 0 for none
    stem: str = "7x7"
    stem_width: int = 64
    norm: str = "batch"
    activation: str = "relu"
    zero_init: bool = False  # the last norm (or convolution) of each branch starts at 0 (arXiv 1706.02677)
    skip_init: bool = False  # each branch times a learned number that starts at 0 (arXiv 2002.10444)
    stochastic_depth: float = 0.0  # chance that training skips the last branch (arXiv 1603.09382)
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224  # pixels, square
    frames: int = 0  # of a clip, or slices of a volume: 3-D convolutions; 0 for images

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, (low, high) in INT_RANGES.items():
            check_int(name, getattr(self, name), low, high)
        for name in ("zero_init", "skip_init"):
            _check_switch(name, getattr(self, name))
        chance = self.stochastic_depth
        if type(chance) not in (int, float) or not 0 <= chance <= 0.9:
            raise SpecError("stochastic_depth", "Stochastic depth is a probability.", chance, "0 to 0.9")
        self._check_stages()
        self._check_branches()
        if self.dims not in STEMS[self.stem].dims:
            rule = f"The {self.stem} stem is for clips and volumes."
            raise SpecError("stem", rule, f"{self.frames} frames", "another stem, or 1 frame or more")
        self._check_pools()
        if self.se == 1:
            raise SpecError(
                "se", "A squeeze-and-excitation divides the channels by 2 or more.", 1, "0 for none, or 2 to 64"
            )

    def _check_stages(self) -> None:
        stages = self.stages
        if type(stages) is not tuple or not all(isinstance(s, StageSpec) for s in stages):
            raise SpecError("stages", "Stages must be a tuple of StageSpec.", stages, "at least one stage")
        if not 1 <= len(stages) <= 8:
            raise SpecError("stages", "A net has 1 to 8 stages.", len(stages), "1 to 8")
        if sum(s.blocks for s in stages) > MAX_BLOCKS:
            total = sum(s.blocks for s in stages)
            raise SpecError(
                "stages", "All stages together have a limited number of blocks.", total, f"up to {MAX_BLOCKS} blocks"
            )
        channels = [self.stem_width] + [s.width * self.expansion for s in stages]
        for kind, (before, after) in zip(self.shortcuts, pairwise(channels), strict=True):
            if kind == "A" and after < before:
                rule = "Shortcut A pads with zero channels, so the channels (width x expansion) may not shrink."
                raise SpecError("shortcut", rule, channels, "growing widths, or shortcut B")

    def _check_pools(self) -> None:
        """PyTorch's 3-D average pool, unlike its 2-D one, refuses a map smaller than itself."""
        stem = STEMS[self.stem]
        sides = [-(-self.frames // stem.time_stride), -(-self.image_size // stem.stride)]
        for stage, kind in zip(self.stages, self.shortcuts, strict=True):
            if kind == "D" and min(sides) < stage.stride and self.frames:
                rule = "In clips and volumes, shortcut D's average pool must fit into the map."
                raise SpecError(
                    "shortcut", rule, f"a side of {min(sides)} at stride {stage.stride}", "B, or more frames"
                )
            sides = [-(-side // stage.stride) for side in sides]

    def _check_branches(self) -> None:
        grouped = {"cardinality": (self.cardinality, 1), "base_width": (self.base_width, 64)}
        for name, (value, usual) in grouped.items():
            if value != usual and not BLOCK_KINDS[self.block].bottleneck:
                rule = f"{_label(name)} belongs to a bottleneck's 3x3."
                raise SpecError(name, rule, f"{value} with block {self.block}", f"{usual}, or block bottleneck")
        narrow = min(stage.width for stage in self.stages)
        if self.base_width * narrow < 64:
            rule = "A group must have a channel: width x base width / 64 may not be below 1."
            raise SpecError("base_width", rule, f"{narrow} x {self.base_width} / 64", "a larger base width or width")
        for name in ("zero_init", "skip_init", "stochastic_depth"):
            if getattr(self, name) and "none" in self.shortcuts:
                rule = f"{_label(name)} leaves some blocks only their shortcut, so every stage must have one."
                raise SpecError(name, rule, "shortcut none", "another shortcut, or no " + name.replace("_", " "))
        if self.zero_init and self.skip_init:
            rule = "Zero init and skip init together would stop each other's gradients."
            raise SpecError("skip_init", rule, "both", "one of them")

    @property
    def dims(self) -> int:
        """2 for images, 3 for clips and volumes."""
        return 3 if self.frames else 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (C, T, H, W) of a clip or volume."""
        size = self.image_size, self.image_size
        return (self.in_channels, self.frames, *size) if self.frames else (self.in_channels, *size)

    @property
    def shortcuts(self) -> tuple[str, ...]:
        """The shortcut of each stage."""
        return tuple(stage.shortcut or self.shortcut for stage in self.stages)

    @property
    def expansion(self) -> int:
        """Output channels of a block / its width."""
        return BLOCK_KINDS[self.block].expansion

    @property
    def output_stride(self) -> int:
        """Pixels of the image per pixel of the last map."""
        return STEMS[self.stem].stride * math.prod(stage.stride for stage in self.stages)

    @property
    def depth(self) -> int:
        """Weight layers on the longest path, the stem as one: the number in the name ResNet-50."""
        return 2 + BLOCK_KINDS[self.block].convs * sum(s.blocks for s in self.stages)

    @property
    def plain(self) -> bool:
        """True where no block has a shortcut."""
        return set(self.shortcuts) == {"none"}

    @property
    def name(self) -> str:
        """The preset's or CIFAR net's name, `plain-N` for the plain twin of one, or `ResNet-N (custom)`."""
        name = _names(self.depth).get(_sizeless(self))
        return name or f"{'plain' if self.plain else 'ResNet'}-{self.depth} (custom)"


def twins(spec: NetSpec) -> list[NetSpec]:
    """The net and its plain twin; a plain net alone."""
    return [spec] if spec.plain else [spec, plain_twin(spec)]


def plain_twin(spec: NetSpec) -> NetSpec:
    """The same net without shortcuts (He 2015, 3.3), and without what leaves a block its shortcut alone."""
    stages = tuple(dataclasses.replace(stage, shortcut="") for stage in spec.stages)
    off: dict[str, Any] = {"zero_init": False, "skip_init": False, "stochastic_depth": 0.0}
    return dataclasses.replace(spec, stages=stages, shortcut="none", **off)


def with_output_stride(spec: NetSpec, output_stride: int) -> NetSpec:
    """The same net with its last strides turned into dilation (DeepLab, arXiv 1706.05587), as torchvision does it.

    SpecError where the stem or a stage would have to stride less than it can.
    """
    stride, dilation, stages = STEMS[spec.stem].stride, 1, []
    for stage in spec.stages:
        if stride * stage.stride <= output_stride:
            stride, taken = stride * stage.stride, stage.stride
        else:
            taken, dilation = 1, dilation * stage.stride
        stages.append(dataclasses.replace(stage, stride=taken, dilation=dilation))
    if stride != output_stride:
        choices = ", ".join(str(s) for s in output_strides(spec))
        raise SpecError("output_stride", "The strides must multiply to the output stride.", output_stride, choices)
    return dataclasses.replace(spec, stages=tuple(stages))


def output_strides(spec: NetSpec) -> list[int]:
    """The output strides that `with_output_stride` can give, largest last."""
    strides = [STEMS[spec.stem].stride]
    for stage in spec.stages:
        strides.append(strides[-1] * stage.stride)
    return sorted(set(strides))


def _net(block: str, blocks: tuple[int, ...], strides: tuple[int, ...] = (1, 2, 2, 2), **values: Any) -> NetSpec:
    widths = [64 * 2**index for index in range(len(blocks))]
    stages = (StageSpec(*stage) for stage in zip(blocks, widths, strides, strict=True))
    return NetSpec(tuple(stages), block, **values)


def cifar(depth: int) -> NetSpec:
    """He 2015, 4.2: 6n+2 layers in three stages of 16, 32, 64 channels, option A. SpecError for another depth."""
    check_int("depth", depth, 8, 1202)
    n, rest = divmod(depth - 2, 6)
    if rest:
        near = f"{6 * n + 2} or {6 * n + 8}"
        raise SpecError("depth", "A CIFAR ResNet has 6n+2 layers.", depth, near)
    stages = StageSpec(n, 16, 1), StageSpec(n, 32, 2), StageSpec(n, 64, 2)
    return NetSpec(stages, shortcut="A", stem="3x3", stem_width=16, classes=10, image_size=32)


_SMALL: dict[str, Any] = {"stem": "3x3", "classes": 10, "image_size": 32}
_R50, _R101, _R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

PRESETS: dict[str, NetSpec] = {f"ResNet-{depth}": cifar(depth) for depth in (20, 32, 44, 56, 110, 1202)} | {
    "Pre-ResNet-164": NetSpec(  # He 2016, arXiv 1603.05027
        (StageSpec(18, 16), StageSpec(18, 32, 2), StageSpec(18, 64, 2)), "preact-bottleneck", stem_width=16, **_SMALL
    ),
    "WRN-28-10": NetSpec(  # Wide ResNet, arXiv 1605.07146
        (StageSpec(4, 160), StageSpec(4, 320, 2), StageSpec(4, 640, 2)), "preact-basic", stem_width=16, **_SMALL
    ),
    "ResNeXt-29 8x64d": _net("bottleneck", (3, 3, 3), (1, 2, 2), cardinality=8, **_SMALL),  # arXiv 1611.05431
    "ResNet-18 CIFAR stem": _net("basic", (2, 2, 2, 2), **_SMALL),
    "ResNet-18": _net("basic", (2, 2, 2, 2)),
    "ResNet-34": _net("basic", _R50),
    "ResNet-50": _net("bottleneck", _R50),
    "ResNet-101": _net("bottleneck", _R101),
    "ResNet-152": _net("bottleneck", _R152),
    "ResNet-14": _net("bottleneck", (1, 1, 1, 1)),  # timm's resnet14t has these blocks, but another stem
    "ResNet-26": _net("bottleneck", (2, 2, 2, 2)),  # timm's resnet26, microsoft/resnet-26
    "ResNet-200": _net("bottleneck", (3, 24, 36, 3)),  # He 2016, Table 5; timm's resnet200
    "ResNet-50 v1": _net("bottleneck", _R50, stride_on="1x1"),
    "ResNet-101 v1": _net("bottleneck", _R101, stride_on="1x1"),
    "ResNet-152 v1": _net("bottleneck", _R152, stride_on="1x1"),
    "ResNet-50 Keras listing": _net("bottleneck", _R50, (2, 2, 2, 2), stride_on="1x1"),  # a stride too many
    "ResNet-50-C": _net("bottleneck", _R50, stem="deep"),  # arXiv 1812.01187, as D
    "ResNet-50-D": _net("bottleneck", _R50, stem="deep", shortcut="D"),
    "Pre-ResNet-50": _net("preact-bottleneck", _R50),
    "Pre-ResNet-50-D": _net("preact-bottleneck", _R50, stem="deep", shortcut="D"),  # timm's resnetv2_50d
    "SE-ResNet-50": _net("bottleneck", _R50, se=16),
    "ResNet-50 GN": _net("bottleneck", _R50, norm="group"),
    "ResNeXt-50 32x4d": _net("bottleneck", _R50, cardinality=32, base_width=4),
    "ResNeXt-101 32x8d": _net("bottleneck", _R101, cardinality=32, base_width=8),
    "ResNeXt-101 64x4d": _net("bottleneck", _R101, cardinality=64, base_width=4),
    "Wide ResNet-50-2": _net("bottleneck", _R50, base_width=128),
    "Wide ResNet-101-2": _net("bottleneck", _R101, base_width=128),
    "ResNet3D-18": _net("basic", (2, 2, 2, 2), stem="3x7x7", classes=400, image_size=112, frames=16),  # R3D
    "ResNet3D-10 volume": _net("basic", (1, 1, 1, 1), in_channels=1, classes=2, image_size=96, frames=96),  # MRI, CT
}
PRESETS["ResNet-50 OS8"] = with_output_stride(PRESETS["ResNet-50"], 8)


_SHARED = ("ResNet-164",)  # He 2016 calls the net of bottlenecks so


def _sizeless(spec: NetSpec) -> NetSpec:
    """The net with the largest input, and without what is in no name either: channels in, classes."""
    largest = {name: INT_RANGES[name][1] for name in ("image_size", "frames")}
    frames = largest["frames"] if spec.frames else 0
    return dataclasses.replace(spec, in_channels=3, classes=10, image_size=largest["image_size"], frames=frames)


def cifar_name(depth: int) -> str:
    """`ResNet-N`, or `CIFAR ResNet-N` where others mean another net by that. SpecError as `cifar`."""
    name, net = f"ResNet-{depth}", cifar(depth)
    return f"CIFAR {name}" if PRESETS.get(name, net) != net or name in _SHARED else name


@cache
def named_nets(depth: int) -> dict[str, NetSpec]:
    """The presets, and the CIFAR net of that depth where there is one."""
    return PRESETS | {cifar_name(depth): cifar(depth)} if depth in CIFAR_DEPTHS else PRESETS


def _plain_name(name: str) -> str:
    """`plain-20`, `CIFAR plain-26`, `plain WRN-28-10`."""
    own = name.startswith(("ResNet-", "CIFAR ResNet-"))
    return name.replace("ResNet", "plain", 1) if own else f"plain {name}"


@cache
def _names(depth: int) -> dict[NetSpec, str]:
    """Names of the sizeless nets of that depth and of their plain twins."""
    found = {_sizeless(net): name for name, net in named_nets(depth).items() if net.depth == depth}
    return {plain_twin(net): _plain_name(name) for net, name in reversed(found.items())} | found
