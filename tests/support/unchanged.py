"""A net in the middle of something, and the check that a measurement leaves it as it found it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec

SMALL = NetSpec(
    (StageSpec(2, 8), StageSpec(2, 12, 2)), "basic", "A", stem="3x3", stem_width=8, classes=10, image_size=16
)


def images(n: int = 4) -> Tensor:
    """Gaussian noise (n, 3, 16, 16)."""
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def worn() -> nn.Module:
    """Trained for a step: running statistics and gradients, mixed modes, a frozen weight, a hook of somebody else."""
    model = build(SMALL, seed=3).train()
    F.cross_entropy(model(images()), torch.arange(4)).backward()
    model.get_submodule("layer2").eval()
    model.get_parameter("conv1.weight").requires_grad_(False)
    model.get_submodule("layer1").register_forward_hook(lambda *_: None)
    return model


def found(model: nn.Module) -> dict[str, Any]:
    """All that a measurement could change: tensors with their identity, flags, modes, and the hooks by their ids."""
    state: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = tensor.clone()
        state[f"{name} itself"] = id(tensor)
        state[f"{name} requires_grad"] = tensor.requires_grad
        state[f"{name}.grad"] = None if tensor.grad is None else tensor.grad.clone()
    for name, module in model.named_modules():
        state[f"{name} training"] = module.training
        hooks = {key: list(held) for key, held in vars(module).items() if "_hook" in key and isinstance(held, dict)}
        state |= {f"{name} {key}": held for key, held in hooks.items()}
    return state


def assert_unchanged(model: nn.Module, before: dict[str, Any]) -> None:
    after = found(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert _same(value, after[name]), f"{name} was changed"


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else type(a) is type(b) and a == b


def leaves_model_as_found(call: Callable[[nn.Module], object], backward: bool = True) -> None:
    """Assert that call(model) changes nothing in the model, nor does it when a forward or `backward` pass fails."""
    model = worn()
    before = found(model)
    call(model)
    assert_unchanged(model, before)
    failures = {"layer2.0": _in_forward} | ({"fc": _in_backward} if backward else {})
    for name, fail in failures.items():
        model = worn()
        model.get_submodule(name).register_forward_hook(fail)
        before = found(model)
        with pytest.raises(RuntimeError, match="in the middle"):
            call(model)
        assert_unchanged(model, before)


def _in_forward(*_: Any) -> None:
    raise RuntimeError("in the middle")


def _in_backward(module: nn.Module, args: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(_in_forward)
