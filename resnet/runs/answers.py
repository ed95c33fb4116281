"""What a run's net answered for its test images after an epoch."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from resnet.runs.curves import confusion
from resnet.runs.records import CONFIDENCE
from resnet.runs.store import Run


@dataclass(frozen=True, eq=False)
class Answers:
    """labels, predicted, confidence (N,) of the test images, and pictures (K, S, S, C) of those in `rows` (K,)."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    rows: np.ndarray
    pictures: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @cached_property
    def matrix(self) -> np.ndarray:
        """The confusion matrix (classes, classes): a row is a true class, a column an answer."""
        return confusion(self.labels, self.predicted, len(self.class_names))

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels

    def same_tests(self, other: "Answers") -> bool:
        return np.array_equal(self.labels, other.labels) and np.array_equal(self.pictures, other.pictures)


def answers(run: Run, epoch: int | None) -> Answers | None:
    """None where the run kept no predictions at the epoch, or some that its labels do not fit."""
    kept = run.predictions()
    if epoch is None or not kept.dtype.names or not len(found := kept[kept["epoch"] == epoch]):
        return None
    labels, rows, pictures = run.test_set()
    class_names = run.class_names()
    predicted, confidence = found["predicted"][0].astype(np.int64), found["confidence"][0] / CONFIDENCE
    if len(labels) != len(predicted) or max(labels.max(), predicted.max()) >= len(class_names) or labels.min() < 0:
        return None
    return Answers(class_names, labels, rows, pictures, predicted, confidence)
