"""What an attribution method is asked, and what it says of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Request:
    """Explain the logits `target` (N,) of `images` (N, C, H, W), at `layer` where the method works at one."""

    images: Tensor  # on the model's device and in its dtype; they need gradients
    target: Tensor
    layer: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


def _applies(model: nn.Module) -> str:
    return ""


@dataclass(frozen=True)
class Method:
    """An attribution method and how to read its maps.

    `function(model, request)` gives maps (N, H, W); the model is lent to it in eval mode, its parameters without
    gradients. `reason(model)` says in a sentence why the method does not apply to a net, "" where it does.
    """

    title: str
    function: Callable[[nn.Module, Request], Tensor]
    signed: bool  # negative values mean evidence against the target
    needs_layer: bool
    source: str
    reading: str
    blank: str  # what it means where a map is 0 everywhere, and what to do
    options: Mapping[str, object] = field(default_factory=dict)  # with their usual values
    reason: Callable[[nn.Module], str] = _applies
