"""A run's records made small enough to draw: averages over equal bins of steps, whose number never exceeds a limit."""

import numpy as np
import pandas as pd

NORM_FLOOR = 1e-12  # a gradient of exactly 0 is drawn there


def bin_width(steps: int, limit: int) -> int:
    """The smallest power of two of steps per bin that gives at most `limit` bins, so that bins keep their borders."""
    width = 1
    while steps > width * limit:
        width *= 2
    return width


def _means(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over bins of `width` rows (n, ...) -> (ceil(n / width), ...); the last bin may be shorter."""
    starts = np.arange(0, len(values), width)
    counts = np.diff([*starts, len(values)]).reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(values.astype(np.float64), starts, axis=0) / counts


def curves(records: np.ndarray, limit: int = 300, steps: int = 0) -> pd.DataFrame:
    """step (the bin's last), loss, accuracy in %: training batches averaged by bin.

    `steps` is the length of the longest run beside this one, so that all of them get equal bins.
    """
    if not len(records):
        return pd.DataFrame({"step": [], "loss": [], "accuracy": []}, dtype=float)
    width = bin_width(max(steps, len(records)), limit)
    last = np.minimum(np.arange(width, len(records) + width, width), len(records)) - 1
    loss, accuracy = _means(records["loss"], width), 100 * _means(records["accuracy"], width)
    return pd.DataFrame({"step": records["step"][last], "loss": loss, "accuracy": accuracy})


def heat(records: np.ndarray, limit: int = 80, steps: int = 0) -> pd.DataFrame:
    """One row per bin and layer: step, step_end, depth (1 = first layer), norm (geometric mean of ||dL/dW||), log10.

    `steps` as in `curves`.
    """
    if not len(records):
        return pd.DataFrame({"step": [], "step_end": [], "depth": [], "norm": [], "log10": []}, dtype=float)
    width = bin_width(max(steps, len(records)), limit)
    values = _means(np.log10(np.maximum(records["norms"], NORM_FLOOR)), width)  # (bins, layers)
    bins, layers = values.shape
    start = records["step"][0] - 1 + width * np.arange(bins)
    end = np.minimum(start + width, records["step"][-1])
    log10 = values.ravel()
    return pd.DataFrame(
        {
            "step": np.repeat(start, layers),
            "step_end": np.repeat(end, layers),
            "depth": np.tile(np.arange(1, layers + 1), bins),
            "norm": 10**log10,
            "log10": log10,
        }
    )


def step_seconds(records: np.ndarray, window: int = 20) -> float:
    """Median seconds per step over the last `window` steps; nan before the first."""
    return float(np.median(records["seconds"][-window:])) if len(records) else float("nan")
