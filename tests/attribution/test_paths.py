"""Averaged gradients and DeepLift: completeness, captum, and means by hand."""

from dataclasses import replace

import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients
from torch import Tensor, nn

from resnet.attribution.contract import Request
from resnet.attribution.methods import METHODS, explain
from resnet.attribution.paths import deep_lift
from resnet.nets.model import build
from resnet.seeds import generator
from tests.attribution.nets import NETS, REFUSED, SMALL, net, photos

LIFTED = [kind for kind in NETS if "deep-lift" not in REFUSED.get(kind, ())]
N = 5
TARGETS = torch.arange(N) % 10


def differences(model: nn.Module, against: int | None = None) -> Tensor:
    """logit(x) - logit(0) of the targets, (N,)."""
    with torch.no_grad():
        logits = model(photos(N).double()) - model(torch.zeros(1, 3, 32, 32).double())  # (N, 10)
    logits = logits if against is None else logits - logits[:, [against]]
    return logits.gather(1, TARGETS[:, None])[:, 0]


def errors(method: str, model: nn.Module, against: int | None = None, **options: int) -> Tensor:
    """What all pixels together miss of these differences, relative to them."""
    sums = explain(method, model, photos(N), TARGETS, options=options, against=against).double().sum((1, 2))
    wanted = differences(model, against)
    kept = wanted.abs() > 1e-6  # of a class against itself there is none
    return ((sums - wanted) / wanted)[kept].abs()


@pytest.mark.parametrize("kind", NETS)
class TestIntegratedGradients:
    def test_the_pixels_add_up_to_the_logit(self, kind: str) -> None:
        assert errors("integrated-gradients", net(kind), steps=100).median() < 0.05

    def test_captum(self, kind: str) -> None:
        model, x = net(kind), photos().double()
        for steps in (2, 7):
            found = IntegratedGradients(model).attribute(x, target=1, n_steps=steps, method="riemann_middle").sum(1)
            torch.testing.assert_close(
                explain("integrated-gradients", model, x, 1, options={"steps": steps}), found.float()
            )


@pytest.mark.parametrize("kind", LIFTED)
class TestDeepLift:
    def test_the_pixels_add_up_to_the_logit(self, kind: str) -> None:
        assert errors("deep-lift", net(kind)).max() < 1e-5
        assert errors("deep-lift", net(kind), against=3).max() < 1e-5

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_captum(self, kind: str) -> None:
        found = DeepLift(net(kind)).attribute(photos().double(), target=torch.tensor([1, 2, 3])).sum(1)
        torch.testing.assert_close(explain("deep-lift", net(kind), photos(), [1, 2, 3]), found.detach().float())


def incompleteness(model: nn.Module) -> float:
    """Of DeepLift, although it may be refused: what the pixels miss of the logits' differences, relative to these."""
    request = Request(photos(N).double(), TARGETS)
    wanted = differences(model)
    return float(
        ((deep_lift(model.requires_grad_(False), request).detach().sum((1, 2)) - wanted) / wanted).abs().median()
    )


class TestDeepLiftAtMaxPools:
    def net(self, *pooled: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), *pooled
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).double()

    @pytest.mark.parametrize(
        "pooled", [(nn.ReLU(), nn.MaxPool2d(4)), (nn.MaxPool2d(2), nn.ReLU()), (nn.MaxPool2d(3, 2, 1),)]
    )
    def test_is_refused_where_it_does_not_add_up(self, pooled: tuple[nn.Module, ...]) -> None:
        with torch.random.fork_rng([]):
            model = self.net(*pooled)
        assert "max-pool" in METHODS["deep-lift"].reason(model)
        assert incompleteness(model) > 1e-3

    def test_adds_up_where_windows_are_apart_and_no_activation_is_next_to_it(self) -> None:
        with torch.random.fork_rng([]):
            model = self.net(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
        assert METHODS["deep-lift"].reason(model) == ""
        assert incompleteness(model) < 1e-5

    def test_our_stems(self) -> None:
        pooling = build(replace(SMALL, block="preact-basic", stem="7x7"), seed=2).double().eval()
        assert "overlap" in METHODS["deep-lift"].reason(pooling)
        assert incompleteness(pooling) > 0.1


class TestExpectedGradients:
    def test_is_the_mean_over_samples_one_by_one(self) -> None:
        model, [x] = net("torchvision"), photos(1).double()
        draws = torch.randn(3, 3, 32, 32, generator=generator(2, 0)).double()
        shares = (torch.arange(3) + torch.rand(3, generator=generator(2, 1))) / 3
        wanted = torch.zeros(32, 32).double()
        for b, share in zip(draws, shares, strict=True):
            between = (b + share * (x - b)).requires_grad_()
            (gradient,) = torch.autograd.grad(model(between[None])[0, 1], between)
            wanted += ((x - b) * gradient).sum(0) / 3
        found = explain("expected-gradients", model, x[None], 1, options={"samples": 3, "seed": 2})
        torch.testing.assert_close(found[0], wanted.float())

    def test_of_a_linear_net_is_the_way_times_the_weights(self) -> None:
        head = nn.Linear(3 * 32 * 32, 10)
        model = nn.Sequential(nn.Flatten(), head).double()
        draws = torch.randn(6, 3, 32, 32, generator=generator(5, 0)).double()
        weights = head.weight[1].detach().view(3, 32, 32)
        wanted = ((photos().double() - draws.mean(0)) * weights).sum(1).float()
        found = explain("expected-gradients", model, photos(), 1, options={"samples": 6, "seed": 5})
        torch.testing.assert_close(found, wanted)

    def test_samples_lie_all_along_the_way(self) -> None:
        """Of the logit sum(x^2) / 2 the gradient at b + s (x - b) tells s."""

        class Squares(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1).pow(2).sum(1, keepdim=True) / 2

        found = explain("expected-gradients", Squares(), 100 * torch.ones(1, 1, 8, 8), 0, options={"samples": 50})
        torch.testing.assert_close(found.mean().item(), 100**2 / 2, rtol=0.02, atol=0)


def test_smooth_grad_is_the_mean_of_saliency_over_noisy_copies() -> None:
    model, images = net("torchvision"), photos(2)
    images[1] *= 3  # another spread, another noise
    noises = torch.randn(4, 3, 32, 32, generator=generator(9, 0))
    copies = [torch.stack([image + 0.2 * (image.max() - image.min()) * noise for image in images]) for noise in noises]
    wanted = torch.stack([explain("saliency", model, copy, [1, 2]) for copy in copies]).mean(0)
    options = {"samples": 4, "noise": 0.2, "seed": 9}
    torch.testing.assert_close(
        explain("smooth-grad", model, images, [1, 2], options=options), wanted, rtol=1e-4, atol=1e-7
    )
    still = explain("smooth-grad", model, images, 1, options={"noise": 0.0})
    torch.testing.assert_close(still, explain("saliency", model, images, 1))


@pytest.mark.parametrize("method", ["smooth-grad", "expected-gradients", "rise", "random"])
def test_another_seed_is_another_map(method: str) -> None:
    few = {"rise": {"masks": 5}, "random": {}}.get(method, {"samples": 3})
    first, second = (explain(method, net(), photos(1), 1, options={**few, "seed": seed}) for seed in (0, 1))
    assert not torch.allclose(first, second)
