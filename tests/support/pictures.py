"""Data sets that the tests write: arrays, .npz files and folders of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def small(**changes: Any) -> dict[str, Any]:
    """The arrays of a valid .npz with 3 classes."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 3
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def save(path: Path, **changes: Any) -> str:
    np.savez(path, **small(**changes))
    return str(path)


def noise(path: Path, seed: int) -> None:
    """A picture of 24 to 47 x 20 to 39 pixels; the suffix says whether it is a JPEG or a PNG."""
    draw = np.random.default_rng(seed)
    height, width = draw.integers(24, 48), draw.integers(20, 40)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(path)


ZOO = ("cat", "dog", "owl")


def write_zoo(root: Path) -> Path:
    """A folder with 24 training and 9 test pictures of the classes of ZOO."""
    for part, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(ZOO):
            for number in range(count):
                suffix = ("jpg", "png")[number % 2]
                noise(root / part / name / f"{number}.{suffix}", 100 * (part == "val") + 10 * label + number)
    return root


def paint(path: Path, colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
