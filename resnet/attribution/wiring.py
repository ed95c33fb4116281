"""How a net is wired, and for which methods of attribution that is wrong: each reason is a sentence, "" for none.

Guided methods and DeepLift work through hooks on modules. What is computed outside of modules they do not see, and a
module that runs twice they take for one; both would be silently wrong.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import fx, nn

from resnet.nets.blocks import ZeroPad
from resnet.nets.layers import Add, ConstantScale, Copy, SkipInit, StochasticDepth
from resnet.nets.model import ResNet

_LINEAR = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.Identity, nn.Flatten, nn.Unflatten),
    *(nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.Upsample, nn.ZeroPad2d),
    *(nn.modules.dropout._DropoutNd, Add, ConstantScale, Copy, ZeroPad, SkipInit, StochasticDepth),
)  # in eval mode
_MAX_POOLS = nn.modules.pooling._MaxPoolNd
_DEEP_LIFT = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, _MAX_POOLS)  # captum's rules
_LINEAR_FUNCTIONS = {
    *("add", "add_", "iadd", "sub", "cat", "concat", "mean", "pad", "adaptive_avg_pool2d", "avg_pool2d", "interpolate"),
    *("flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "dropout"),
    *("stochastic_depth", "size", "getattr", "getitem"),
}
_RECTIFIERS = {"relu", "relu_"}
_PASSIVE = _LINEAR_FUNCTIONS | {"mul", "imul", "max_pool2d", "sigmoid", "sigmoid_"}  # no rectifier, nor a stand-in
OWN_BUILD = "Use this program's own build of the net with the same weights."
OTHERS = "Saliency, SmoothGrad and integrated gradients work with every net."


@dataclass(frozen=True)
class Wiring:
    """What runs: modules without children, one that runs twice standing twice; functions outside of modules.

    `pairs` are of modules of which the second reads what the first gives; `forks` the modules whose input something
    else reads, too.
    """

    modules: tuple[nn.Module, ...]
    functions: tuple[str, ...]
    pairs: tuple[tuple[nn.Module, nn.Module], ...]
    forks: tuple[nn.Module, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_LINEAR, *_DEEP_LIFT)) or super().is_leaf_module(m, module_qualified_name)


def wiring(model: nn.Module) -> Wiring | None:
    """Of a net of ours by its construction, of another's by tracing; None where it cannot be traced.

    While it traces (torch.fx), no other thread may run a net.
    """
    if type(model) is ResNet:
        leaves = tuple(module for module in model.modules() if not any(module.children()))
        chain = tuple(model.children())  # a stem has its activation and its pool here, no block has a pool
        return Wiring(leaves, (), tuple(pairwise(chain)), ())
    try:
        nodes = _Tracer().trace(model).nodes
    except Exception:  # noqa: BLE001  whatever a foreign net does with a value that is not there yet
        return None
    modules = {node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"}
    calls = [node for node in nodes if node.op in ("call_function", "call_method")]
    return Wiring(
        tuple(modules.values()),
        tuple(getattr(node.target, "__name__", str(node.target)) for node in calls),
        tuple((modules[a], module) for node, module in modules.items() for a in node.all_input_nodes if a in modules),
        tuple(module for node, module in modules.items() if any(len(a.users) > 1 for a in node.all_input_nodes)),
    )


def rectifiers_hidden(method: str, model: nn.Module) -> str:
    """Why a method that replaces the gradient of ReLU modules would be wrong for the net."""
    found = wiring(model)
    if found is None:
        return _untraceable(method)
    rule = f"{method} works through ReLU modules that run once each, and this net"
    others = [each for each in found.modules if _is_activation(each) and not isinstance(each, nn.ReLU | nn.Sigmoid)]
    if others:
        return f"{rule} has {_name(others[0])} instead. {OTHERS}"
    if hidden := _beyond(found, _PASSIVE):
        return f"{rule} computes {hidden} outside of modules. {OWN_BUILD}"
    return _shared(found, rule)


def no_differences(model: nn.Module) -> str:
    """Why DeepLift would be wrong for the net."""
    found = wiring(model)
    if found is None:
        return _untraceable("DeepLift")
    if unknown := [each for each in found.modules if not isinstance(each, (*_LINEAR, *_DEEP_LIFT))]:
        return f"DeepLift has no rule for {_name(unknown[0])}, which this net has. {OTHERS}"
    rule = "DeepLift works through activation modules that run once each, and this net"
    if hidden := _beyond(found, _LINEAR_FUNCTIONS):
        return f"{rule} computes {hidden} outside of modules. {OWN_BUILD}"
    if reason := _shared(found, rule):
        return reason
    instead = "Use integrated gradients, or a net without a max-pool."
    if any(isinstance(first, _DEEP_LIFT) and isinstance(second, _DEEP_LIFT) for first, second in found.pairs):
        pair = "In this net an activation or a max-pool feeds another one"
        return f"{pair}, where captum's DeepLift leaves out a rule (its issue 1104). {instead}"
    if any(isinstance(each, _MAX_POOLS) and _overlaps(each) for each in found.modules):
        return f"In this net windows of a max-pool overlap, and captum's DeepLift loses what they share. {instead}"
    return ""


def _overlaps(pool: Any) -> bool:
    kernel, stride = (each if isinstance(each, tuple) else (each,) for each in (pool.kernel_size, pool.stride))
    return any(wide > step for wide, step in zip(kernel, stride, strict=True))


def no_relevance(model: nn.Module) -> str:
    """Why layer-wise relevance propagation has no rule for the net."""
    found = wiring(model)
    if found is None:
        return _untraceable("LRP")
    allowed = (*_LINEAR, nn.ReLU, _MAX_POOLS)
    if unknown := [each for each in found.modules if not isinstance(each, allowed)]:
        return f"LRP has no rule for {_name(unknown[0])}, which this net has. {OTHERS}"
    if hidden := _beyond(found, _LINEAR_FUNCTIONS | _RECTIFIERS | {"max_pool2d"}):
        return f"LRP has no rule for {hidden}, which this net computes outside of modules. {OTHERS}"
    return ""


def _shared(found: Wiring, rule: str) -> str:
    """Why hooks on these activations would mix up their gradients."""
    counts = Counter(each for each in found.modules if _is_activation(each))
    if any(count > 1 for count in counts.values()):
        return f"{rule} has one that runs {max(counts.values())} times. {OWN_BUILD}"
    if any(each in counts for each in found.forks):
        return f"{rule} has one whose input is read by another layer as well. {OWN_BUILD}"
    return ""


def _beyond(found: Wiring, allowed: set[str]) -> str:
    return next((name for name in found.functions if name not in allowed), "")


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _untraceable(method: str) -> str:
    return f"{method} depends on how a net is wired, and torch.fx cannot trace this one. {OTHERS}"
