"""Random maps, the control: what a measurement gives for a map that knows nothing of the net."""

import torch
from torch import Tensor

from resnet.seeds import generator, seed_of
from resnet.trust.contract import Case, Spread, Verdict

DRAWS = 5  # random maps of each image, as `Spread.of` expects


def random_maps(case: Case, draw: int, shape: torch.Size | None = None) -> Tensor:
    """Independent uniform values in [0, 1), by default in the shape of the case's maps, a function of seed and draw."""
    return torch.rand(shape or case.maps.shape, generator=generator(case.seed, draw)).to(case.maps.device)


def beats(value: float, random: Spread) -> Verdict:
    """Whether a value, of which more is better, can be told from what random maps get."""
    return "good" if value > random.high else "bad" if value < random.low else "unclear"


def device_generator(tensor: Tensor, *key: int) -> torch.Generator:
    """A generator on the device of the tensor."""
    return torch.Generator(tensor.device).manual_seed(seed_of(*key) % 2**63)
