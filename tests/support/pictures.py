"""Data sets that the tests write: arrays, .npz files and folders of pictures."""

import struct
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


P3_GAMMA = 2.2
P3_TO_XYZ = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])  # D50


def profile(space: bytes, curves: dict[bytes, float], to_xyz: np.ndarray | None = None) -> bytes:
    """An ICC profile (version 2.4) of a screen: a gamma for each curve, the primaries as columns of `to_xyz`."""
    tags = {name: b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(gamma * 256)) for name, gamma in curves.items()}
    tags |= {
        b"wtpt": _xyz(0.9642, 1, 0.8249),
        b"cprt": b"text\0\0\0\0me\0\0",
        b"desc": b"desc\0\0\0\0" + struct.pack(">I84x", 1),
    }
    if to_xyz is not None:
        tags |= {name + b"XYZ": _xyz(*column) for name, column in zip((b"r", b"g", b"b"), to_xyz.T, strict=True)}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return (head + _xyz(0.9642, 1, 0.8249)[8:]).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


P3 = profile(b"RGB ", {b"rTRC": P3_GAMMA, b"gTRC": P3_GAMMA, b"bTRC": P3_GAMMA}, P3_TO_XYZ)  # as phones' photos
