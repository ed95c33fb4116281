"""Uploaded pictures: untrusted bytes in, an upright RGB image or one clear sentence out."""

import re
import struct
import zlib
from io import BytesIO
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from resnet.errors import Refused

MAX_PIXELS, MIN_SIDE = 64_000_000, 8

# Pillow's readers themselves: Image.open would raise or warn about a bomb before we can name the picture's size.
READERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"RIFF": WebPImageFile,
}

# All that Pillow raises on damaged files (found by cutting and flipping bytes of real ones).
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    struct.error,
)


def open_photo(raw: bytes, at_least: int = 2048) -> Image.Image:
    """A PNG, JPEG or WebP as an upright RGB image, transparency over white; Refused for any other bytes.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (much faster) where both sides stay `at_least` pixels long.
    """
    try:
        image = _reader(raw)(BytesIO(raw))
        _check_size(*image.size)
        image.draft(None, (at_least, at_least))  # only JPEG obeys it
        image.load()
        return _flatten(_upright(image))
    except Refused:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own check inside the WebP reader
        pixels = max(map(int, re.findall(r"\d+", str(error))), default=MAX_PIXELS)
        raise _too_large(f"{pixels / 1e6:,.0f} megapixels") from None
    except MemoryError:
        raise Refused("This picture does not fit into memory. Make it smaller.") from None
    except (*_DAMAGED, zlib.error) as error:
        raise Refused(f"This picture is damaged or cut off ({error}). Save or upload it again.") from None


def check_header(file: BinaryIO) -> None:
    """Refused where the start of a file is no picture's or damaged; its pixels are not read."""
    reader = _reader(file.read(16))
    file.seek(0)
    try:
        _check_size(*reader(file).size)
    except Refused:
        raise
    except (*_DAMAGED, zlib.error, Image.DecompressionBombError) as error:
        raise Refused(f"This picture is damaged or cut off ({error}). Save or upload it again.") from None


def _reader(raw: bytes) -> type[ImageFile]:
    if not raw:
        raise Refused("This file is empty (0 bytes).", choices="a PNG, JPEG or WebP picture")
    for magic, reader in READERS.items():
        if raw.startswith(magic):
            return reader
    raise Refused(f"This is not a PNG, JPEG or WebP picture: it starts with {raw[:12]!r}. Save it in one of these.")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width:,} x {height:,} pixels")
    if min(width, height) < MIN_SIDE:
        rule = f"A picture must have at least {MIN_SIDE} x {MIN_SIDE} pixels."
        raise Refused(rule, f"{width} x {height}", "a larger one")


def _too_large(received: str) -> Refused:
    return Refused(f"A picture may have up to {MAX_PIXELS // 1_000_000} megapixels.", received, "a smaller one")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (*_DAMAGED, zlib.error):  # a broken EXIF block says nothing, the pixels are fine
        return image


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def picture_pixels(picture: np.ndarray, size: int, channels: int) -> Tensor:
    """A picture (S, S, C) uint8 as `photo_batch` gives a photo, but uint8 (channels, size, size)."""
    return photo_batch(Image.fromarray(picture.squeeze()), size, channels)[0]


def photo_batch(image: Image.Image, size: int, channels: int = 3) -> Tensor:
    """The centred square, resized with antialiasing: uint8 (1, channels, size, size), channels 3 (RGB) or 1 (grey)."""
    if channels not in (1, 3):
        raise Refused("A net for photos takes 3 channels (RGB) or 1 (grey).", channels, "another net")
    if not 1 <= size <= 4096:
        raise Refused("A photo can be resized to 1 to 4,096 pixels.", size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).convert("RGB" if channels == 3 else "L")
    pixels = np.array(square.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()  # (1, C, S, S)
