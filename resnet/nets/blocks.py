"""Stems, residual blocks and shortcuts as modules that hooks can trust.

Every activation is a module of its own, never in place and never reused, and the addition is a module: attribution
methods that hook modules (captum) would otherwise be silently wrong. Parameter names are torchvision's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from resnet.errors import Refused
from resnet.nets.kinds import BLOCK_KINDS, GATED, IDENTITY_VARIANTS
from resnet.nets.layers import (
    Add,
    CarryGate,
    ConstantScale,
    Copy,
    Gate,
    Layers,
    Scale,
    SkipInit,
    SqueezeExcitation,
    StochasticDepth,
)


@dataclass(frozen=True)
class BlockPlan:
    """How one block is made: all that `BLOCKS[plan.block](plan)` has to know."""

    block: str
    c_in: int
    width: int
    stride: int = 1
    dilation: int = 1
    first_dilation: int = 1  # of the block's first wide convolution; a stage's first block has the last stage's
    shortcut: str = "B"
    cardinality: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    se: int = 0
    skip_init: bool = False
    drop: float = field(default=0.0, compare=False)  # how often changes no cost; see `key`
    layers: Layers = field(default_factory=Layers)

    @property
    def c_out(self) -> int:
        return self.width * BLOCKS[self.block].expansion

    @property
    def keeps_shape(self) -> bool:
        return (self.c_in, self.stride) == (self.c_out, 1)

    @property
    def shortcut_kind(self) -> str:
        """What the shortcut is in this very block: "identity", one of SHORTCUTS, or "" where there is none."""
        if self.shortcut == "none":
            return ""
        if self.keeps_shape:
            return self.shortcut if self.shortcut in ("C", *IDENTITY_VARIANTS) else "identity"
        if self.shortcut == "D" and self.stride == 1:  # without a stride D has no pool
            return "B"
        return "B" if self.shortcut in IDENTITY_VARIANTS else self.shortcut

    @property
    def inner(self) -> int:
        """Channels inside a bottleneck: width x base_width / 64 x cardinality (arXiv 1611.05431, 1605.07146)."""
        return int(self.width * self.base_width / 64) * self.cardinality

    @property
    def key(self) -> tuple["BlockPlan", bool]:
        """Equal for blocks whose layers and costs are equal."""
        return self, self.drop > 0

    def build(self) -> "Block":
        return BLOCKS[self.block](self)


class ZeroPad(nn.Module):
    """Option A of He et al. (arXiv 1512.03385, 3.3): every stride-th pixel, new channels of zeros, no parameters.

    The zeros are split between the first and the last channels.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.stride, new = plan.stride, plan.c_out - plan.c_in
        self.pad = (0, 0) * plan.layers.dims + (new // 2, new - new // 2)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pad={self.pad}"

    def forward(self, x: Tensor) -> Tensor:
        step = slice(None, None, self.stride)
        return F.pad(x[(slice(None), slice(None), *[step] * (x.dim() - 2))], self.pad)  # (N, c_out, ceil(H/s), ...)


def _projection(plan: BlockPlan, normed: bool, stride: int) -> list[nn.Module]:
    conv = plan.layers.conv(plan.c_in, plan.c_out, 1, stride)
    return [conv, plan.layers.norm(plan.c_out)] if normed else [conv]


def zero_pad(plan: BlockPlan, normed: bool) -> nn.Module:
    """Identity where the shape stays, else option A."""
    return nn.Identity() if plan.keeps_shape else ZeroPad(plan)


def projection(plan: BlockPlan, normed: bool) -> nn.Module:
    """Identity where the shape stays, else option B: a 1x1 convolution with its norm."""
    return nn.Identity() if plan.keeps_shape else nn.Sequential(*_projection(plan, normed, plan.stride))


def projection_everywhere(plan: BlockPlan, normed: bool) -> nn.Module:
    """Option C: a 1x1 convolution with its norm in every block."""
    return nn.Sequential(*_projection(plan, normed, plan.stride))


def avg_pool(plan: BlockPlan, normed: bool) -> nn.Module:
    """Identity where the shape stays, else ResNet-D's: a mean takes the stride, then 1x1 (arXiv 1812.01187)."""
    if plan.keeps_shape:
        return nn.Identity()
    pool = plan.layers.avg_pool(plan.stride) if plan.stride > 1 else nn.Identity()
    return nn.Sequential(pool, *_projection(plan, normed, 1))


def scaled(plan: BlockPlan, normed: bool) -> nn.Module:
    """Constant scaling: half of x where the shape stays (He 2016, arXiv 1603.05027, 3.1), else option B."""
    return ConstantScale(0.5) if plan.keeps_shape else projection(plan, normed)


def gated(plan: BlockPlan, normed: bool) -> nn.Module:
    """(1 - g(x)) x where the shape stays, else option B; "exclusive" is g(x) times the branch as well (the same, 3.1).

    The block has the gate, since both of its sides may need it.
    """
    return CarryGate() if plan.keeps_shape else projection(plan, normed)


def dropout(plan: BlockPlan, normed: bool) -> nn.Module:
    """Half of x's values at random in training, half of x otherwise (the same, 3.1); where the shape changes, option B.

    nn.Dropout doubles what it keeps; the paper has an expectation of 0.5.
    """
    return nn.Sequential(nn.Dropout(0.5), ConstantScale(0.5)) if plan.keeps_shape else projection(plan, normed)


def no_shortcut(plan: BlockPlan, normed: bool) -> None:
    """A plain net has none."""


SHORTCUTS: dict[str, Callable[[BlockPlan, bool], nn.Module | None]] = {
    "A": zero_pad,
    "B": projection,
    "C": projection_everywhere,
    "D": avg_pool,
    "scaled": scaled,
    "exclusive": gated,
    "gated": gated,
    "dropout": dropout,
    "none": no_shortcut,
}


MODES = ("both", "shortcut", "branch", "cut")


class Block(nn.Module):
    """act(shortcut(x) + branch(x)) on (N, c_in, H, W); without a shortcut, act(branch(x)).

    Where the shortcut is gated, so is the branch if the gate is exclusive.

    `mode` lets lesion studies run a built net in another way: "shortcut" or "branch" alone, or "cut" (the block
    returns its input). Refused where the block cannot run in that mode.
    """

    convs: int
    expansion: int
    bottleneck: bool
    preact = False  # norm and activation stand before each convolution
    last_conv: str
    last_norm = ""  # of the branch; "" where it ends in a convolution
    last_act = ""  # after the addition; "" for none

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.keeps_shape, self.shortcut_kind = plan.keeps_shape, plan.shortcut_kind
        self.downsample = SHORTCUTS[plan.shortcut](plan, not self.preact)
        if self.downsample is not None:
            self.add = Add()
        self.gate = Gate(plan.c_out, plan.layers) if self.shortcut_kind in GATED else None
        self.let = Scale() if self.shortcut_kind == "exclusive" else None
        self._mode = "both"

    def _finish(self, plan: BlockPlan) -> None:
        """What may follow the last layer of a branch."""
        self.se = SqueezeExcitation(plan.c_out, plan.se, plan.layers) if plan.se else nn.Identity()
        self.alpha = SkipInit() if plan.skip_init else nn.Identity()
        self.drop = StochasticDepth(plan.drop) if plan.drop else nn.Identity()

    @classmethod
    def role(cls, name: str) -> str:
        """Of a module inside by its name: "branch", "se" (at the branch's end), "shortcut", or "sum" (and after it)."""
        member = name.partition(".")[0]
        known = {"downsample": "shortcut", "gate": "shortcut", "se": "se", "add": "sum", cls.last_act: "sum"}
        return known.get(member, "branch")

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise Refused(f"A block's mode must be one of {', '.join(MODES)}. Received {mode!r}.")
        if mode == "shortcut" and self.downsample is None:
            raise Refused("A plain block has no shortcut to run alone.")
        if mode == "cut" and not self.keeps_shape:
            raise Refused("Only a block that keeps its input's shape can be cut out.")
        self._mode = mode

    def extra_repr(self) -> str:
        return "" if self._mode == "both" else f"mode={self._mode}"

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the shortcut and what the branch read."""
        return x, x

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError  # each block's own

    def forward(self, x: Tensor) -> Tensor:
        if self._mode == "cut":
            return x
        past, inside = self.enter(x)
        gates = self.gates(past)
        if self.downsample is None or self._mode == "branch":
            y = self._end(self.branch(inside), *gates)
        elif self._mode == "shortcut":
            y = self.downsample(past, *gates)
        else:
            y = self.add(self.downsample(past, *gates), self._end(self.branch(inside), *gates))
        return self.get_submodule(self.last_act)(y) if self.last_act else y

    def gates(self, x: Tensor) -> list[Tensor]:
        """What `downsample` takes beside the x that the shortcut reads: g(x) where it is gated."""
        return [] if self.gate is None else [self.gate(x)]

    def _end(self, y: Tensor, *gates: Tensor) -> Tensor:
        y = self.alpha(self.se(y))
        return self.drop(y if self.let is None else self.let(y, *gates))


class BasicBlock(Block):
    """Two 3x3 convolutions (He 2015, Fig. 5 left); the first one strides."""

    convs, expansion, bottleneck = BLOCK_KINDS["basic"]
    last_conv, last_norm, last_act = "conv2", "bn2", "act2"

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        make, width = plan.layers, plan.width
        self.conv1 = make.conv(plan.c_in, width, 3, plan.stride, plan.first_dilation)
        self.bn1 = make.norm(width)
        self.act1 = make.act()
        self.conv2 = make.conv(width, width, 3, 1, plan.dilation)
        self.bn2 = make.norm(width)
        self._finish(plan)
        self.act2 = make.act()

    def branch(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))  # (N, width, H/stride, W/stride)
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1, 3x3, 1x1 (He 2015, Fig. 5 right), four times wider at its end; ResNeXt's groups are in the 3x3.

    stride_on "1x1" is the paper's v1; "3x3" is v1.5, which torchvision builds.
    """

    convs, expansion, bottleneck = BLOCK_KINDS["bottleneck"]
    last_conv, last_norm, last_act = "conv3", "bn3", "act3"

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        make, inner = plan.layers, plan.inner
        first, second = (plan.stride, 1) if plan.stride_on == "1x1" else (1, plan.stride)
        self.conv1 = make.conv(plan.c_in, inner, 1, first)
        self.bn1 = make.norm(inner)
        self.act1 = make.act()
        self.conv2 = make.conv(inner, inner, 3, second, plan.first_dilation, plan.cardinality)
        self.bn2 = make.norm(inner)
        self.act2 = make.act()
        self.conv3 = make.conv(inner, plan.c_out, 1)
        self.bn3 = make.norm(plan.c_out)
        self._finish(plan)
        self.act3 = make.act()

    def branch(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))  # (N, inner, H/stride, W/stride)
        return self.bn3(self.conv3(x))  # (N, 4 width, ...)


class PreActivation(Block):
    """shortcut(x) + branch(act(bn1(x))) (He 2016, arXiv 1603.05027).

    The identity and its variants read x, every other shortcut act(bn1(x)) as the branch does.
    """

    preact = True

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        # Without a norm the activation would read the very tensor that the shortcut passes on.
        self.bn1 = Copy() if plan.layers.norm_kind == "none" else plan.layers.norm(plan.c_in)
        self.act1 = plan.layers.act()

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = self.act1(self.bn1(x))
        return x if self.shortcut_kind in ("identity", *IDENTITY_VARIANTS) else inside, inside


class PreActBasicBlock(PreActivation):
    """norm, act, 3x3, norm, act, 3x3."""

    convs, expansion, bottleneck = BLOCK_KINDS["preact-basic"]
    last_conv = "conv2"

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        make, width = plan.layers, plan.width
        self.conv1 = make.conv(plan.c_in, width, 3, plan.stride, plan.first_dilation)
        self.bn2 = make.norm(width)
        self.act2 = make.act()
        self.conv2 = make.conv(width, width, 3, 1, plan.dilation)
        self._finish(plan)

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (N, width, H/stride, W/stride)
        return self.conv2(self.act2(self.bn2(x)))


class PreActBottleneck(PreActivation):
    """norm, act, 1x1, norm, act, 3x3, norm, act, 1x1."""

    convs, expansion, bottleneck = BLOCK_KINDS["preact-bottleneck"]
    last_conv = "conv3"

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        make, inner = plan.layers, plan.inner
        first, second = (plan.stride, 1) if plan.stride_on == "1x1" else (1, plan.stride)
        self.conv1 = make.conv(plan.c_in, inner, 1, first)
        self.bn2 = make.norm(inner)
        self.act2 = make.act()
        self.conv2 = make.conv(inner, inner, 3, second, plan.first_dilation, plan.cardinality)
        self.bn3 = make.norm(inner)
        self.act3 = make.act()
        self.conv3 = make.conv(inner, plan.c_out, 1)
        self._finish(plan)

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.conv2(self.act2(self.bn2(x)))  # (N, inner, H/stride, W/stride)
        return self.conv3(self.act3(self.bn3(x)))  # (N, 4 width, ...)


BLOCKS: dict[str, type[Block]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "preact-basic": PreActBasicBlock,
    "preact-bottleneck": PreActBottleneck,
}
