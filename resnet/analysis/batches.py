"""What a net is measured on where there are no images."""

import torch
from torch import Tensor

from resnet.nets.spec import NetSpec


def noise_batch(spec: NetSpec, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian images (count, C, S, S), or clips (count, C, T, S, S), and random labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *spec.input_shape, generator=generator)
    return images, torch.randint(spec.classes, (count,), generator=generator)
