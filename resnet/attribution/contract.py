"""What an attribution method is asked, and what it says of itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

FAMILIES = {
    "cam": "class activation maps",
    "gradient": "gradients",
    "perturbation": "perturbations",
    "propagation": "propagation by rules",
    "control": "control",
}


@dataclass(frozen=True, eq=False)
class Request:
    """Explain the logits `target` (N,) of `images` (N, C, *S), at `layer` where the method works at one.

    S is (H, W), or (T, H, W) of clips and volumes. Where a difference of two logits is explained, the net gives these
    differences instead of its logits, so that a method need not know of it.
    """

    images: Tensor  # on the model's device and in its dtype
    target: Tensor
    layer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


class Partial(NamedTuple):
    """What a method knows after a `share` (0 to 1) of its passes: maps (N, *S), which get finer."""

    maps: Tensor
    share: float


class Passes(NamedTuple):
    """What a method runs for each image: so many forward passes of the net, and backward passes.

    `after` counts forward passes of what follows the layer alone, where a method runs no more than that.
    """

    forward: float
    backward: float = 0.0
    after: float = 0.0


def _applies(model: nn.Module) -> str:
    return ""


def _one_of_each(options: Mapping[str, Any], channels: int, dims: int = 2) -> Passes:
    return Passes(1, 1)


@dataclass(frozen=True)
class Method:
    """An attribution method and how to read its maps.

    `function(model, request)` gives maps (N, *S), or yields a `Partial` after each of its batches, the last one with
    the whole result. The model is lent to it in eval mode, its parameters without gradients. `reason(model)` says in a
    sentence why the method does not apply to a net, "" where it does; `passes(options, channels, dims=2)` what it will
    run at a layer of so many channels, on images of so many dimensions.
    """

    title: str
    family: str  # one of FAMILIES
    function: Callable[[nn.Module, Request], Tensor | Iterator[Partial]]
    signed: bool  # negative values mean evidence against the target
    needs_layer: bool
    source: str
    reading: str
    blank: str  # what it means where a map is 0 everywhere, and what to do
    options: Mapping[str, Any] = field(default_factory=dict)  # with their usual values
    reason: Callable[[nn.Module], str] = _applies
    passes: Callable[..., Passes] = _one_of_each
