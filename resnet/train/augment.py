"""Augmentations by torchvision that a recipe adds to crops and flips: of single images, and of pairs with their labels.

What they draw comes from PyTorch's generator, which a step seeds.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from resnet.errors import Refused
from resnet.train.recipes import Recipe

COLOURS = (1, 3)  # channels of an image that RandAugment can change
# By the field of a recipe, from its value: of an image in uint8, of a normalised image, of a batch.
OF_PIXELS: dict[str, Callable[[int], v2.Transform]] = {"randaugment": v2.RandAugment}
OF_NUMBERS: dict[str, Callable[[float], v2.Transform]] = {"erasing": v2.RandomErasing}
OF_PAIRS: dict[str, Callable[..., v2.Transform]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


class Augment:
    """Those that the recipe asks for. Refused where the images have channels that one of them cannot change."""

    def __init__(self, recipe: Recipe, channels: int, classes: int) -> None:
        wanted: dict[str, Any] = recipe.augmentations
        if OF_PIXELS.keys() & wanted.keys() and channels not in COLOURS:
            raise Refused("RandAugment changes grey and coloured images.", f"{channels} channels", "1 or 3 channels")
        self.of_pixels = [make(wanted[name]) for name, make in OF_PIXELS.items() if name in wanted]
        self.of_numbers = [make(wanted[name]) for name, make in OF_NUMBERS.items() if name in wanted]
        pairs = [
            make(alpha=float(wanted[name]), num_classes=classes) for name, make in OF_PAIRS.items() if name in wanted
        ]
        self.of_pairs = v2.RandomChoice(pairs) if pairs else None  # one of them a step

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 (N, C, S, S), each image changed by itself."""
        return _each(self.of_pixels, images)

    def numbers(self, images: Tensor) -> Tensor:
        """Normalised (N, C, S, S), each image changed by itself: 0 is the mean colour."""
        return _each(self.of_numbers, images)

    def pairs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Each image mixed with the one before it: (N, C, S, S); labels (N,) become shares (N, classes) then."""
        return self.of_pairs(images, labels) if self.of_pairs else (images, labels)


def _each(transforms: list[v2.Transform], images: Tensor) -> Tensor:
    for transform in transforms:
        images = torch.stack([transform(image) for image in images])
    return images
