"""What a training wrote into its run's folder: the files' forms, and how they are read and cut.

info.json          what the worker learnt when it read the data: layers, class names, source, precision, hardware
steps.bin          one fixed-size record per step (appended; a torn last one is ignored)
epochs.jsonl       one line per epoch (likewise)
predictions.bin    per epoch the class and confidence of every test image (likewise)
test.npz           the test labels, and small pictures of some test images
epoch-0001.safetensors ...  weights after a few of the epochs
tests.json         what the final weights reached on other data
"""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet.train.figures import BY_LAYER, FIGURES, layer_count, record_type

VERSION = 2  # of the records' form
TEST_COLUMNS = {"epoch": int, "step": int, "test_loss": float, "test_accuracy": float}
CONFIDENCE = 255  # a stored confidence of 1
SAMPLES, SAMPLE_SIZE = 40, 64  # pictures kept, their pixels at most


@dataclass(frozen=True)
class Records:
    """The records in a run's folder; whatever is missing or damaged reads as nothing recorded."""

    path: Path

    def info(self) -> dict[str, Any]:
        """layers, class_names, source, mean, std, train_images, test_images, ...; {} before the data are read."""
        try:
            info = _parsed((self.path / "info.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return dict(info) if isinstance(info, dict) else {}

    def layers(self) -> list[str]:
        """Names of the weight layers whose gradient norms are recorded."""
        layers = self.info().get("layers")
        return [str(name) for name in layers] if isinstance(layers, list) else []

    def class_names(self) -> tuple[str, ...]:
        names = self.info().get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def record_type(self) -> np.dtype:
        return record_type(len(self.layers()))

    def steps(self) -> np.ndarray:
        """All whole step records, a structured array in step order; the columns are those of FIGURES."""
        kind = self.record_type()
        if not layer_count(kind):
            return np.empty(0, kind)  # without info.json nobody knows a record's size
        return _whole_rows(self.path / "steps.bin", kind)

    def epochs(self) -> pd.DataFrame:
        """One row per tested epoch: epoch, step, test_loss, test_accuracy."""
        try:
            lines = (self.path / "epochs.jsonl").read_bytes().splitlines()
        except OSError:
            lines = []
        rows = [row for line in lines if (row := _test_row(line))]
        return pd.DataFrame({name: np.array([row[name] for row in rows], kind) for name, kind in TEST_COLUMNS.items()})

    def step_of(self, epoch: int) -> int | None:
        """The step after which that epoch was tested, None where it was not."""
        tested = self.epochs()
        return next(map(int, tested.step[tested.epoch == epoch]), None)

    def prediction_type(self) -> np.dtype:
        """One epoch's: the number of images, and the smallest integers for the classes, come from info.json."""
        images, classes = self.info().get("test_images"), self.info().get("class_names")
        if not isinstance(images, int) or not isinstance(classes, list) or images < 1 or not classes:
            return np.dtype([])
        kind = np.min_scalar_type(len(classes) - 1).newbyteorder("<")
        return np.dtype([("epoch", "<i4"), ("predicted", kind, (images,)), ("confidence", "u1", (images,))])

    def predictions(self) -> np.ndarray:
        """One row per tested epoch: epoch, predicted (N,), confidence (N,) in 0..255."""
        kind = self.prediction_type()
        return _whole_rows(self.path / "predictions.bin", kind) if kind.itemsize else np.empty(0, kind)

    def test_set(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The test images' labels (N,), the rows (K,) of those with a picture, and these (K, S, S, C) uint8.

        All are empty where they are unknown.
        """
        try:
            with np.load(self.path / "test.npz", allow_pickle=False) as arrays:
                labels, pictures = arrays["labels"], arrays["images"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            labels, pictures = np.empty(0, np.int32), np.empty(0)
        rows = sample_rows(len(labels))
        if len(rows) != len(pictures):
            labels, rows, pictures = labels[:0], rows[:0], pictures[:0]
        return labels, rows, pictures

    def tests(self) -> list[dict[str, Any]]:
        """What the final weights reached on other data: data, source, notes, images, accuracy, loss, step."""
        try:
            tests = json.loads((self.path / "tests.json").read_text())
        except (OSError, ValueError, RecursionError):
            return []
        return [test for test in tests if isinstance(test, dict)] if isinstance(tests, list) else []

    def checkpoints(self) -> dict[int, Path]:
        """The weights kept after some of the epochs, by epoch."""
        found = {path.stem.removeprefix("epoch-"): path for path in self.path.glob("epoch-*.safetensors")}
        return {int(name): found[name] for name in sorted(found) if name.isdecimal()}

    def to_csv(self) -> str:
        """Every step, with the test figures on the step that they were taken at and columns for each layer."""
        records = self.steps()
        frame = pd.DataFrame({name: records[name] for name in FIGURES if name not in BY_LAYER})
        for name in BY_LAYER:
            columns = [f"{FIGURES[name].tag} {layer}" for layer in self.layers()]
            frame = frame.join(pd.DataFrame(records[name], columns=columns))
        return frame.merge(self.epochs(), on="step", how="left").to_csv(index=False)

    def cut_torn(self) -> tuple[int, int]:
        """Cut off records that a kill or a full disk tore; the last step and the last epoch of those that are left."""
        steps, tests = self.steps(), self.path / "epochs.jsonl"
        whole = int(np.argmin(np.append(steps["step"] == np.arange(1, len(steps) + 1), False)))  # a power cut leaves 0s
        _cut(self.path / "steps.bin", whole * steps.itemsize)
        _cut(tests, (tests.read_bytes() if tests.exists() else b"").rfind(b"\n") + 1)
        tested = min(len(self.epochs()), len(self.predictions()))
        _cut(self.path / "predictions.bin", tested * self.prediction_type().itemsize)  # written before the line
        lines = tests.read_bytes().splitlines(keepends=True) if tests.exists() else []
        _cut(tests, sum(map(len, lines[:tested])))
        return whole, tested


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """With a mean image it takes a millisecond, and a look asks for the layers again and again."""
    return json.loads(text)


def sample_rows(images: int) -> np.ndarray:
    """Of that many test images the rows of SAMPLES, spread over all: many data sets are sorted by class."""
    return np.linspace(0, images - 1, min(SAMPLES, images)).astype(int)


def _whole_rows(path: Path, kind: np.dtype) -> np.ndarray:
    try:
        return np.fromfile(path, kind, path.stat().st_size // kind.itemsize)
    except OSError:
        return np.empty(0, kind)


def _test_row(line: bytes) -> dict[str, float] | None:
    """A line of epochs.jsonl, None where a kill or a full disk tore it."""
    try:
        row = json.loads(line)
        return {name: kind(row[name]) for name, kind in TEST_COLUMNS.items()}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
