"""The layers that blocks are made of, in two or three dimensions, each a module that a hook sees once."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CONVS, _BATCH_NORMS = {2: nn.Conv2d, 3: nn.Conv3d}, {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOLS, _AVG_POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}, {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_POOLS = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def group_norm(channels: int, dims: int) -> nn.GroupNorm:
    """32 groups (arXiv 1803.08494), or as many fewer as it takes to have equal ones of two channels or more."""
    return nn.GroupNorm(math.gcd(32, channels // 2) if channels % 2 == 0 else 1, channels)


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda channels, dims: _BATCH_NORMS[dims](channels),
    "group": group_norm,
    "none": lambda channels, dims: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True)
class Layers:
    """What a net's layers are made of: 2 dimensions for images, 3 for clips and volumes; a norm, an activation."""

    dims: int = 2
    norm_kind: str = "batch"
    activation: str = "relu"

    def conv(
        self, c_in: int, c_out: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1,
        dilation: int = 1, groups: int = 1,
    ) -> nn.Module:  # fmt: skip
        """Same-padded: a map's side becomes ceil(side / stride). Biased where no norm follows."""
        sizes = (kernel,) * self.dims if isinstance(kernel, int) else kernel
        padding = tuple(dilation * (size // 2) for size in sizes)
        return _CONVS[self.dims](
            c_in, c_out, sizes, stride, padding, dilation, groups, bias=self.norm_kind == "none"  # type: ignore[arg-type]
        )  # fmt: skip

    def norm(self, channels: int) -> nn.Module:
        return NORMS[self.norm_kind](channels, self.dims)

    def act(self) -> nn.Module:
        return ACTIVATIONS[self.activation]()

    def max_pool(self) -> nn.Module:
        """3 wide, stride 2, as after the 7x7 stem."""
        return _MAX_POOLS[self.dims](3, 2, 1)

    def avg_pool(self, size: int) -> nn.Module:
        """A mean over size x size at that stride; the last one of an odd side covers what is left."""
        return _AVG_POOLS[self.dims](size, size, ceil_mode=True, count_include_pad=False)

    def global_pool(self) -> nn.Module:
        return _GLOBAL_POOLS[self.dims](1)


class Add(nn.Module):
    """shortcut + branch, both (N, C, H, W)."""

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return shortcut + branch


class Copy(nn.Module):
    """The input as a tensor of its own, so that hooks on what follows see its own gradient only."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


class Scale(nn.Module):
    """x (N, C, H, W) times a gate (N, C, 1, 1)."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate


class CarryGate(nn.Module):
    """x (N, C, H, W) times 1 - gate of the same shape, what a highway carries on (arXiv 1505.00387)."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * (1 - gate)


class ConstantScale(nn.Module):
    """x times a number that is not learned."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Gate(nn.Module):
    """g(x) = sigmoid(W x + b) by a 1x1 convolution, a number for each channel and pixel (arXiv 1603.05027, 3.1).

    b starts at -6, the best of 0 to -10 there: 1 - g is almost 1, and the shortcut almost the identity.
    """

    BIAS = -6.0

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.conv = _CONVS[layers.dims](channels, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.conv(x))


class SqueezeExcitation(nn.Module):
    """Each channel times a gate from all channels' means (arXiv 1709.01507); `reduction` squeezes C to C / reduction.

    torchvision.ops has it for images only, and multiplies out of the hooks' sight.
    """

    def __init__(self, channels: int, reduction: int, layers: Layers) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.avgpool = layers.global_pool()
        self.fc1 = _CONVS[layers.dims](channels, squeezed, 1)
        self.act = layers.act()
        self.fc2 = _CONVS[layers.dims](squeezed, channels, 1)
        self.gate = nn.Sigmoid()
        self.scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(self.act(self.fc1(self.avgpool(x))))  # (N, C, 1, 1)
        return self.scale(x, self.gate(gate))


class SkipInit(nn.Module):
    """The branch times one learned number that starts at 0 (De and Smith, arXiv 2002.10444)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


class StochasticDepth(nn.Module):
    """In training, an image's branch (N, C, H, W) is 0 with chance `p`, else 1 / (1 - p) of it (arXiv 1603.09382).

    As torchvision.ops has it, whose import alone would make every training process start a second later.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.empty(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)
