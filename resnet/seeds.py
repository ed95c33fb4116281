"""Random numbers as functions of a key: the same key gives the same numbers, on every machine."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What is drawn: the second part of a key, after the recipe's seed. The values are part of every recorded run."""

    ORDER = 0  # of the training images: then the epoch
    CROPS = 1  # and flips of a batch: then the step
    STEP = 2  # what a step draws, for augmentations and stochastic depth: then the step and the process
    PICTURES = 3  # crop and flip of one streamed picture: then the epoch and its index
    PATCHES = 4  # blanked in a batch: then the step


def seed_of(*key: int) -> int:
    """A seed of 64 bits for what `key` names: a seed, a Stream, and where in that stream."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(*key: int) -> torch.Generator:
    """PyTorch's generator on the CPU, at its first number for `key`."""
    return torch.Generator().manual_seed(seed_of(*key))
