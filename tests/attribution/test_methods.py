"""Attribution maps against closed forms and torch.autograd; every method leaves the net exactly as it was."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet.attribution.cam import cam
from resnet.attribution.contract import Method, Request
from resnet.attribution.methods import METHODS, common_layers, common_scale, explain, top_k
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, plain_twin
from tests.support import unchanged
from tests.support.unchanged import leaves_model_as_found

STAGES = StageSpec(1, 8), StageSpec(1, 12, 2), StageSpec(1, 16, 2)
SMALL = NetSpec(STAGES, "basic", "A", stem="3x3", stem_width=8, classes=10, image_size=32)
SPECS = {"residual": SMALL, "plain": plain_twin(SMALL)}
LAST = "layer3.0"


def net(kind: str = "residual") -> nn.Module:
    """A net of depth 8 with batch statistics of its own, in eval mode and in double precision."""
    model = build(SPECS[kind], seed=3)
    with torch.no_grad():
        model.train()(photos(16))
        for i, parameter in enumerate(model.parameters()):  # no bias at 0, where a mistake would not show
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return model.double().eval()


def photos(n: int = 3, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(7))


@pytest.mark.filterwarnings("error::UserWarning")  # captum mends inputs that need no gradient, and says so
@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_maps_are_finite_float32_of_the_images_size(self, method: str, kind: str) -> None:
        maps = explain(method, net(kind), photos(2, (24, 40)), [1, 2], LAST)
        assert maps.shape == (2, 24, 40)
        assert maps.dtype == torch.float32
        assert maps.isfinite().all()
        assert not maps.requires_grad
        assert maps.abs().amax((1, 2)).min() > 0
        assert METHODS[method].signed or maps.min() >= 0

    def test_twice_is_the_same(self, method: str, kind: str) -> None:
        model = net(kind)
        assert torch.equal(*(explain(method, model, photos(), 4, LAST) for _ in range(2)))

    def test_a_batch_is_its_images_one_by_one(self, method: str, kind: str) -> None:
        model, images, targets = net(kind), photos(3), [0, 5, 9]
        alone = [explain(method, model, images[i : i + 1], targets[i], LAST) for i in range(3)]
        torch.testing.assert_close(explain(method, model, images, targets, LAST), torch.cat(alone))

    def test_targets_and_layers_matter(self, method: str, kind: str) -> None:
        model = net(kind)
        maps = explain(method, model, photos(), 4, LAST)
        assert not torch.allclose(maps, explain(method, model, photos(), 5, LAST))
        other = explain(method, model, photos(), 4, "layer2.0")
        assert torch.equal(maps, other) != METHODS[method].needs_layer

    def test_the_images_stay_as_they_were(self, method: str, kind: str) -> None:
        images = photos().requires_grad_()
        pixels = images.detach().clone()
        explain(method, net(kind), images, torch.tensor([1, 2, 3]), LAST)
        assert torch.equal(images, pixels)
        assert images.grad is None

    def test_a_training_net_is_explained_in_eval_mode(self, method: str, kind: str) -> None:
        maps = explain(method, net(kind), photos(), 1, LAST)
        assert torch.equal(explain(method, net(kind).train(), photos(), 1, LAST), maps)

    def test_constant_images(self, method: str, kind: str) -> None:
        assert explain(method, net(kind), torch.zeros(2, 3, 32, 32), 1, LAST).isfinite().all()

    def test_a_dead_net_has_maps_of_zeros(self, method: str, kind: str) -> None:
        model = net(kind)
        nn.init.zeros_(model.get_parameter("fc.weight"))
        assert explain(method, model, photos(), 1, LAST).count_nonzero() == 0

    def test_works_without_gradients_around_and_with_a_frozen_net(self, method: str, kind: str) -> None:
        model = net(kind).requires_grad_(False)
        with torch.no_grad():
            assert explain(method, model, photos(), 1, LAST).count_nonzero()

    def test_infinite_weights_are_reported(self, method: str, kind: str) -> None:
        model = net(kind)
        nn.init.constant_(model.get_parameter("fc.weight"), float("inf"))
        with pytest.raises(Refused, match=r"NaN or infinity.* Received 3 such maps of 3"):
            explain(method, model, photos(), 1, LAST)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("target", [0, 7])
class TestGradCam:
    """With global average pooling and a linear head, Grad-CAM at the last block is CAM (Zhou 2016) / (h w)."""

    def closed_form(self, model: nn.Module, images: Tensor, target: int) -> Tensor:
        with torch.no_grad():
            maps = last_maps(model, images)  # (N, 16, 8, 8)
            return torch.einsum("c,nchw->nhw", model.get_parameter("fc.weight")[target], maps)

    def test_is_the_closed_form_at_the_last_block(self, kind: str, target: int) -> None:
        model, images = net(kind), photos().double()
        maps = cam(model, Request(images.requires_grad_(), torch.tensor(target), LAST))
        torch.testing.assert_close(maps * 8 * 8, self.closed_form(model, images, target), rtol=1e-5, atol=1e-12)

    def test_sums_to_the_logit_without_its_bias(self, kind: str, target: int) -> None:
        model, images = net(kind), photos().double()
        maps = cam(model, Request(images.requires_grad_(), torch.tensor(target), LAST))
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
        torch.testing.assert_close(cam(model, Request(images.requires_grad_(), torch.tensor(target), "layer1")), wanted)


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


@pytest.mark.parametrize("kind", SPECS)
def test_saliency_is_the_largest_gradient_of_the_logit(kind: str) -> None:
    model, images, targets = net(kind), photos().double().requires_grad_(), torch.tensor([2, 0, 9])
    logits = model(images)
    (gradient,) = torch.autograd.grad(logits[torch.arange(3), targets].sum(), images)
    wanted = gradient.abs().amax(1).float()
    torch.testing.assert_close(explain("saliency", model, images, targets), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_is_and_leaves_the_net_as_it_was(method: str) -> None:
    assert "arXiv" in METHODS[method].source
    assert METHODS[method].title
    assert METHODS[method].reading.endswith(".")
    assert METHODS[method].blank.endswith(".")
    leaves_model_as_found(lambda model: explain(method, model, unchanged.images(), [1, 2, 3, 4], "layer2.1"))


def grey(model: nn.Module, request: Request) -> Tensor:
    return request.images.mean(1) * request.target[:, None, None] * torch.tensor(request.options["times"])


GREY = Method("Grey", "control", grey, True, False, "arXiv 0", "A test.", "All 0.", {"times": 1})


def test_a_new_method_is_one_line_and_says_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "grey", GREY)
    wanted = photos().mean(1) * torch.arange(3)[:, None, None]
    torch.testing.assert_close(explain("grey", net(), photos(), [0, 1, 2]), wanted)
    doubled = explain("grey", net(), photos(), [0, 1, 2], options={"times": 2})
    torch.testing.assert_close(doubled, 2 * wanted)
    with pytest.raises(Refused, match=r"option .* Received 'often'\. Choose times"):
        explain("grey", net(), photos(), 0, options={"often": 2})


def test_a_method_that_does_not_apply_says_why() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    reason = METHODS["grad-cam"].reason(flat)
    assert reason.endswith("this net has none.")
    with pytest.raises(Refused) as refused:
        explain("grad-cam", flat, photos(), 0, "1")
    assert str(refused.value) == reason
    assert explain("saliency", flat, photos(), 0).shape == (3, 32, 32)
    assert not any(method.reason(net()) for method in METHODS.values())


def test_one_scale_for_all_maps() -> None:
    assert common_scale([torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)]) == 3
    assert common_scale([torch.zeros(1, 2).numpy()]) == 1


def test_common_layers_are_blocks_or_else_stages() -> None:
    deeper = replace(SMALL, stages=(StageSpec(2, 8), StageSpec(2, 12, 2)))
    assert common_layers([net("residual"), net("plain")]) == ["layer1.0", "layer2.0", "layer3.0"]
    assert common_layers([net(), build(deeper, device="meta")]) == ["layer1", "layer2"]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "method": (lambda: explain("lime", net(), photos(), 0), r"Received 'lime'\. Choose .*saliency"),
    "no layer": (lambda: explain("grad-cam", net(), photos(), 0), r"Received ''\. Choose conv1, bn1, .*layer3"),
    "layer": (lambda: explain("grad-cam", net(), photos(), 0, "layer9"), r"Received 'layer9'\. Choose conv1"),
    "flat layer": (lambda: explain("grad-cam", net(), photos(), 0, "fc"), r"\(N, C, H, W\)\. Received 'fc'"),
    "too high": (lambda: explain("saliency", net(), photos(), 10), r"Received 10\. Choose 0 to 9"),
    "negative": (lambda: explain("saliency", net(), photos(), [0, -1, 2]), r"Received \[0, -1, 2\]\. Choose 0 to 9"),
    "too few": (lambda: explain("saliency", net(), photos(), [0, 1]), r"one for all or 3"),
    "fraction": (lambda: explain("saliency", net(), photos(), torch.tensor(0.5)), r"Choose 0 to 9"),
    "bytes": (lambda: explain("saliency", net(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 0), "torch.uint8"),
    "one image": (lambda: explain("saliency", net(), photos()[0], 0), r"Received torch.float32 \(3, 32, 32\)"),
    "k": (lambda: top_k(net(), photos(), 0), r"Received 0\. Choose 1"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_errors_say_the_rule_what_came_and_the_choices(call: str) -> None:
    run, message = REFUSED[call]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize("kind", SPECS)
def test_top_k_are_the_largest_probabilities_in_eval_mode(kind: str) -> None:
    model = net(kind)
    with torch.no_grad():
        probabilities = model(photos().double()).softmax(1)
    values, classes = top_k(model.train(), photos(), 3)
    order = probabilities.sort(1, descending=True)
    torch.testing.assert_close(values, order.values[:, :3])
    assert torch.equal(classes, order.indices[:, :3])


def test_top_k_of_a_net_with_few_classes_are_all_of_them() -> None:
    values, classes = top_k(build(replace(SMALL, classes=2)), photos(), 5)
    assert classes.shape == (3, 2)
    torch.testing.assert_close(values.sum(1), torch.ones(3))


def test_top_k_leaves_the_net_and_the_images_as_they_were() -> None:
    leaves_model_as_found(lambda model: top_k(model, unchanged.images()), backward=False)
    seen = photos()
    top_k(nn.Sequential(nn.ReLU(inplace=True), net().float()), seen)
    assert torch.equal(seen, photos())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("method", METHODS)
def test_images_follow_the_net_to_its_device(method: str) -> None:
    maps = explain(method, net().cuda(), photos(), [1, 2, 3], LAST)
    torch.testing.assert_close(maps.cpu(), explain(method, net(), photos(), [1, 2, 3], LAST), rtol=1e-3, atol=1e-5)
