"""The names that a net's description chooses from, and what each adds to its depth and size: all without torch.

`BLOCKS`, `SHORTCUTS`, `NORMS` and `ACTIVATIONS` in blocks and layers hold what is built under these names.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from resnet.nets.layers import Layers


class BlockKind(NamedTuple):
    convs: int  # weight layers on the branch
    expansion: int  # output channels / width
    bottleneck: bool  # its 3x3 has a width of its own, and groups


BLOCK_KINDS = {
    "basic": BlockKind(2, 1, False),
    "bottleneck": BlockKind(3, 4, True),
    "preact-basic": BlockKind(2, 1, False),
    "preact-bottleneck": BlockKind(3, 4, True),
}
GATED = ("exclusive", "gated")  # shortcuts that a learned gate of x multiplies
IDENTITY_VARIANTS = ("scaled", *GATED, "dropout")  # stand where the identity would (arXiv 1603.05027, Table 1)
SHORTCUT_KINDS = ("A", "B", "C", "D", *IDENTITY_VARIANTS, "none")
NORM_KINDS = ("batch", "group", "none")
ACTIVATION_KINDS = ("relu", "gelu", "silu")


@dataclass(frozen=True)
class Stem:
    """`convs`: kernel, stride and share of the stem's width of each convolution; perhaps a max-pool of stride 2."""

    convs: tuple[tuple[int | tuple[int, ...], int | tuple[int, ...], float], ...]
    pool: bool
    stride: int  # of the whole stem, in height and width
    time_stride: int  # the same in time, or across a volume's slices
    dims: tuple[int, ...] = (2, 3)

    def build(self, c_in: int, width: int, layers: "Layers", preact: bool) -> dict[str, "nn.Module"]:
        """The stem's layers by name; before pre-activation blocks the last convolution has no norm of its own."""
        named: dict[str, nn.Module] = {}
        for index, (kernel, stride, share) in enumerate(self.convs, 1):
            c_out, last = max(1, int(width * share)), index == len(self.convs)
            named[f"conv{index}"] = layers.conv(c_in, c_out, kernel, stride)
            if not (last and preact):
                named[f"bn{index}"] = layers.norm(c_out)
                named["act" if last else f"act{index}"] = layers.act()
            c_in = c_out
        return named | ({"maxpool": layers.max_pool()} if self.pool else {})


STEMS: dict[str, Stem] = {
    "3x3": Stem(((3, 1, 1),), pool=False, stride=1, time_stride=1),  # He 2015, 4.2, for CIFAR
    "7x7": Stem(((7, 2, 1),), pool=True, stride=4, time_stride=4),  # He 2015, Table 1
    "deep": Stem(  # ResNet-C, arXiv 1812.01187
        ((3, 2, 0.5), (3, 1, 0.5), (3, 1, 1)), pool=True, stride=4, time_stride=4
    ),
    "3x7x7": Stem(  # R3D, arXiv 1711.11248
        (((3, 7, 7), (1, 2, 2), 1),), pool=False, stride=2, time_stride=1, dims=(3,)
    ),
}
