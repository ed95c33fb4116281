"""Gradients at many points, averaged: around the image, or on the way to it from a baseline. And DeepLift, in one step.

captum has these too, but gives nothing until the end and draws from the global random state. Every picture of a batch
gets the same random numbers, so that a batch is its images one by one.
"""

import warnings
from collections.abc import Iterator

import torch
from captum.attr import DeepLift
from torch import Tensor, nn

from resnet.attribution.batches import batched, count_of, gradients, mean, share_of
from resnet.attribution.contract import Method, Partial, Passes, Request
from resnet.attribution.gradient import NO_GRADIENT
from resnet.attribution.wiring import no_differences
from resnet.seeds import generator


def smooth_grad(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Mean saliency of noisy copies, sigma = noise x (max - min of the image) (Smilkov et al., arXiv 1706.03825)."""
    images, samples = request.images, count_of(request, "samples")
    noises = _noises(request, samples)
    flat = images.flatten(1)
    sigma = share_of(request, "noise") * (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (images.dim() - 1))

    def terms() -> Iterator[Tensor]:
        for batch in batched(samples, images):
            copies = images + sigma * noises[batch][:, None].to(images)  # (K, N, C, *S)
            yield gradients(model, copies, request.target).abs().amax(2)

    return mean(terms(), samples)


def integrated_gradients(model: nn.Module, request: Request) -> Iterator[Partial]:
    """x times the mean gradient on the straight way from 0, at the middles of equal steps (arXiv 1703.01365)."""
    images, steps = request.images, count_of(request, "steps")
    shares = (torch.arange(steps) + 0.5) / steps

    def terms() -> Iterator[Tensor]:
        for batch in batched(steps, images):
            copies = images * _each(shares[batch], images)  # (K, N, C, *S)
            yield (images * gradients(model, copies, request.target)).sum(2)

    return mean(terms(), steps)


def expected_gradients(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Mean of (x - b) dlogit/dx at random places between random baselines b and x (Erion et al., arXiv 1906.10670).

    Baselines are Gaussian noise with the mean and the spread that normalised pictures have.
    """
    images, samples = request.images, count_of(request, "samples")
    baselines, draw = _noises(request, samples), generator(_seed(request), 1)
    shares = (torch.arange(samples) + torch.rand(samples, generator=draw)) / samples  # one in each stratum

    def terms() -> Iterator[Tensor]:
        for batch in batched(samples, images):
            way = images - baselines[batch][:, None].to(images)  # (K, N, C, *S)
            copies = images - (1 - _each(shares[batch], images)) * way
            yield (way * gradients(model, copies, request.target)).sum(2)

    return mean(terms(), samples)


def deep_lift(model: nn.Module, request: Request) -> Tensor:
    """Each pixel's share of logit(x) - logit(0), by the rescale rule; (N, *S) (Shrikumar et al., arXiv 1704.02685)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\\s*Setting forward, backward hooks")  # that they will be removed
        return DeepLift(model).attribute(request.images.requires_grad_(), target=request.target).sum(1)


def _noises(request: Request, samples: int) -> Tensor:
    """Standard normal (samples, C, *S)."""
    return torch.randn(samples, *request.images.shape[1:], generator=generator(_seed(request), 0))


def _seed(request: Request) -> int:
    return count_of(request, "seed", least=0)


def _each(shares: Tensor, images: Tensor) -> Tensor:
    """Shares (K,) to multiply (N, C, *S) by."""
    return shares.to(images).view(-1, *[1] * images.dim())


SMOOTH_GRAD = Method(
    title="SmoothGrad",
    family="gradient",
    function=smooth_grad,
    signed=False,
    needs_layer=False,
    source="Smilkov et al. 2017, arXiv 1706.03825",
    reading="Saliency averaged over noisy copies of the picture: bright where the logit stays sensitive although the "
    "pixels shake. Less noisy than saliency, and read in the same way.",
    blank=NO_GRADIENT,
    options={"samples": 25, "noise": 0.15, "seed": 0},
    passes=lambda options, channels, dims=2: Passes(options["samples"], options["samples"]),
)
INTEGRATED_GRADIENTS = Method(
    title="Integrated gradients",
    family="gradient",
    function=integrated_gradients,
    signed=True,
    needs_layer=False,
    source="Sundararajan et al. 2017, arXiv 1703.01365",
    reading="Each pixel's share of the difference between this picture's logit and that of a picture of the mean "
    "colour; all shares add up to it. Pixels of the mean colour get 0 whatever they show.",
    blank="The logit is the same all the way from the picture of the mean colour, or every pixel has that colour.",
    options={"steps": 50},
    passes=lambda options, channels, dims=2: Passes(options["steps"], options["steps"]),
)
EXPECTED_GRADIENTS = Method(
    title="Expected gradients",
    family="gradient",
    function=expected_gradients,
    signed=True,
    needs_layer=False,
    source="Erion et al. 2019, arXiv 1906.10670",
    reading="Each pixel's share of the difference between this picture's logit and the mean logit of noise pictures; "
    "more samples, less noise. Unlike integrated gradients, no colour is left out.",
    blank="The logit is the same for this picture and for noise.",
    options={"samples": 50, "seed": 0},
    passes=lambda options, channels, dims=2: Passes(options["samples"], options["samples"]),
)
DEEP_LIFT = Method(
    title="DeepLift",
    family="propagation",
    function=deep_lift,
    signed=True,
    needs_layer=False,
    source="Shrikumar et al. 2017, arXiv 1704.02685",
    reading="Each pixel's share of the difference between this picture's logit and that of a picture of the mean "
    "colour, passed back layer by layer; all shares add up to it.",
    blank="The logit is the same as for the picture of the mean colour.",
    reason=no_differences,
    passes=lambda options, channels, dims=2: Passes(2, 2),
)
