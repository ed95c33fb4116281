"""What hiding parts of the picture does to the logit. Hidden means 0: the mean colour of normalised pictures."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.attribution.batches import batched, count_of, scores, share_of
from resnet.attribution.contract import Method, Partial, Passes, Request
from resnet.seeds import generator


def occlusion(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Mean logit that is lost to the windows over a pixel, (N, *S) (Zeiler and Fergus, arXiv 1311.2901).

    Windows of `window` of the picture's sides move by `stride` of it; the last ones reach over the edge.
    """
    images, target = request.images, request.target
    places = [_places(side, *_sizes(request, side)) for side in images.shape[2:]]
    windows = list(itertools.product(*places))
    whole = scores(model, images[None], target)[0]  # (N,)
    lost, seen, done = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0]), 0
    for batch in batched(len(windows), images):
        copies = images.repeat(len(batch), *[1] * images.dim()).view(len(batch), *images.shape)
        for copy, number in zip(copies, batch, strict=True):
            copy[:, :, *windows[number]] = 0
        for number, drop in zip(batch, whole - scores(model, copies, target), strict=True):
            lost[:, *windows[number]] += drop.view(-1, *[1] * seen.dim())
            seen[windows[number]] += 1
        done += len(batch)
        yield Partial(lost / seen.clamp(min=1), done / len(windows))


def _sizes(request: Request, side: int) -> tuple[int, int]:
    """Window and stride in pixels."""
    window, stride = (max(1, round(share_of(request, name, 1e-3) * side)) for name in ("window", "stride"))
    return window, min(stride, window)  # no pixel is left out


def _places(side: int, window: int, stride: int) -> list[slice]:
    count = math.ceil((side - window) / stride) + 1
    return [slice(i * stride, i * stride + window) for i in range(count)]


def rise(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Mean logit where the pixel is seen, minus the mean over all masks; (N, *S) (Petsiuk et al., arXiv 1806.07421).

    Masks are grids of `cells` a side, each cell seen with chance `visible`, drawn linearly at a random offset. The
    paper's map is the mean where the pixel is seen alone; without the other mean a pixel that does not matter is 0.
    """
    images, target, count = request.images, request.target, count_of(request, "masks")
    grids, offsets = _grids(request, count)
    whole = scores(model, images[None], target)  # (1, N), only so that equal logits give exactly 0
    sums = torch.zeros_like(images[:, 0])  # (N, *S) of logit x mask
    seen, total, done = torch.zeros_like(images[0, 0]), images.new_zeros(len(images)), 0
    for batch in batched(count, images):
        masks = _masks(grids[batch], offsets[batch], images)  # (K, *S)
        found = scores(model, images * masks[:, None, None], target) - whole  # (K, N)
        sums += torch.einsum("kn,k...->n...", found, masks)
        seen, total, done = seen + masks.sum(0), total + found.sum(0), done + len(batch)
        overall = (total / done).view(-1, *[1] * seen.dim())
        yield Partial(torch.where(seen > 0, sums / seen.clamp(min=1e-6) - overall, 0), done / count)


def _grids(request: Request, count: int) -> tuple[Tensor, Tensor]:
    """Of `count` masks: the cells that are seen (count, cells + 1, ...), and offsets in cells, 0 to 1 (count, dims)."""
    dims, cells = request.images.dim() - 2, count_of(request, "cells")
    draw = generator(count_of(request, "seed", least=0))
    grids = torch.rand(count, *[cells + 1] * dims, generator=draw) < share_of(request, "visible")
    return grids.float(), torch.rand(count, dims, generator=draw)


def _masks(grids: Tensor, offsets: Tensor, images: Tensor) -> Tensor:
    """Grids drawn linearly, a cell larger than the picture, and cut at their offsets: (K, *S)."""
    sides = images.shape[2:]
    cell = [math.ceil(side / (size - 1)) for side, size in zip(sides, grids.shape[1:], strict=True)]
    sizes = [step * size for step, size in zip(cell, grids.shape[1:], strict=True)]
    large = F.interpolate(grids[:, None].to(images), sizes, mode="bilinear" if len(sides) == 2 else "trilinear")[:, 0]
    starts = (offsets * torch.tensor(cell)).long().tolist()
    return torch.stack(
        [
            one[tuple(slice(first, first + side) for first, side in zip(start, sides, strict=True))]
            for one, start in zip(large, starts, strict=True)
        ]
    )


def _windows(options: Mapping[str, Any], channels: int, dims: int = 2) -> Passes:
    side = math.ceil((1 - options["window"]) / options["stride"]) + 1
    return Passes(1 + side**dims)


OCCLUSION = Method(
    title="Occlusion",
    family="perturbation",
    function=occlusion,
    signed=True,
    needs_layer=False,
    source="Zeiler and Fergus 2013, arXiv 1311.2901",
    reading="By how much the logit falls when a window around the pixel is painted in the mean colour; negative where "
    "it rises. Parts that stand in for each other look unimportant, and the window's own edges can mislead the net.",
    blank="No window changes the logit.",
    options={"window": 0.2, "stride": 0.1},
    passes=_windows,
)
RISE = Method(
    title="RISE",
    family="perturbation",
    function=rise,
    signed=True,
    needs_layer=False,
    source="Petsiuk et al. 2018, arXiv 1806.07421",
    reading="How much higher the logit is when the pixel is seen than on average, over many random masks. Few masks "
    "leave blotches of chance.",
    blank="No mask changes the logit.",
    options={"masks": 1000, "cells": 7, "visible": 0.5, "seed": 0},
    passes=lambda options, channels, dims=2: Passes(1 + options["masks"]),
)
