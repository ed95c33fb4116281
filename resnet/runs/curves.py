"""A run's records made small enough to draw: averages over equal bins of steps, and tables of its predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from resnet.train.figures import BY_LAYER, SCALARS, layer_count

FLOOR = 1e-12  # a gradient or an update of exactly 0 is drawn there
BINS = 512  # kept of each run
RECENT = 20  # steps whose time is kept
CHUNK = 4096  # records read at once


def bin_width(steps: int, limit: int) -> int:
    """The smallest power of two of steps per bin that gives at most `limit` bins, so that bins keep their borders."""
    width = 1
    while steps > width * limit:
        width *= 2
    return width


def _sums(values: np.ndarray, width: int, first: int = 0) -> np.ndarray:
    """Sums (bins, columns) of rows (n, columns) by bins of `width`; the first row is number `first` of its run."""
    number = (first + np.arange(len(values))) // width
    return np.add.reduceat(values, np.flatnonzero(np.diff(number, prepend=-1)), axis=0)


@dataclass(frozen=True)
class Digest:
    """What the views need of a run's steps; each record is read once, however long the run goes on.

    count: steps; sums: (bins, columns), of the bins of `width` steps: SCALARS, then the logarithms of each layer's
    BY_LAYER; batches: (count,) CRC-32 of each batch; seconds: of the last steps.
    """

    layers: int = 0
    count: int = 0
    width: int = 1
    sums: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    batches: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))
    seconds: np.ndarray = field(default_factory=lambda: np.empty(0))

    def grown(self, records: np.ndarray) -> "Digest":
        """With these records, which follow its own."""
        if not len(records):
            return self
        layers, count = layer_count(records.dtype), self.count + len(records)
        width = bin_width(count, BINS)
        with np.errstate(invalid="ignore"):
            logs = [np.log10(np.maximum(records[name], FLOOR)) for name in BY_LAYER]
        values = np.column_stack([*(records[name] for name in SCALARS), *logs]).astype(np.float64)
        new, old = _sums(values, width, self.count), self.sums
        if self.count:
            old = _sums(old, width // self.width)
            if self.count % width:  # its last bin goes on
                new[0] += old[-1]
                old = old[:-1]
            new = np.concatenate([old, new])
        batches = np.concatenate([self.batches, records["batch"]])
        seconds = np.concatenate([self.seconds, records["seconds"]])[-RECENT:]
        return Digest(layers, count, width, new, batches, seconds)

    @property
    def step_seconds(self) -> float:
        """Median seconds of the last steps; nan before the first."""
        return float(np.median(self.seconds)) if len(self.seconds) else float("nan")

    def mean(self, name: str, width: int) -> np.ndarray:
        """(bins, 1 or layers) of a figure, over bins of `width` steps, a multiple of its own; the last may be shorter.

        There is at least one step. Means of a figure of BY_LAYER are those of its logarithm.
        """
        wide = [1] * len(SCALARS) + [self.layers] * len(BY_LAYER)
        place = (*SCALARS, *BY_LAYER).index(name)
        first = sum(wide[:place])
        sums = _sums(self.sums[:, first : first + wide[place]], width // self.width)
        starts = width * np.arange(len(sums))
        return sums / np.minimum(width, self.count - starts)[:, None]

    def ends(self, width: int) -> np.ndarray:
        """The last step of each bin, from 1."""
        return np.minimum(np.arange(width, self.count + width, width), self.count)


def follow(digest: Digest, path: Path, kind: np.dtype) -> Digest:
    """`digest` with the whole records that `path` has gained; from the beginning where the file became shorter."""
    layers = layer_count(kind)
    try:
        whole = path.stat().st_size // kind.itemsize if layers else 0
    except OSError:
        whole = 0
    if whole < digest.count or layers != digest.layers:
        digest = Digest(layers)
    while digest.count < whole:
        size = min(CHUNK, whole - digest.count)
        records = np.fromfile(path, kind, size, offset=digest.count * kind.itemsize)
        if not len(records):
            break  # it was cut in the meantime
        digest = digest.grown(records)
    return digest


def curves(digest: Digest, limit: int = 300, steps: int = 0) -> pd.DataFrame:
    """step (the bin's last), loss, accuracy in %, lr: training batches averaged by bin, `limit` bins (<= BINS) at most.

    `steps` is the length of the longest run beside this one, so that all of them get equal bins.
    """
    if not digest.count:
        return pd.DataFrame(columns=["step", *SCALARS], dtype=float)
    width = bin_width(max(steps, digest.count), limit)
    frame = pd.DataFrame({"step": digest.ends(width)} | {name: digest.mean(name, width)[:, 0] for name in SCALARS})
    return frame.assign(accuracy=100 * frame.accuracy)


def race_curves(digests: Mapping[str, Digest], tests: Mapping[str, pd.DataFrame], limit: int = 300) -> pd.DataFrame:
    """step, loss, accuracy and test_accuracy in %, net: the `curves` of nets of one race by name, in equal bins.

    The tests after epochs (`Records.epochs`), by the same names, have rows of their own.
    """
    longest, parts = max(digest.count for digest in digests.values()), []
    for name, digest in digests.items():
        tested = pd.DataFrame(
            {"step": tests[name].step, "test_accuracy": 100 * tests[name].test_accuracy.astype(float)}
        )
        parts.append(pd.concat([curves(digest, limit, longest), tested], ignore_index=True).assign(net=name))
    narrow = {"step": "int32", "loss": "float32", "accuracy": "float32", "test_accuracy": "float32", "net": "category"}
    return pd.concat(parts, ignore_index=True).reindex(columns=list(narrow)).astype(narrow)


@dataclass(frozen=True)
class Strip:
    """Log10 of a figure by layer over bins of steps: log10 (layers, bins), borders (bins + 1,) in steps from 0."""

    borders: np.ndarray
    log10: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        return self.borders[1:]


def strip(digest: Digest, quantity: str = "norms", limit: int = 80, steps: int = 0) -> Strip:
    """Mean logarithm of a quantity of BY_LAYER, `limit` bins (<= BINS) at most; `steps` as in `curves`."""
    if not digest.count:
        return Strip(np.zeros(1), np.empty((digest.layers, 0)))
    width = bin_width(max(steps, digest.count), limit)
    return Strip(np.concatenate([[0], digest.ends(width)]), digest.mean(quantity, width).T)


def heat(strip: Strip, names: Sequence[str]) -> pd.DataFrame:
    """One row per bin and layer: step, step_end, depth (1 = first layer), layer, norm (geometric mean), log10."""
    layers, bins = strip.log10.shape
    log10, steps = strip.log10.T.ravel().astype(np.float32), strip.borders.astype(np.int32)
    return pd.DataFrame(  # narrow columns, and each name once: all viewers get it each second
        {
            "step": np.repeat(steps[:-1], layers),
            "step_end": np.repeat(steps[1:], layers),
            "depth": np.tile(np.arange(1, layers + 1, dtype=np.int16), bins),
            "layer": pd.Categorical(np.tile(np.array(names, object), bins)),
            "norm": 10**log10,
            "log10": log10,
        }
    )


def robust_limits(parts: Sequence[np.ndarray]) -> tuple[int, int]:
    """Whole decades around the 1st to 99th percentile of all finite log10 values of the parts; (0, 1) without any.

    Those at FLOOR, as of a frozen layer, do not count.
    """
    values = np.concatenate([np.empty(0), *(part.ravel() for part in parts)])
    values = values[np.isfinite(values) & ~np.isclose(values, np.log10(FLOOR))]
    if not len(values):
        return 0, 1
    low, high = (
        int(edge(share)) for edge, share in zip((np.floor, np.ceil), np.quantile(values, (0.01, 0.99)), strict=True)
    )
    return low, max(high, low + 1)


def same_batches(digests: Sequence[Digest]) -> tuple[int, int | None]:
    """The last step that all runs have, and the first step up to it at which a batch differs, None without one."""
    common = min((digest.count for digest in digests), default=0)
    rows = np.array([digest.batches[:common] for digest in digests])
    different = np.flatnonzero((rows != rows[:1]).any(axis=0))
    return common, int(different[0]) + 1 if len(different) else None


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) of test images by true class (row) and predicted class (column)."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def hardest(shares: np.ndarray, count: int) -> np.ndarray:
    """The classes with the lowest accuracy, lowest first, `count` at most; those without images come last."""
    return np.argsort(np.nan_to_num(shares, nan=2.0), kind="stable")[:count]


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of each true class that is predicted right, nan for a class without images."""
    images = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), images, out=np.full(len(matrix), math.nan), where=images > 0)
