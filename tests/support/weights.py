"""Weights for tests: a tiny net, values that are all its own, files of torch.save."""

import io
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from resnet.nets.spec import NetSpec, StageSpec

TINY = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=3, image_size=8)
Maker = Callable[[dict[str, Tensor]], object]  # a file's content from a state_dict


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


def net(seed: int = 1, **options: object) -> nn.Module:
    """torchvision's ResNet-18 with values all its own, also in the norms."""
    model = torchvision.models.resnet18(**options)
    model.load_state_dict(random_tensors(model, seed))
    for name, value in model.named_parameters():
        value.data -= 1 if "conv" in name or "downsample.0" in name else 0  # or the activations overflow
    return model.eval()


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def without_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}
