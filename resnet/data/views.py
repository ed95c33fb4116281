"""A picture as a net sees it, cut or squeezed to the net's square, and where in the picture that square lies."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnet.errors import Refused, choose

MODES = {"crop": "its centre (crop)", "squeeze": "all of it (squeezed)"}
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_SIZE = 4096


@dataclass(frozen=True)
class Frame:
    """The pictures that a net reads: `size` pixels a side, `channels` 3 (RGB) or 1 (grey).

    Before the centre is cut out, the picture's short side is resized to `resize` times `size`, as torchvision does.
    """

    size: int
    channels: int = 3
    resize: float = 1.0
    interpolation: str = "bilinear"  # one of RESAMPLING


class Box(NamedTuple):
    """A rectangle in pixels: 0 is the left or upper edge of the first one, not its middle."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class View:
    """The uint8 `pixels` (C, S, S) that a net sees: the `box` of a picture whose (width, height) is `whole`."""

    pixels: np.ndarray
    box: Box
    whole: tuple[int, int]

    def to_picture(self, box: Box) -> Box:
        """A box in the net's pixels as one in the picture's."""
        return _carried(box, self._square, self.box)

    def to_net(self, box: Box) -> Box:
        """A box in the picture's pixels as one in the net's; it may lie outside what the net sees."""
        return _carried(box, self.box, self._square)

    @property
    def _square(self) -> Box:
        return Box(0, 0, self.pixels.shape[2], self.pixels.shape[1])


def _carried(box: Box, start: Box, end: Box) -> Box:
    """The box after a map that takes the rectangle `start` to `end`."""
    across, down = (
        (end.right - end.left) / (start.right - start.left),
        (end.bottom - end.top) / (start.bottom - start.top),
    )
    xs = (end.left + (x - start.left) * across for x in (box.left, box.right))
    ys = (end.top + (y - start.top) * down for y in (box.top, box.bottom))
    (left, right), (top, bottom) = xs, ys
    return Box(left, top, right, bottom)


def see(picture: Image.Image, frame: Frame, mode: str = "crop") -> View:
    """The picture as a net of that frame sees it: its centre, or all of it squeezed. Refused."""
    choose("way to cut a picture", mode, MODES)
    if frame.channels not in (1, 3):
        raise Refused("A net for photos takes 3 channels (RGB) or 1 (grey).", frame.channels, "another net")
    if not 1 <= frame.size <= MAX_SIZE:
        raise Refused("A photo can be resized to 1 to 4,096 pixels.", frame.size)
    width, height = _resized(picture.size, frame, mode)
    left, top = round((width - frame.size) / 2), round((height - frame.size) / 2)
    box = Box(left, top, left + frame.size, top + frame.size)
    small = picture.convert("RGB" if frame.channels == 3 else "L").resize(
        (width, height), RESAMPLING[frame.interpolation]
    )
    pixels = np.array(small.crop(box)).reshape(frame.size, frame.size, frame.channels)
    seen = _carried(box, Box(0, 0, width, height), Box(0, 0, *picture.size))
    return View(np.ascontiguousarray(pixels.transpose(2, 0, 1)), seen, picture.size)


def _resized(size: tuple[int, int], frame: Frame, mode: str) -> tuple[int, int]:
    """Width and height from which the square is cut; torchvision's Resize rounds the long side down."""
    if mode == "squeeze":
        return frame.size, frame.size
    short = round(frame.size * frame.resize)
    width, height = (int(short * side / min(size)) for side in size)
    return width, height
