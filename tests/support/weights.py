"""Weights for tests: a tiny net, values that are all its own, files of torch.save."""

import io

import torch
from torch import Tensor, nn

from resnet.nets.spec import NetSpec, StageSpec

TINY = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=3, image_size=8)


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def random_tensors(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Values of the net's own shapes, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value + 7
        for name, value in model.state_dict().items()
    }


def same(model: nn.Module, tensors: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[name], value) for name, value in tensors.items())
