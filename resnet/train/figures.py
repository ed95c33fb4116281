"""What is recorded of every optimiser step: the one table that steps.bin, its readers, charts and menus derive from."""

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One figure of a step.

    dtype: in steps.bin; measured: computed by the step on its device; per_layer: a value for each weight layer, drawn
    by its logarithm; tag: TensorBoard's, and in front of a layer's name in tables; only figures with one are drawn.
    label, meaning, title: in a menu, in a sentence, at a colour scale.
    """

    dtype: str = "<f4"
    measured: bool = False
    per_layer: bool = False
    tag: str = ""
    label: str = ""
    meaning: str = ""
    title: str = ""


# In the order of their columns in steps.bin: recorded runs are read by it.
FIGURES = {
    "step": Figure("<i4"),  # from 1
    "loss": Figure(measured=True, tag="train/loss"),  # mean cross-entropy of the batch, in train mode
    "accuracy": Figure(measured=True, tag="train/accuracy"),  # of the batch, in 0..1
    "lr": Figure(tag="train/lr"),
    "seconds": Figure(),
    "batch": Figure("<u4"),  # a CRC-32 of the images, crops and flips: a function of (seed, data, batch size, step)
    "norms": Figure(  # L2 norm of each dL/dW
        measured=True,
        per_layer=True,
        tag="grad_norm",
        label="gradient norms",
        meaning="norm of dL/dW",
        title="||dL/dW||",
    ),
    "updates": Figure(  # L2 norm of the step's change of each W over that of W
        measured=True,
        per_layer=True,
        tag="update_to_weight",
        label="update-to-weight ratios",
        meaning="update-to-weight ratio",
        title="||change of W|| / ||W||",
    ),
}
MEASURED = tuple(name for name, figure in FIGURES.items() if figure.measured)
SCALARS = tuple(name for name, figure in FIGURES.items() if figure.tag and not figure.per_layer)  # drawn as curves
BY_LAYER = tuple(name for name, figure in FIGURES.items() if figure.per_layer)


@cache
def record_type(layers: int) -> np.dtype:
    """A step in steps.bin, for a net of that many weight layers."""
    return np.dtype([(name, figure.dtype, _shape(name, layers)) for name, figure in FIGURES.items()])


@cache
def measured_type(layers: int) -> np.dtype:
    """What a step computes, float32: `skipped`, 1 where it was not taken, and the MEASURED figures."""
    return np.dtype([("skipped", np.float32), *((name, np.float32, _shape(name, layers)) for name in MEASURED)])


def _shape(name: str, layers: int) -> tuple[int, ...]:
    return (layers,) if FIGURES[name].per_layer else ()


def layer_count(kind: np.dtype) -> int:
    """The number of weight layers in a `record_type`."""
    return kind[BY_LAYER[0]].shape[0]
