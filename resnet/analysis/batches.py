"""What a net is measured on where there are no images."""

from typing import Protocol

import torch
from torch import Tensor


class Shaped(Protocol):
    """What says which images a net reads, (C, *S), and how many classes it tells apart: a `NetSpec`, for instance."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> int: ...


def noise_batch(spec: Shaped, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian images (count, C, S, S), or clips (count, C, T, S, S), and random labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *spec.input_shape, generator=generator)
    return images, torch.randint(spec.classes, (count,), generator=generator)
