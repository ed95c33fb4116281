"""Random numbers as functions of a key: the same key gives the same numbers, on every machine."""

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """A seed of 64 bits for what `key` names."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*key))
