"""What arrays of pictures mean: pixels of any range and order as bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet.data.ranges import finite_range, to_bytes
from resnet.errors import Refused

MAX_CHANNELS = 64  # as in NetSpec
AT_ONCE = 2**24  # numbers turned at one time
Arrays = dict[str, NDArray[Any]]  # by part: train and test, or all
FLOAT_RANGES = ((0, 1), (-1, 1), (0, 255))  # in which floats are pixels
BRIGHT = 16  # floats in 0 to 255 reach it; those in 0 to 1.05 do not, and rounding them would leave 0 and 1


@dataclass(frozen=True)
class Axes:
    """How pictures (N, ...) lie: `size` pixels square, `channels` of them, `first` before the pixels."""

    count: int
    size: int
    channels: int
    first: bool


def axes(key: str, shape: tuple[int, ...]) -> Axes:
    """Refused for pictures that are not square, volumes, and what is none."""
    if len(shape) == 3 and shape[1] == shape[2]:
        return Axes(shape[0], shape[1], 1, True)
    if len(shape) == 4 and not shape[1] == shape[2] == shape[3]:
        for first, (down, across, channels) in ((False, shape[1:]), (True, (*shape[2:], shape[1]))):
            if down == across and 1 <= channels <= MAX_CHANNELS:
                return Axes(shape[0], down, channels, first)
    if len(shape) not in (3, 4, 5):
        raise Refused(f"{key} must be (N, S, S), (N, S, S, C) or (N, C, S, S), C up to {MAX_CHANNELS}.", shape)
    if len(shape) == 5 or (len(shape) == 4 and min(shape[1], shape[3]) > 4):
        rule = f"{key} holds volumes or videos: until this program trains on them, it takes square pictures."
        raise Refused(rule, shape, f"one slice of each, (N, S, S), or slices as up to {MAX_CHANNELS} channels")
    rule = f"{key} must be square: until this program trains on rectangles, crop or resize the pictures."
    raise Refused(rule, f"shape {shape}")


def pixels(images: Arrays, found: Axes) -> tuple[dict[str, Tensor], list[str]]:
    """uint8 (N, C, S, S) of each part, and what was done. Empties `images`, part by part.

    Four channels are taken as RGBA, over white: so four bytes of a pixel are read everywhere. Where the numbers had
    to be scaled by their own range they are measurements, and stay four channels.
    """
    notes = []
    dtypes = " and ".join(sorted({str(part.dtype) for part in images.values()}))
    low, high, own = _range(images)
    if found.first and next(iter(images.values())).ndim == 4:
        notes.append(f"The pictures came with the {found.channels} channels first, and were turned.")
    if own:
        notes.append(f"The pictures' numbers, {low:,} to {high:,} ({dtypes}), were scaled to 0 to 255.")
    elif (low, high) != (0, 255):
        notes.append(f"The pictures' numbers ({dtypes}, in {low} to {high}) were scaled to 0 to 255.")
    elif dtypes != "uint8":
        notes.append(f"The pictures' numbers ({dtypes}, in 0 to 255) were rounded to bytes.")
    alpha = found.channels == 4 and not own
    if alpha:
        notes.append("The pictures' fourth channel was taken as transparency, and laid over white.")
    elif found.channels not in (1, 3):
        notes.append(f"The pictures have {found.channels} channels.")
    return {part: _planes(images.pop(part), found.first, (low, high), alpha) for part in list(images)}, notes


def _range(images: Arrays) -> tuple[Any, Any, bool]:
    """The numbers that become 0 and 255, and whether they are those of the first part itself."""
    ranges = {part: _whole_range(array, f"{part}_images") for part, array in images.items()}
    (low, high), kinds = next(iter(ranges.values())), {array.dtype.kind for array in images.values()}
    if kinds == {"b"} or ("f" not in kinds and all(found == (0, 1) for found in ranges.values())):
        return 0, 1, False
    if not kinds & {"b", "f"}:
        inside = all(least >= 0 and most <= 255 for least, most in ranges.values())
        return (0, 255, False) if inside else (low, high, True)
    limits = next((pair for pair in FLOAT_RANGES if _fits(low, high, pair)), None)
    if limits is None or not all(_fits(least, most, limits) for least, most in ranges.values()):
        said = " and ".join(f"{least:,} to {most:,} in {part}_images" for part, (least, most) in ranges.items())
        wanted = f"0 to 1, -1 to 1, or 0 to 255 with some of {BRIGHT} or more"
        raise Refused(f"Pictures of floats must be in {wanted}, all in the same.", said)
    return *limits, False


def _fits(low: float, high: float, limits: tuple[int, int]) -> bool:
    """But for rounding errors."""
    slack = (limits[1] - limits[0]) / 510  # half a step of the bytes that they become
    return limits[0] - slack <= low and high <= limits[1] + slack and (limits[1] == 1 or high >= BRIGHT)


def _whole_range(array: NDArray[Any], key: str) -> tuple[Any, Any]:
    if array.dtype.kind == "f" and (wrong := sum(int((~np.isfinite(rows)).sum()) for rows in _pieces(array))):
        raise Refused(f"{key} has {wrong:,} numbers that are NaN or infinite. Replace them.")
    found = [finite_range(rows) or (0, 0) for rows in _pieces(array)]
    return min(low for low, _ in found), max(high for _, high in found)


def _pieces(array: NDArray[Any]) -> Iterable[NDArray[Any]]:
    step = max(1, AT_ONCE // max(1, array[:1].size))
    return (array[at : at + step] for at in range(0, len(array), step))


def _planes(images: NDArray[Any], first: bool, limits: tuple[Any, Any], alpha: bool) -> Tensor:
    moved = images[:, None] if images.ndim == 3 else images if first else np.moveaxis(images, -1, 1)
    if images.dtype == np.uint8 and limits == (0, 255) and not alpha:
        return torch.from_numpy(np.ascontiguousarray(moved))
    out = np.empty((len(moved), 3 if alpha else moved.shape[1], *moved.shape[2:]), np.uint8)
    for rows, done in zip(_pieces(moved), _pieces(out), strict=False):
        values = rows if rows.dtype == np.uint8 and limits == (0, 255) else to_bytes(rows, *limits)
        done[:] = _over_white(values) if alpha else values
    return torch.from_numpy(out)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint16]:
    opacity = rgba[:, 3:].astype(np.uint16)
    return (rgba[:, :3] * opacity + 255 * (255 - opacity) + 127) // 255
