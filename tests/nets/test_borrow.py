"""A borrowed net comes back as it was, whatever was done to it, and the check of that sees each thing forgotten."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet.nets.borrow import borrowed
from tests.support.unchanged import images, leaves_model_as_found, worn


def train_a_step(model: nn.Module) -> None:
    F.cross_entropy(model.train()(images()), torch.arange(4)).backward()


def forget_a_hook(model: nn.Module) -> None:
    model.get_submodule("layer1").register_forward_pre_hook(lambda *_: None)


def drop_hooks(model: nn.Module) -> None:
    model.get_submodule("layer1")._forward_hooks.clear()


def reset_statistics(model: nn.Module) -> None:
    model.get_submodule("bn1").register_buffer("running_mean", torch.zeros(8))


CARELESS: dict[str, Callable[[nn.Module], object]] = {
    "modes": nn.Module.eval,
    "flags": lambda model: model.requires_grad_(False),
    "gradients": nn.Module.zero_grad,
    "gradients and statistics": train_a_step,
    "statistics": lambda model: model.train()(images()),
    "another buffer": reset_statistics,
    "a hook": forget_a_hook,
    "no hook": drop_hooks,
}


@pytest.mark.parametrize("what", CARELESS)
def test_what_is_done_to_a_borrowed_net_is_undone(what: str) -> None:
    def measured(model: nn.Module) -> None:
        with borrowed(model, grad=True):
            F.cross_entropy(model(images()), torch.arange(4)).backward()
            CARELESS[what](model)

    leaves_model_as_found(measured)


@pytest.mark.parametrize("what", CARELESS)
def test_the_check_sees_what_is_done_to_a_net_that_is_not_borrowed(what: str) -> None:
    with pytest.raises(AssertionError, match="was changed"):
        leaves_model_as_found(CARELESS[what], backward=False)


def test_changed_weights_are_seen() -> None:
    def shift(model: nn.Module) -> None:
        with borrowed(model), torch.no_grad():
            model.get_parameter("fc.bias").add_(1)

    with pytest.raises(AssertionError, match=r"fc\.bias was changed"):
        leaves_model_as_found(shift)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_modes_and_flags_inside(train: bool, grad: bool) -> None:
    model = worn()
    with borrowed(model, train, grad):
        assert {module.training for module in model.modules()} == {train}
        assert {parameter.requires_grad for parameter in model.parameters()} == {grad}
        assert all(parameter.grad is None for parameter in model.parameters())


def test_a_shared_buffer_stays_shared_and_a_loan_may_lie_in_another() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[1].running_mean = model[0].running_mean
    mean = model[0].running_mean
    with borrowed(model, train=True):
        assert model[1].running_mean is model[0].running_mean is not mean
        with borrowed(model):
            assert not model[0].training
        assert model[0].training
    assert model[1].running_mean is model[0].running_mean is mean


def test_a_hook_set_before_can_still_be_removed() -> None:
    model, calls = worn(), []
    handle = model.get_submodule("fc").register_forward_hook(lambda *_: calls.append(1))
    with borrowed(model):
        model(images())
    handle.remove()
    model(images())
    assert calls == [1]
