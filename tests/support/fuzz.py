"""Damaged files by the thousand: each gives an answer or one sentence, and takes a bounded amount of memory.

python -m tests.support.fuzz --photos 2000 --npz 500 --weights 250
"""

import argparse
import io
import random
import resource
import struct
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
import safetensors.torch
import torch
from PIL import Image

from resnet.data.npz import read_npz
from resnet.data.photos import open_photo
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec
from resnet.zoo.fitting import fit
from resnet.zoo.weights import read
from tests.support.pictures import small

NET = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=3, image_size=8)
MOST_MB = {"photos": 1500, "npz": 500, "weights": 500}  # more than this process held before
EXTREMES = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000]


class Result(NamedTuple):
    """Of one kind of file: how many were read and refused, the seeds that did neither, the memory taken on the way."""

    read: int
    refused: int
    broken: list[int]
    megabytes: float


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """The file with one to four changes, inside the members where it is an archive, whose checksums then fit."""
    if raw[:2] == b"PK" and draw.random() < 0.8:
        return _in_archive(raw, draw)
    data = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        draw.choice(CHANGES)(data, draw)
    return bytes(data)


def _in_archive(raw: bytes, draw: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutated(content, draw) if name == chosen else content)
    return out.getvalue()


def _place(data: bytearray, draw: random.Random) -> int:
    """Mostly near the beginning, where the headers are."""
    return draw.randrange(max(1, len(data) if draw.random() < 0.4 else min(len(data), 300)))


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[_place(data, draw) :]


def _drop(data: bytearray, draw: random.Random) -> None:
    start = _place(data, draw)
    del data[start : start + draw.randint(1, 40)]


def _repeat(data: bytearray, draw: random.Random) -> None:
    start = _place(data, draw)
    data[start:start] = data[start : start + draw.randint(1, 40)]


def _noise(data: bytearray, draw: random.Random) -> None:
    start, count = _place(data, draw), draw.randint(1, 16)
    data[start : start + count] = draw.randbytes(count)


def _extreme(data: bytearray, draw: random.Random) -> None:
    """A number that a reader may take for a size."""
    start, form = _place(data, draw), draw.choice(["<I", ">I", "<H", ">H"])
    largest = 2 ** (8 * struct.calcsize(form)) - 1
    data[start : start + struct.calcsize(form)] = struct.pack(form, min(draw.choice(EXTREMES), largest))


def _digits(data: bytearray, draw: random.Random) -> None:
    """Another number where one is written in digits, as in headers of arrays and safetensors."""
    places = [index for index, byte in enumerate(data[:2000]) if chr(byte).isdigit()]
    if places:
        data[draw.choice(places)] = ord(draw.choice("0123456789-"))


CHANGES = [_flip, _cut, _drop, _repeat, _noise, _extreme, _digits]


def _photos() -> list[bytes]:
    pillow_heif.register_heif_opener()  # to write them
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (40, 56, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    saves: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "PNG", {}), (image, "JPEG", {"exif": exif}), (image, "JPEG", {"progressive": True}),
        (image, "WEBP", {}), (image, "AVIF", {}), (image, "GIF", {}), (image, "BMP", {}), (image, "TIFF", {}),
        (image, "TIFF", {"compression": "tiff_lzw"}), (image.convert("CMYK"), "JPEG", {}),
        (image.convert("P"), "PNG", {}),
        (Image.fromarray(draw.integers(0, 4096, (40, 56), np.uint16)), "PNG", {}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}), (image, "HEIF", {}),
    ]  # fmt: skip
    return [_saved(partial(image.save, format=form, **options)) for image, form, options in saves]


def _npz() -> list[bytes]:
    arrays = small()
    floats = {key: value / 255 if key.endswith("images") else value for key, value in arrays.items()}
    words = small(train_labels=np.array(["cat", "dog", "owl"] * 4), test_labels=np.array(["cat", "dog", "owl"] * 2))
    named = {f"x_{key[:-7]}" if key.endswith("images") else f"y_{key[:-7]}": value for key, value in arrays.items()}
    return [_saved(partial(np.savez, **fields)) for fields in (arrays, floats, words, named)]


def _weights() -> list[bytes]:
    state = build(NET).state_dict()
    wrapped = {
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "epoch": np.float64(3),
        "lr": 0.1,
    }
    old = {"_use_new_zipfile_serialization": False}
    contents: list[tuple[object, dict[str, Any]]] = [(state, {}), (wrapped, {}), (state, old), (wrapped, old)]
    files = [_saved(partial(torch.save, content, **options)) for content, options in contents]
    return [*files, safetensors.torch.save(state)]


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def _read_weights(path: Path) -> None:
    fit(build(NET), read(path), partial=True)


KINDS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], object]]] = {
    "photos": (_photos, lambda path: open_photo(path.read_bytes())),
    "npz": (_npz, read_npz),
    "weights": (_weights, _read_weights),
}


def run(kind: str, count: int, folder: Path, first: int = 0) -> Result:
    """Read `count` mutated files, drawn from the seeds from `first` on."""
    make, reader = KINDS[kind]
    originals, path, found, broken = make(), folder / f"mutated.{kind}", 0, []
    for raw in originals:
        path.write_bytes(raw)
        reader(path)  # whole, they are read
    before = _held()
    for seed in range(first, first + count):
        draw = random.Random(seed)
        path.write_bytes(mutated(draw.choice(originals), draw))
        start = time.perf_counter()
        try:
            reader(path)
            found += 1
        except Refused:
            pass
        except BaseException:  # noqa: BLE001 - that is what is looked for
            broken.append(seed)
            print(f"{kind}, seed {seed}:\n{traceback.format_exc()}")
        if (seconds := time.perf_counter() - start) > 5:
            print(f"{kind}, seed {seed}: {seconds:.0f} s")
    return Result(found, count - found - len(broken), broken, _held() - before)


def _held() -> float:
    """MB at this process's peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, help="mutated files to read")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args, wrong = parser.parse_args(), False
    warnings.simplefilter("ignore")  # readers warn of what they refuse
    with TemporaryDirectory() as folder:
        for kind in KINDS:
            result = run(kind, getattr(args, kind), Path(folder), args.first)
            wrong = wrong or bool(result.broken) or result.megabytes > MOST_MB[kind]
            print(
                f"{kind}: {result.read} read, {result.refused} refused, {len(result.broken)} with another error "
                f"{result.broken[:20]}, {result.megabytes:.0f} MB more (at most {MOST_MB[kind]})"
            )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
