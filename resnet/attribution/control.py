"""A map that knows nothing of the net: what cannot beat it explains nothing."""

import hashlib

import torch
from torch import Tensor, nn

from resnet.attribution.batches import count_of
from resnet.attribution.contract import Method, Passes, Request
from resnet.seeds import generator


def random(model: nn.Module, request: Request) -> Tensor:
    """Uniform noise 0..1, (N, *S), a function of the image's values and the seed."""
    seed = count_of(request, "seed", least=0)
    return torch.stack([_noise(image, seed) for image in request.images])


def _noise(image: Tensor, seed: int) -> Tensor:
    digest = hashlib.sha256(image.float().cpu().contiguous().numpy().tobytes()).digest()
    draw = generator(seed, int.from_bytes(digest[:8], "little"))
    return torch.rand(image.shape[1:], generator=draw).to(image)


RANDOM = Method(
    title="Random",
    family="control",
    function=random,
    signed=False,
    needs_layer=False,
    source="As the control of Hooker et al. 2018, arXiv 1806.10758",
    reading="Noise that knows nothing of the net or the class. A method that does not beat it in a test has not "
    "explained anything there.",
    blank="This cannot be.",
    options={"seed": 0},
    passes=lambda options, channels, dims=2: Passes(0),
)
