"""Noisy linear imputation: what is missing in a picture, guessed from what is around it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

NOISE = 0.01  # deviation of the noise, in units of the prepared image
TOLERANCE = 1e-3  # of what a solution lacks, relative to the blank picture
MOST_STEPS = 1000
TINY = 1e-30  # a system that is solved stays as it is


def imputed(images: Tensor, missing: Tensor, blank: Tensor, draws: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W) with their `missing` pixels (B, H, W) filled in, as ROAD does (arXiv 2202.00449).

    Each missing pixel is the weighted mean of its up to 8 neighbours, missing or not: a linear system, symmetric and
    positive definite, solved for all images at once; then noise from `draws`. Where a whole picture is missing it
    becomes `blank`.
    """
    hole = missing.unsqueeze(1).to(images)  # (B, 1, H, W)
    degree = _neighbours(torch.ones_like(images[:1, :1]))  # (1, 1, H, W): 1 inside, less at the edges

    def lacks(x: Tensor) -> Tensor:
        """Weighted sum of the neighbours minus the pixel times the sum of weights, where a pixel is missing."""
        return hole * (_neighbours(x) - degree * x)

    filled = _solved(torch.where(hole > 0, blank.to(images), images), lacks)
    if draws is not None:
        noise = torch.randn(images.shape, generator=draws, device=images.device, dtype=images.dtype)
        filled = filled + NOISE * hole * noise
    return filled


def _neighbours(x: Tensor) -> Tensor:
    """The weighted sum of each pixel's neighbours inside the picture, 1/6 beside and 1/12 across a corner.

    The pixel itself is in it at 1/3, which makes it two sums of 1, 2, 1: it cancels in what the pixel lacks.
    """
    x = F.pad(x, (1, 1, 1, 1))
    rows = x[:, :, :-2] + x[:, :, 2:] + 2 * x[:, :, 1:-1]
    return (rows[..., :-2] + rows[..., 2:] + 2 * rows[..., 1:-1]) / 12


def _solved(x: Tensor, lacks: Callable[[Tensor], Tensor]) -> Tensor:
    """x + v with lacks(x + v) = 0, by conjugate gradients; every channel of every image is a system of its own."""
    rest = lacks(x)
    direction, square = rest, _dot(rest, rest)
    rounding = 4 * torch.finfo(x.dtype).eps
    goal = torch.maximum(square * TOLERANCE**2, _dot(x, x) * rounding**2)
    for _ in range(MOST_STEPS):
        if bool((square <= goal).all()):
            break
        bent = -lacks(direction)  # the matrix times the direction, which is 0 where nothing is missing
        length = square / _dot(direction, bent).clamp_min(TINY)
        x, rest = x + length * direction, rest - length * bent
        before, square = square, _dot(rest, rest)
        direction = rest + square / before.clamp_min(TINY) * direction
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)  # (B, C, 1, 1)
