"""Stems, residual blocks and shortcuts as modules that hooks can trust.

Every ReLU is a module of its own, never in place and never reused, and the addition is a module: attribution
methods that hook modules (captum) would otherwise be silently wrong. Parameter names are torchvision's.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}


def conv(c_in: int, c_out: int, kernel: int, stride: int, norm: str) -> nn.Conv2d:
    """Same-padded convolution (N, c_in, H, W) -> (N, c_out, ceil(H/stride), ceil(W/stride)); biased if no norm"""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=norm == "none")


class Add(nn.Module):
    """shortcut + branch, both (N, C, H, W)."""

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return shortcut + branch


class ZeroPad(nn.Module):
    """Option A of He et al. (arXiv 1512.03385, 3.3): every stride-th pixel, new channels of zeros, no parameters.

    The zeros are split between the first and the last channels.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, new = stride, c_out - c_in
        self.pad = (0, 0, 0, 0, new // 2, new - new // 2)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pad={self.pad}"

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)  # (N, c_out, ceil(H/s), ceil(W/s))


def zero_pad(c_in: int, c_out: int, stride: int, norm: str) -> nn.Module:
    """Identity where the shape stays, else option A."""
    return nn.Identity() if (c_in, stride) == (c_out, 1) else ZeroPad(c_in, c_out, stride)


def projection(c_in: int, c_out: int, stride: int, norm: str) -> nn.Module:
    """Identity where the shape stays, else option B: a 1x1 convolution with its norm."""
    if (c_in, stride) == (c_out, 1):
        return nn.Identity()
    return nn.Sequential(conv(c_in, c_out, 1, stride, norm), NORMS[norm](c_out))


def no_shortcut(c_in: int, c_out: int, stride: int, norm: str) -> None:
    """A plain net has none."""


SHORTCUTS: dict[str, Callable[[int, int, int, str], nn.Module | None]] = {
    "A": zero_pad,
    "B": projection,
    "none": no_shortcut,
}

MODES = ("both", "shortcut", "branch", "cut")


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)) on (N, c_in, H, W); without a shortcut, relu(branch(x)).

    `mode` lets lesion studies run a built net in another way: "shortcut" or "branch" alone, or "cut" (the block
    returns its input). ValueError where the block cannot run in that mode.
    """

    convs: int  # weight layers on the branch
    expansion: int  # output channels / width
    last_norm: str
    last_relu: str

    def __init__(self, c_in: int, width: int, stride: int, shortcut: str, norm: str, stride_on: str) -> None:
        super().__init__()
        self.keeps_shape = (c_in, stride) == (width * self.expansion, 1)
        self.downsample = SHORTCUTS[shortcut](c_in, width * self.expansion, stride, norm)
        if self.downsample is not None:
            self.add = Add()
        self._mode = "both"

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"A block's mode must be one of {', '.join(MODES)}. Received {mode!r}.")
        if mode == "shortcut" and self.downsample is None:
            raise ValueError("A plain block has no shortcut to run alone.")
        if mode == "cut" and not self.keeps_shape:
            raise ValueError("Only a block that keeps its input's shape can be cut out.")
        self._mode = mode

    def extra_repr(self) -> str:
        return "" if self._mode == "both" else f"mode={self._mode}"

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError  # each block's own

    def forward(self, x: Tensor) -> Tensor:
        if self._mode == "cut":
            return x
        if self.downsample is None or self._mode == "branch":
            y = self.branch(x)
        elif self._mode == "shortcut":
            y = self.downsample(x)
        else:
            y = self.add(self.downsample(x), self.branch(x))
        return self.get_submodule(self.last_relu)(y)


class BasicBlock(Block):
    """Two 3x3 convolutions (He 2015, Fig. 5 left); the first one strides."""

    convs, expansion, last_relu, last_norm = 2, 1, "relu2", "bn2"

    def __init__(self, c_in: int, width: int, stride: int, shortcut: str, norm: str, stride_on: str) -> None:
        super().__init__(c_in, width, stride, shortcut, norm, stride_on)
        self.conv1 = conv(c_in, width, 3, stride, norm)
        self.bn1 = NORMS[norm](width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(width, width, 3, 1, norm)
        self.bn2 = NORMS[norm](width)
        self.relu2 = nn.ReLU()

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))  # (N, width, H/stride, W/stride)
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1, 3x3, 1x1 (He 2015, Fig. 5 right), four times wider at its end.

    stride_on "1x1" is the paper's v1; "3x3" is v1.5, which torchvision builds.
    """

    convs, expansion, last_relu, last_norm = 3, 4, "relu3", "bn3"

    def __init__(self, c_in: int, width: int, stride: int, shortcut: str, norm: str, stride_on: str) -> None:
        super().__init__(c_in, width, stride, shortcut, norm, stride_on)
        c_out = width * self.expansion
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = conv(c_in, width, 1, first, norm)
        self.bn1 = NORMS[norm](width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(width, width, 3, second, norm)
        self.bn2 = NORMS[norm](width)
        self.relu2 = nn.ReLU()
        self.conv3 = conv(width, c_out, 1, 1, norm)
        self.bn3 = NORMS[norm](c_out)
        self.relu3 = nn.ReLU()

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))  # (N, width, H/stride, W/stride)
        return self.bn3(self.conv3(x))  # (N, 4 width, ...)


BLOCKS: dict[str, type[Block]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def stem_3x3(c_in: int, width: int, norm: str) -> dict[str, nn.Module]:
    """The CIFAR stem (He 2015, 4.2): 3x3, stride 1."""
    return {"conv1": conv(c_in, width, 3, 1, norm), "bn1": NORMS[norm](width), "relu": nn.ReLU()}


def stem_7x7(c_in: int, width: int, norm: str) -> dict[str, nn.Module]:
    """The ImageNet stem (He 2015, Table 1): 7x7, stride 2, then a 3x3 max-pool, stride 2."""
    stem = {"conv1": conv(c_in, width, 7, 2, norm), "bn1": NORMS[norm](width), "relu": nn.ReLU()}
    return stem | {"maxpool": nn.MaxPool2d(3, 2, 1)}


STEMS: dict[str, Callable[[int, int, str], dict[str, nn.Module]]] = {"3x3": stem_3x3, "7x7": stem_7x7}
