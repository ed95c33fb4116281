"""What a net makes of a picture, and what it finds alike: activations, kernels, nearest neighbours."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.outputs import tap
from resnet.errors import Refused
from resnet.nets.borrow import borrowed
from resnet.nets.model import weight_layers


@torch.no_grad()
def activations(model: nn.Module, image: Tensor, layer: str, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The strongest channels of a layer's output for one image (C, *S): their numbers (k,) and maps (k, *s).

    The strongest has the largest L2 norm and comes first; k is `count`, or all channels where there are fewer.
    Refused where the output is no maps.
    """
    with borrowed(model):
        held = tap(model, [layer])
        model(image[None].to(next(model.parameters())))
    maps = _maps(held[layer], layer)[0]  # (C, *s)
    norms = torch.linalg.vector_norm(maps.flatten(1), dim=1)
    strongest = norms.argsort(descending=True, stable=True)[:count]
    return strongest.cpu().numpy(), maps[strongest].cpu().numpy()


@torch.no_grad()
def kernels(model: nn.Module) -> np.ndarray:
    """The first convolution's kernels (n, C, kh, kw) from 0 to 1, all on one scale: 0.5 is a weight of 0.

    Refused where the first layer is no convolution.
    """
    first = next(iter(weight_layers(model).values()), None)
    if first is None or isinstance(first, nn.Linear):
        raise Refused("Only a convolution has kernels to show, and this net's first layer is none.")
    weight = first.get_parameter("weight").detach().float().cpu()
    return (0.5 + weight / (2 * weight.abs().max()).clamp_min(torch.finfo(weight.dtype).tiny)).numpy()


@torch.no_grad()
def pooled(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """A layer's output, averaged over places, for images (N, C, *S): features (N, channels) on the CPU."""
    with borrowed(model):
        held = tap(model, [layer])
        model(images.to(next(model.parameters())))
    return _maps(held[layer], layer).flatten(2).mean(2).cpu()


def _maps(output: Tensor, layer: str) -> Tensor:
    if output.dim() < 4:
        raise Refused(f"The output of {layer} is no maps.", tuple(output.shape), "a stage or a block")
    return output


def neighbours(query: Tensor, features: Tensor, count: int = 8) -> pd.DataFrame:
    """The rows of features (N, D) that are most like a query (D,), the nearest first: index, cosine."""
    cosine = F.cosine_similarity(features, query[None])
    nearest = cosine.argsort(descending=True, stable=True)[:count]
    return pd.DataFrame({"index": nearest.numpy(), "cosine": cosine[nearest].numpy()})
