"""What a net is measured on: noise where there are no images, and how many images fit."""

import torch
from torch import Tensor

from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.spec import NetSpec

MOST = 256  # images


def noise_batch(spec: NetSpec, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian images (count, C, S, S), or clips (count, C, T, S, S), and random labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *spec.input_shape, generator=generator)
    return images, torch.randint(spec.classes, (count,), generator=generator)


def batch_limit(params: int, activations: int) -> int:
    """How many images of a net fit into WORK_BYTES, from its profile's params and activations (per image).

    Counted are float32 weights, their gradients and the copies that kernels reorder, and every layer's output, which
    is kept for the backward pass. Refused where not even two images fit, which batch norm needs.
    """
    weights, image = 4 * 3 * params, 4 * activations
    if weights + 2 * image > WORK_BYTES:
        needed = f"{(weights + 2 * image) / 1e9:,.1f} GB for two images"
        raise Refused("This net is too large to be run inside the app.", needed, f"up to {WORK_BYTES / 1e9:.0f} GB")
    return min(MOST, int((WORK_BYTES - weights) / image))
