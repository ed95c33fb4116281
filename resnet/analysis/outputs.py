"""What the modules of a net give out when it runs on a batch."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from resnet.errors import Refused
from resnet.nets.model import ResNet, blocks


def stage_modules(model: nn.Module) -> dict[str, str]:
    """The last module of each stage by the stage's name, as {"stem": "act", "stage1": "layer1"}; without the head.

    Of a net that is not ours the children, by their own names.
    """
    if isinstance(model, ResNet):
        return {stage: child for child, stage in model.stages.items() if stage != "head"}  # of equal keys the last
    return {name: name for name, _ in model.named_children()}


def block_modules(model: nn.Module) -> list[str]:
    """The stem's last module and the blocks of a net of ours; the children of another net."""
    stages = stage_modules(model)
    return [stages["stem"], *blocks(model)] if isinstance(model, ResNet) else list(stages)


def module_named(model: nn.Module, name: str) -> nn.Module:
    """Refused for a name that the model lacks."""
    modules = dict(model.named_modules())
    if name not in modules:
        raise Refused("A name must be one of the model's modules.", repr(name), ", ".join(filter(None, modules)))
    return modules[name]


def tap(model: nn.Module, names: Sequence[str], of: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, Tensor]:
    """A dictionary that every run of the model fills: `of` what each named module gives out, in running order.

    For a net that is borrowed: giving it back takes the hooks away. Refused for a name that it lacks.
    """
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            held[name] = of(output)

        return hook

    for name in names:
        module_named(model, name).register_forward_hook(keep(name))
    return held
