"""Class activation maps against closed forms, torch.autograd, pytorch-grad-cam and torch-cam."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from resnet.attribution import cam
from resnet.attribution.cam import captured, grad_cam, hires_cam
from resnet.attribution.contract import Request
from resnet.attribution.methods import METHODS, explain
from tests.attribution.nets import NETS, last, net, photos

LAST = "layer3.0"


def asked(images: Tensor, target: int, layer: str) -> Request:
    return Request(images, torch.full((len(images),), target), layer)


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "plain"])
@pytest.mark.parametrize("target", [0, 7])
class TestGradCam:
    """With global average pooling and a linear head, Grad-CAM at the last block is CAM (Zhou 2016) / (h w)."""

    def closed_form(self, model: nn.Module, images: Tensor, target: int) -> Tensor:
        with torch.no_grad():
            maps = last_maps(model, images)  # (N, C, 8, 8)
            return torch.einsum("c,nchw->nhw", model.get_parameter("fc.weight")[target], maps)

    def test_is_the_closed_form_at_the_last_block(self, kind: str, target: int) -> None:
        model, images = net(kind), photos().double()
        maps = grad_cam(*captured(model, asked(images, target, LAST)))
        torch.testing.assert_close(maps * 8 * 8, self.closed_form(model, images, target), rtol=1e-5, atol=1e-12)

    def test_sums_to_the_logit_without_its_bias(self, kind: str, target: int) -> None:
        model, images = net(kind), photos().double()
        maps = grad_cam(*captured(model, asked(images, target, LAST)))
        logits = model(images)[:, target] - model.get_parameter("fc.bias")[target]
        torch.testing.assert_close(maps.sum((1, 2)), logits, rtol=1e-5, atol=1e-12)

    def test_is_the_positive_part_drawn_bilinearly(self, kind: str, target: int) -> None:
        model = net(kind)
        positive = self.closed_form(model, photos().double(), target).relu().float() / 64
        wanted = torch.stack([bilinear(one, 4) for one in positive])
        torch.testing.assert_close(explain("grad-cam", model, photos(), target, LAST), wanted)

    def test_at_an_inner_layer(self, kind: str, target: int) -> None:
        model, images = net(kind), photos().double()
        parts = list(model.children())
        lower, upper = nn.Sequential(*parts[:4]), nn.Sequential(*parts[4:])  # stem and layer1, the rest
        inner = lower(images).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(upper(inner)[:, target].sum(), inner)
        wanted = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), inner)
        torch.testing.assert_close(grad_cam(*captured(model, asked(images, target, "layer1"))), wanted)


def last_maps(model: Any, images: Tensor) -> Tensor:
    for name, module in model.named_children():
        if name == "avgpool":
            return images
        images = module(images)
    raise AssertionError("no pooling")


def bilinear(image: Tensor, scale: int) -> Tensor:
    """Upsampling by hand: pixel centres, edges repeated; (h, w) -> (h scale, w scale)."""

    def rows(x: Tensor) -> Tensor:
        at = ((torch.arange(len(x) * scale) + 0.5) / scale - 0.5).clamp(0, len(x) - 1)
        low = at.floor().long()
        part = (at - low)[:, None]
        return x[low] * (1 - part) + x[(low + 1).clamp(max=len(x) - 1)] * part

    return rows(rows(image).T).T


class TestIdentities:
    """At the last block of a net with global average pooling all channels' gradients are the same at every place."""

    @pytest.mark.parametrize("kind", ["basic", "bottleneck", "plain", "torchvision", "our build"])
    @pytest.mark.parametrize("other", ["hires-cam", "xgrad-cam"])
    def test_others_are_grad_cam_at_the_last_block_and_differ_before(self, kind: str, other: str) -> None:
        model = net(kind)
        for layer, same in ((last(kind), True), ("layer1.0", False)):
            a, b = (explain(method, model, photos(), 1, layer) for method in ("grad-cam", other))
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6) == same

    def test_hires_cam_at_stage_2_is_far_from_grad_cam(self) -> None:
        a, gradient = captured(net(), asked(photos().double(), 1, "layer2.0"))
        assert (hires_cam(a, gradient) - grad_cam(a, gradient)).norm() > 0.5 * grad_cam(a, gradient).norm()

    @pytest.mark.parametrize("kind", NETS)
    def test_the_gradient_is_that_of_the_whole_net(self, kind: str) -> None:
        model, images, seen = net(kind), photos().double(), []
        handle = model.get_submodule("layer1").register_forward_hook(lambda *args: seen.append(args[-1]))
        logits = model(images)
        handle.remove()
        (wanted,) = torch.autograd.grad(logits[:, 3].sum(), seen)
        a, gradient = captured(model, asked(images, 3, "layer1"))
        assert torch.equal(a, seen[0])
        torch.testing.assert_close(gradient, wanted)

    @pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "eigen-cam", "score-cam", "ablation-cam"])
    def test_nothing_is_differentiated_before_the_layer(self, method: str) -> None:
        model, grads = net(), []
        model.get_submodule("conv1").register_forward_hook(lambda *args: grads.append(args[-1].requires_grad))
        explain(method, model, photos(), 1, "layer2.0")
        assert not any(grads)


@pytest.mark.parametrize("layer", ["layer1.0", "layer2.0", "layer2.0.bn2"])
def test_what_follows_in_place_does_not_reach_the_activations(layer: str) -> None:
    """torchvision adds to a branch's last norm in place; ours, with the same weights, in a module."""
    requests = [asked(photos().double(), 1, layer) for _ in range(2)]
    ours, theirs = (
        captured(net(kind), each) for kind, each in zip(("our build", "torchvision"), requests, strict=True)
    )
    torch.testing.assert_close(theirs, ours)


def test_ablation_is_what_the_logit_loses_without_the_channel() -> None:
    for kind in ("basic", "torchvision"):
        model, images = net(kind), photos(2).double()
        a, whole = cam.activations(model, asked(images, 1, "layer2.0"))
        weights = torch.zeros(2, a.shape[1]).double()
        for channel in range(a.shape[1]):

            def without(module: nn.Module, args: object, output: Tensor, channel: int = channel) -> Tensor:
                keep = torch.ones(output.shape[1], 1, 1).double()
                keep[channel] = 0
                return output * keep

            handle = model.get_submodule("layer2.0").register_forward_hook(without)
            with torch.no_grad():
                weights[:, channel] = whole - model(images)[:, 1]
            handle.remove()
        wanted = cam.positive(torch.einsum("nc,nchw->nhw", weights, a), images).float()
        torch.testing.assert_close(explain("ablation-cam", model, images, 1, "layer2.0"), wanted)


# Ours before the ReLU, at the layer's resolution.
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "GradCAM": cam.grad_cam,
    "HiResCAM": cam.hires_cam,
    "GradCAMPlusPlus": cam.grad_cam_plus_plus,
    "LayerCAM": cam.layer_cam,
    "XGradCAM": cam.xgrad_cam,
}


def scaled(model: nn.Module) -> nn.Module:
    """Logits and gradients a million times larger, beside which the others' 1e-6 in denominators does not count."""
    with torch.no_grad():
        model.get_parameter("fc.weight").mul_(1e6)
    return model


def alike(ours: Tensor, theirs: Any) -> None:
    """Equal to 1e-4 of the largest value, up to one factor for each map."""
    a, b = (torch.as_tensor(np.asarray(each)).double().flatten(1) for each in (ours, theirs))
    a, b = (each / each.abs().amax(1, keepdim=True) for each in (a, b))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def before_its_relu(peer: Any, images: Tensor, target: int) -> np.ndarray:
    """pytorch-grad-cam's map at the layer's resolution."""
    kept: list[np.ndarray] = []
    whole = peer.get_cam_image

    def keep(*args: Any) -> np.ndarray:
        kept.append(whole(*args))
        return kept[0]

    peer.get_cam_image = keep
    peer(images, [ClassifierOutputTarget(target)] * len(images))
    peer.activations_and_grads.release()
    return kept[0]


@pytest.mark.parametrize("layer", ["layer1.0", "layer2.0", "last"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "pre-activation", "plain", "our build"])
class TestPeers:
    @pytest.mark.parametrize("name", RULES)
    def test_pytorch_grad_cam(self, name: str, kind: str, layer: str) -> None:
        model, images, layer = scaled(net(kind)), photos(2).double(), last(kind) if layer == "last" else layer
        peer = getattr(pytorch_grad_cam, name)(model, [model.get_submodule(layer)])
        theirs = before_its_relu(peer, images, 1)
        alike(RULES[name](*captured(model, asked(images, 1, layer))), theirs)

    @pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "XGradCAM"])
    def test_torch_cam(self, name: str, kind: str, layer: str) -> None:
        model, images, layer = scaled(net(kind)), photos(2).double(), last(kind) if layer == "last" else layer
        with getattr(torchcam.methods, name)(model, layer) as peer:
            peer._relu = False
            theirs = peer(1, model(images), normalized=False)[0]
        alike(RULES[name](*captured(model, asked(images, 1, layer))), theirs.detach())

    def test_score_cam_of_torch_cam(self, kind: str, layer: str) -> None:
        model, images, layer = net(kind), photos(2), last(kind) if layer == "last" else layer
        with torchcam.methods.ScoreCAM(model, layer) as peer:
            with torch.no_grad():
                model(images.double())
            theirs = cam.positive(peer(1, normalized=False)[0], images)
        alike(explain("score-cam", model, images, 1, layer), theirs)

    def test_eigen_cam_of_pytorch_grad_cam(self, kind: str, layer: str) -> None:
        model, images, layer = net(kind), photos(2), last(kind) if layer == "last" else layer
        a, _ = cam.activations(model, asked(images.double(), 0, layer))
        theirs = torch.as_tensor(pytorch_grad_cam.utils.svd_on_activations.get_2d_projection(a.numpy()))
        agrees = (
            (theirs * (a - a.mean((2, 3), keepdim=True)).sum(1)).sum((1, 2), keepdim=True).sign()
        )  # its sign is free
        alike(explain("eigen-cam", model, images, 0, layer), cam.positive(theirs * agrees, images))


@pytest.mark.parametrize("kind", ["basic", "our build"])
def test_ablation_cam_of_pytorch_grad_cam(kind: str) -> None:
    model, images = net(kind), photos(1).double()
    target = int(model(images).argmax())  # its logit is positive, as that package and the paper need it
    peer = pytorch_grad_cam.AblationCAM(model, [model.get_submodule("layer2.0")], batch_size=4)
    theirs = before_its_relu(peer, images, target)
    ours = explain("ablation-cam", net(kind), images, target, "layer2.0")
    alike(ours, cam.positive(torch.as_tensor(theirs), images))


def test_score_cam_weighs_channels_that_are_the_same_everywhere_by_the_blank_picture() -> None:
    model, images = net(), photos(1).double()
    with torch.no_grad():
        model.get_parameter("layer2.0.bn2.weight")[:6] = 0  # with the shortcut's zeros: two channels are constant
        model.get_parameter("layer2.0.bn2.bias")[:2] = 1
    a, _ = cam.activations(model, asked(images, 1, "layer2.0"))
    assert (a.flatten(2).amax(2) == a.flatten(2).amin(2)).sum() == 2
    with torchcam.methods.ScoreCAM(model, "layer2.0") as peer:
        with torch.no_grad():
            model(images)
        theirs = cam.positive(peer(1, normalized=False)[0], images)
    alike(explain("score-cam", model, images, 1, "layer2.0"), theirs)


def test_every_cam_is_held_against_another_package_or_brute_force() -> None:
    held = {"grad-cam", "hires-cam", "grad-cam++", "layer-cam", "xgrad-cam", "score-cam", "ablation-cam", "eigen-cam"}
    assert held == {name for name, method in METHODS.items() if method.family == "cam"}
