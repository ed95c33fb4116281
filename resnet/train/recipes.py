"""How to train: the recipe of a run, and the named ones."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from resnet.errors import Refused


def _one_cycle(progress: float) -> float:
    """Linear up to 1 over the first quarter, linear down to 0 (Smith & Topin, arXiv 1708.07120)."""
    return progress / 0.25 if progress < 0.25 else (1 - progress) / 0.75


def _steps(progress: float) -> float:
    """The paper's schedule: a tenth after 1/2, a hundredth after 3/4 (He 2015, 4.2: 32k and 48k of 64k)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _cosine(progress: float) -> float:
    """Linear up to 1 over the first twentieth, half a cosine down to 0 (arXiv 1608.03983, 1706.02677)."""
    return progress / 0.05 if progress < 0.05 else (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2


def _constant(progress: float) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "one-cycle": _one_cycle,
    "steps": _steps,
    "cosine": _cosine,
    "constant": _constant,
}
OPTIMIZERS = {"sgd": 0.1, "adamw": 1e-3, "rmsprop": 1e-3}  # and a learning rate to begin with
AUGMENTATIONS = {  # fields, beside crops, flips and patches; 0 for none
    "randaugment": "RandAugment",
    "erasing": "random erasing",
    "mixup": "mixup",
    "cutmix": "CutMix",
}
PRECISIONS = ("auto", "fp32", "bf16")
SCALINGS = ("channel", "pixel")  # minus the mean colour, over its deviation; minus the mean image (He 2015, 4.2)
SMALLEST_ALPHA = 0.01  # below it PyTorch's Beta(alpha, alpha) draws 0.5 again and again
RANGES: dict[str, tuple[float, float]] = {  # lowest and highest value of a recipe's numbers
    "epochs": (1, 1000),
    "steps": (0, 10_000_000),
    "batch": (2, 4096),
    "seed": (0, 2**31),
    "lr": (1e-6, 10),
    "momentum": (0, 0.999),
    "weight_decay": (0, 1),
    "label_smoothing": (0, 0.9),
    "ema": (0, 0.9999),
    "clip": (0, 1000),
    "randaugment": (0, 10),
    "erasing": (0, 1),
    "mixup": (0, 10),
    "cutmix": (0, 10),
    "frozen": (0, 9),
    "body_lr": (0, 1),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
    "precision": PRECISIONS,
    "scaling": SCALINGS,
}


@dataclass(frozen=True)
class Recipe:
    """How to train. Refused where a value is out of range."""

    epochs: int = 5
    batch: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1  # the schedule's highest
    schedule: str = "one-cycle"
    momentum: float = 0.9  # of SGD and RMSprop
    nesterov: bool = True  # of SGD
    weight_decay: float = 5e-4  # AdamW's is decoupled from the gradient (arXiv 1711.05101)
    clip: float = 0.0  # gradients are scaled down to this L2 norm of all together; 0 for never (arXiv 1211.5063)
    augment: bool = True  # pad-4 crop and flip
    mask: bool = False  # blank a random patch in half of the images, so that deletion is nothing new (arXiv 2407.11910)
    randaugment: int = 0  # so many random operations of magnitude 9 on each image (arXiv 1909.13719)
    erasing: float = 0.0  # probability that a rectangle of an image gets the mean colour (arXiv 1708.04896)
    mixup: float = 0.0  # alpha: images and labels are mixed with others, by shares of Beta(alpha, alpha) (1710.09412)
    cutmix: float = 0.0  # alpha: a rectangle comes from another image (1905.04899); with mixup, one of them a step
    scaling: str = "channel"  # of the pixels
    label_smoothing: float = 0.0  # share of the target that all classes get (arXiv 1512.00567)
    ema: float = 0.0  # weights of this share from before at each step are tested and kept; 0 for the last ones
    flip_test: bool = False  # tests average the logits of each image and of its mirror image
    compile: bool = False  # torch.compile: half a minute or more to begin, then faster steps
    frozen: int = 0  # stages whose weights and norms stay as they are, from the stem, which counts as one
    body_lr: float = 1.0  # the share of the learning rate that all but the head get
    steps: int = 0  # in all, which may end within an epoch; 0 for whole epochs
    seed: int = 0
    precision: str = "auto"  # fp32, bf16, or bf16 where it is faster

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise Refused(f"{name} must be one of {', '.join(CHOICES[name])}.", repr(value))
            elif name in RANGES:
                _check_number(name, value, whole=field.type is int)
            elif not isinstance(value, bool):
                raise Refused(f"{name} must be true or false.", repr(value))
            if name in ("mixup", "cutmix") and 0 < value < SMALLEST_ALPHA:
                raise Refused(f"{name} must be 0, or {SMALLEST_ALPHA} or more.", repr(value))

    @property
    def augmentations(self) -> dict[str, float]:
        """The values of those AUGMENTATIONS that are asked for, by name."""
        return {name: value for name in AUGMENTATIONS if (value := getattr(self, name))}

    @property
    def still(self) -> bool:
        """Whether every step and every test sees an image as it is."""
        return not (self.augment or self.mask or self.flip_test or self.augmentations)

    def total_steps(self, per_epoch: int) -> int:
        """Optimiser steps in all."""
        return self.steps or self.epochs * per_epoch

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step out of `steps`; a one-cycle's first step is not 0."""
        return self.lr * SCHEDULES[self.schedule]((step + 0.5) / steps)


def _check_number(name: str, value: object, whole: bool) -> None:
    (low, high), kinds = RANGES[name], int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise Refused(f"{name} must be a {kind} from {low:,} to {high:,}.", repr(value))


RECIPES = {
    "minute": Recipe(epochs=3, batch=64, lr=0.2),
    "short": Recipe(),
    "fast": Recipe(epochs=30, lr=0.3, weight_decay=3e-4, ema=0.995, flip_test=True),
    "paper": Recipe(  # He 2015 (arXiv 1512.03385), 4.2
        epochs=165,
        steps=64_000,
        lr=0.1,
        schedule="steps",
        nesterov=False,
        weight_decay=1e-4,
        scaling="pixel",
    ),
}


class Setting(NamedTuple):
    """What a recipe is made for, where that is more than a net: net (a preset), training images, pixels a side."""

    net: str
    train_images: int
    image_size: int


SETTINGS = {"minute": Setting("ResNet-56", 10_000, 16)}
ORIGINAL = "original pixels"  # in the source of data that are no copy
_FREE = ("seed", "precision", "compile")  # change no more than chance does
_TOLD = {"epochs": "{} epochs", "weight_decay": "weight decay {}", "mask": "blanked patches"}  # after a recipe's name
_SWITCHES = {
    "clip": "clipped gradients",
    **AUGMENTATIONS,
    "mask": "blanked patches in training",
    "label_smoothing": "label smoothing",
    "ema": "averaged weights (EMA) in the test",
    "flip_test": "a flip test (each image and its mirror image)",
}


def recipe_name(recipe: Recipe) -> str:
    """The name in RECIPES, with what `_TOLD` tells where only that differs, "own" for any other.

    Seed, precision and compiling do not count.
    """
    for name, known in RECIPES.items():
        changes = _changes(recipe, known)
        if changes.keys() <= _TOLD.keys():
            told = [words.format(changes[field]) for field, words in _TOLD.items() if field in changes]
            return ", ".join([name, *told])
    return "own"


def differences(recipe: Recipe, source: str, whole: bool) -> list[str]:
    """Why a run's error may not be held against the paper's; `source` of its pixels, `whole` training set or a part."""
    changed = _changes(recipe, RECIPES["paper"])
    found = [words for name, words in _SWITCHES.items() if name in changed]
    if others := [f"{name} {value}" for name, value in changed.items() if name not in _SWITCHES]:
        found.append(f"another recipe ({', '.join(others)})")
    if ORIGINAL not in source:
        found.append(f"other pixels ({source or 'of unknown origin'})")
    return found if whole else [*found, "a part of the training images"]


def _changes(recipe: Recipe, known: Recipe) -> dict[str, Any]:
    """The fields in which a recipe differs, with its own values; where the steps are told, the epochs do not count."""
    free = {*_FREE, *(("epochs",) if recipe.steps == known.steps != 0 else ())}
    return {name: v for name, v in vars(recipe).items() if name not in free and v != getattr(known, name)}
