"""Gradients of the pixels against torch.autograd and captum, and the guided ones at every ReLU."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, GuidedGradCam, InputXGradient
from torch import Tensor, nn

from resnet.attribution.methods import explain
from tests.attribution.nets import NETS, REFUSED, last, net, photos

GUIDED = [kind for kind in NETS if "guided-backprop" not in REFUSED.get(kind, ())]


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    images = images.double().requires_grad_()
    logits = model(images)
    return torch.autograd.grad(logits[torch.arange(len(images)), targets].sum(), images)[0]


@pytest.mark.parametrize("kind", NETS)
class TestPlain:
    def test_saliency_is_the_largest_gradient_of_the_logit(self, kind: str) -> None:
        model, targets = net(kind), torch.tensor([2, 0, 9])
        wanted = gradient(model, photos(), targets).abs().amax(1).float()
        torch.testing.assert_close(explain("saliency", model, photos(), targets), wanted)

    def test_input_x_gradient(self, kind: str) -> None:
        model, targets = net(kind), torch.tensor([2, 0, 9])
        wanted = (photos() * gradient(model, photos(), targets)).sum(1).float()
        torch.testing.assert_close(explain("input-x-gradient", model, photos(), targets), wanted)


def by_hand(model: nn.Module, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """max |dlogit/dx| of class 1 where each ReLU's gradient is rule(output, gradient that arrives)."""

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.relu())
            return x.relu()

        @staticmethod
        def backward(ctx, grad):
            return rule(ctx.saved_tensors[0], grad)

    class ReLU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Ruled.apply(x)

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, ReLU())
    return gradient(model, photos(), torch.ones(3, dtype=torch.long)).abs().amax(1).float()


@pytest.mark.parametrize("kind", GUIDED)
class TestGuided:
    def test_guided_backprop_lets_pass_what_is_positive_at_units_that_are_on(self, kind: str) -> None:
        wanted = by_hand(net(kind), lambda out, grad: grad.relu() * (out > 0))
        torch.testing.assert_close(explain("guided-backprop", net(kind), photos(), 1), wanted)

    def test_deconvolution_lets_pass_what_is_positive(self, kind: str) -> None:
        wanted = by_hand(net(kind), lambda out, grad: grad.relu())
        torch.testing.assert_close(explain("deconvolution", net(kind), photos(), 1), wanted)

    def test_the_gradient_that_leaves_each_relu_is_nowhere_negative(self, kind: str) -> None:
        model, leaving = net(kind), list[Tensor]()

        def watch(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            x = args[0] * 1.0
            x.register_hook(leaving.append)
            return (x * 1.0,)  # which gets captum's hook

        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(watch)
        explain("guided-backprop", model, photos(), 1)
        assert len(leaving) == sum(isinstance(module, nn.ReLU) for module in model.modules())
        assert all(each.min() >= 0 for each in leaving)
        assert all(each.max() > 0 for each in leaving)

    def test_differs_from_saliency(self, kind: str) -> None:
        model = net(kind)
        guided, deconvolved, plain = (
            explain(method, model, photos(), 1) for method in ("guided-backprop", "deconvolution", "saliency")
        )
        for a, b in ((guided, plain), (deconvolved, plain), (guided, deconvolved)):
            assert (a - b).norm() > 0.3 * b.norm()

    @pytest.mark.filterwarnings("ignore:Setting backward hooks")
    def test_captum(self, kind: str) -> None:
        model, x, target = net(kind).requires_grad_(False), photos().double().requires_grad_(), torch.tensor([1, 2, 3])
        layer = model.get_submodule(last(kind))
        wanted = {
            "guided-backprop": GuidedBackprop(model).attribute(x, target).abs().amax(1),
            "deconvolution": Deconvolution(model).attribute(x, target).abs().amax(1),
            "guided-grad-cam": GuidedGradCam(model, layer)
            .attribute(x, target, interpolate_mode="bilinear")
            .abs()
            .amax(1),
            "input-x-gradient": InputXGradient(model).attribute(x, target).sum(1),
        }
        for method, maps in wanted.items():
            torch.testing.assert_close(explain(method, model, photos(), target, last(kind)), maps.detach().float())
