"""Numbers of any range as bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**20  # numbers that are float64 at one time
GREY = 128


def finite_range(values: NDArray[Any]) -> tuple[Any, Any] | None:
    """The least and the largest finite value; None where there is none."""
    if values.dtype.kind != "f":
        return values.min().item(), values.max().item()
    finite = np.isfinite(values)
    low, high = values.min(initial=np.inf, where=finite), values.max(initial=-np.inf, where=finite)
    return (low.item(), high.item()) if low <= high else None


def to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low` becomes 0 and `high` 255, in proportion, rounded; NaN becomes 0. All is GREY where low == high."""
    out = np.full(values.shape, GREY, np.uint8)
    step = max(1, CHUNK // max(1, values[:1].size))
    for at in range(0, len(values) if high > low else 0, step):
        share = (values[at : at + step].astype(np.float64) - low) / (high - low)
        out[at : at + step] = (np.nan_to_num(share.clip(0, 1)) * 255).round()
    return out
