"""Copies of images, perturbed or sampled, in batches of bounded memory; and means over them that get finer."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from resnet.attribution.contract import Partial, Request
from resnet.errors import Refused

PIXELS = 8 * 224 * 224  # of a batch
MOST = 256  # copies in a batch, however small


def at_once(pixels: int) -> int:
    """How many copies of images with so many pixels in all run as one batch."""
    return min(MOST, max(1, PIXELS // pixels))


def batched(count: int, images: Tensor) -> Iterator[list[int]]:
    """The numbers below `count` in batches, each spread over all of them, so that the first shows the whole roughly."""
    batches = math.ceil(count / at_once(len(images) * math.prod(images.shape[2:])))
    yield from (list(range(first, count, batches)) for first in range(batches))


def count_of(request: Request, name: str, least: int = 1) -> int:
    """The option `name` as a whole number; Refused where it is none or below `least`."""
    value = request.options[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Refused(f"The option {name} is a whole number.", repr(value), f"{least} or more")
    return value


def share_of(request: Request, name: str, least: float = 0.0) -> float:
    """The option `name` as a number between `least` and 1; Refused where it is none."""
    value = request.options[name]
    if not isinstance(value, int | float) or not least <= value <= 1:
        raise Refused(f"The option {name} is a share.", repr(value), f"a number from {least:g} to 1")
    return float(value)


@torch.no_grad()
def scores(model: nn.Module, copies: Tensor, target: Tensor) -> Tensor:
    """The targets' logits (K, N) of K copies of the images, (K, N, C, *S)."""
    logits = model(copies.flatten(0, 1))  # (K N, classes)
    return logits.gather(1, target.repeat(len(copies))[:, None]).view(copies.shape[:2])


def gradients(model: nn.Module, copies: Tensor, target: Tensor) -> Tensor:
    """The targets' dlogit/dx (K, N, C, *S) at K copies of the images."""
    x = copies.detach().requires_grad_()
    logits = model(x.flatten(0, 1))  # (K N, classes)
    return torch.autograd.grad(logits.gather(1, target.repeat(len(copies))[:, None]).sum(), x)[0]


def mean(terms: Iterator[Tensor], count: int) -> Iterator[Partial]:
    """Means over the `count` samples, which come as batches (K, N, *S): a Partial after each."""
    total, done = torch.zeros(()), 0
    for each in terms:
        total, done = total.to(each) + each.sum(0), done + len(each)
        yield Partial(total / done, done / count)
