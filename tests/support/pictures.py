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


def paint(path: Path, colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
