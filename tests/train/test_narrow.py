"""Convolutions with the images of a batch laid side by side, against the same convolutions one image at a time."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet.devices import autocast
from resnet.nets.model import build, memory_format
from resnet.nets.spec import cifar
from resnet.train import narrow

CONVS = {  # in, out channels, side of the map, kernel, stride, dilation
    "4 wide": (24, 16, 4, 3, 1, 1),
    "8 wide: the weights' gradient alone": (16, 32, 8, 3, 1, 1),
    "from 8 to 4": (16, 32, 8, 3, 2, 1),
    "odd, from 7 to 4": (16, 16, 7, 3, 2, 1),
    "a pixel": (8, 8, 1, 3, 1, 1),
    "dilated": (8, 16, 8, 3, 1, 2),
    "5x5": (8, 16, 4, 5, 1, 1),
}


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with AMX; bf16 is computed on any other too, if slowly."""
    monkeypatch.setattr(narrow, "has_bf16", lambda device: True)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The input shapes of narrow convolutions."""
    shapes: list[tuple[int, ...]] = []
    real = narrow.convolution

    def noted(x: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return real(x, *rest)

    monkeypatch.setattr(narrow, "convolution", noted)
    return shapes


@pytest.mark.parametrize("name", CONVS)
def test_it_is_the_convolution_and_so_are_its_gradients(name: str) -> None:
    c_in, c_out, side, kernel, stride, dilation = CONVS[name]
    pad = dilation * (kernel // 2)
    torch.manual_seed(0)
    x = torch.randn(6, c_in, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(c_out, c_in, kernel, kernel, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, pad, dilation)
    made = narrow.convolution(x, weight, [stride] * 2, [pad] * 2, [dilation] * 2)
    torch.testing.assert_close(made, expected)
    assert made.is_contiguous(memory_format=torch.channels_last)
    to_y = torch.randn_like(expected)
    to_x, to_weight = torch.autograd.grad(expected, [x, weight], to_y)
    torch.testing.assert_close(torch.autograd.grad(made, [x, weight], to_y), (to_x, to_weight))
    first = narrow.convolution(x.detach(), weight, [stride] * 2, [pad] * 2, [dilation] * 2)  # a net's first layer
    torch.testing.assert_close(torch.autograd.grad(first, weight, to_y), (to_weight,))


@pytest.mark.parametrize("name", CONVS)
def test_torch_agrees_that_the_operators_are_well_formed(name: str) -> None:
    """Schema, shapes without values, autograd: what torch.compile relies on."""
    c_in, c_out, side, kernel, stride, dilation = CONVS[name]
    x = torch.randn(2, c_in, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(c_out, c_in, kernel, kernel).contiguous(memory_format=torch.channels_last).requires_grad_()
    pad = dilation * (kernel // 2)
    torch.library.opcheck(narrow.convolution, (x, weight, [stride] * 2, [pad] * 2, [dilation] * 2))


def gradients(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    with autocast("cpu", "bf16"):
        logits = model(images.contiguous(memory_format=memory_format(model)))
    logits.float().square().mean().backward()
    return logits.detach().float(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.usefixtures("amx")
def test_a_net_trains_as_without_it_to_the_rounding_of_bf16(called: list[tuple[int, ...]]) -> None:
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    usual = build(cifar(8)).train()
    quick = narrow.accelerate(build(cifar(8)), "cpu", "bf16").train()
    expected, made = gradients(usual.to(memory_format=torch.channels_last), images), gradients(quick, images)
    assert called == [(16, 32, 16, 16), (16, 64, 8, 8)]  # the third stage's
    torch.testing.assert_close(made[0], expected[0], rtol=0.02, atol=0.02)
    for ours, theirs in zip(made[1], expected[1], strict=True):
        assert (ours - theirs).norm() < 0.05 * theirs.norm()
    assert quick.state_dict().keys() == usual.state_dict().keys()


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(("images", "times"), [(7, 0), (8, 2)])
def test_a_few_images_make_no_row(images: int, times: int, called: list[tuple[int, ...]]) -> None:
    model = narrow.accelerate(build(cifar(8)), "cpu", "bf16")
    with autocast("cpu", "bf16"):
        model(torch.rand(images, 3, 32, 32))
    assert len(called) == times


@pytest.mark.usefixtures("amx")
def test_in_fp32_nothing_is_laid_side_by_side(called: list[tuple[int, ...]]) -> None:
    images = torch.rand(8, 3, 32, 32)
    model = build(cifar(8)).eval().to(memory_format=torch.channels_last)
    expected = model(images)
    for precision in ("fp32", "bf16"):
        narrow.accelerate(model, "cpu", precision)
        assert torch.equal(model(images), expected)
    assert called == []


def test_without_amx_the_net_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "has_bf16", lambda device: False)
    model = build(cifar(8))
    narrow.accelerate(model, "cpu", "bf16")
    assert {type(module) for module in model.modules() if isinstance(module, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.usefixtures("amx")
def test_grouped_biased_and_1x1_convolutions_stay_as_they_are() -> None:
    spec = dataclasses.replace(cifar(8), block="bottleneck", cardinality=2, shortcut="B")
    model = build(spec)
    narrow.accelerate(model, "cpu", "bf16")
    changed = [name for name, module in model.named_modules() if type(module) is narrow._NarrowConv2d]
    assert changed == ["conv1"]
    biased = build(dataclasses.replace(cifar(8), norm="none"))
    narrow.accelerate(biased, "cpu", "bf16")
    assert not any(type(module) is narrow._NarrowConv2d for module in biased.modules())
