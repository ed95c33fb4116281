"""Images cut into a grid of square patches, which can be blanked: an augmentation, and a way to question a net."""

from collections.abc import Sequence

import torch
from torch import Tensor

GRID = 4  # patches along each side of an image


def patches_of(size: Sequence[int], grid: int = GRID, device: torch.device | None = None) -> Tensor:
    """The patch that each pixel of an image of this size is in, counted by rows: int64 (*size) from 0 on."""
    found = torch.zeros((), dtype=torch.int64, device=device)
    for length in size:
        found = found.unsqueeze(-1) * grid + torch.arange(length, device=device) * grid // length
    return found


def draw_patches(count: int, generator: torch.Generator) -> Tensor:
    """The patch to blank in each of `count` images: int64 (N,), for every other image GRID² or more, which is none.

    One patch of a 4 x 4 grid in half of the images, as the in-domain single deletion score wants (arXiv 2407.11910).
    """
    return torch.randint(0, 2 * GRID**2, (count,), generator=generator)


def blank(images: Tensor, patches: Tensor) -> Tensor:
    """Each image with 0, the mean colour once pixels are normalised, in one patch: (N, C, S, S) and int64 (N,)."""
    within = patches_of(images.shape[2:], device=images.device) == patches[:, None, None]
    return images.masked_fill(within[:, None], 0)
