"""Uploaded pictures: untrusted bytes in, an upright RGB image or one clear sentence out."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from resnet.data.colours import opaque_rgb
from resnet.data.formats import RAW_PHOTO, READERS, format_of, not_a_photo
from resnet.data.views import Frame, View, see
from resnet.errors import Refused

MIN_SIDE = 8
START = 1024  # bytes by which a file is told from others
MAX_PIXELS = 64_000_000  # decoded; the measured peak of it all is 0.5 to 1.3 GB (WebP with transparency)
MAX_JPEG = 256_000_000  # of one that is decoded small: 50 MB at 200 megapixels
MAX_COEFFICIENTS = 1_000_000_000  # bytes that a JPEG in several scans (a progressive one) keeps until the last scan
MAX_SCANS, MAX_SCANNED = 100, 4e9  # each goes over all pixels, 1e9 take about a second; encoders write 10 or so

# All that the readers raise on damaged files (found by cutting and flipping bytes of real ones).
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_BOMBS = Image.DecompressionBombError, Image.DecompressionBombWarning  # Pillow's own check, inside some readers
DNG_VERSION, SUBFILE_TYPE, TILE_WIDTH, TILE_LENGTH = 50706, 254, 322, 323  # tags of TIFF
_EXTENT = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)  # of AVIF and HEIC
_MARKER = re.compile(rb"\xff+([^\0\xff\xd0-\xd7])")  # of JPEG; the others belong to the pixels


def open_photo(raw: bytes, at_least: int = 2048) -> Image.Image:
    """A picture of one of PHOTO_TYPES as an upright sRGB image, transparency over white; Refused for any other bytes.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (much faster) where both sides stay `at_least` pixels long.
    `image.info["notes"]` has a sentence on each thing that was changed or left out.
    """
    name = format_of(raw)
    with _refusing(name) as reader:
        if name in ("AVIF", "HEIC"):
            _check_boxes(raw)
        image = reader(BytesIO(raw))
        _check_header(image)
        if isinstance(image, JpegImageFile):
            _check_scans(image, _scans(raw))
        image.draft(None, (at_least, at_least))  # JPEG obeys it, and HEIC where it has a smaller copy
        _check_pixels(image.size, MAX_PIXELS)
        image.load()
        _turn_upright(image)
        photo, notes = opaque_rgb(image)
        photo.info = {"notes": (*notes, *_other_frames(image))}
    return photo


def check_header(file: BinaryIO) -> None:
    """Refused where a file is no picture, or by its start is damaged or too large; its pixels are not read."""
    name = format_of(file.read(START))
    file.seek(0)
    with _refusing(name) as reader:
        _check_header(reader(file))


@contextmanager
def _refusing(name: str) -> Iterator[type[ImageFile]]:
    """The reader of that name; whatever it or Pillow raises becomes a Refused."""
    try:
        yield READERS[name]
    except Refused:
        raise
    except _BOMBS as error:
        pixels = max(map(int, re.findall(r"\d+", str(error))), default=MAX_PIXELS)
        raise _too_large(MAX_PIXELS, f"{pixels / 1e6:,.0f} megapixels") from None
    except MemoryError:
        raise Refused("This picture does not fit into memory. Make it smaller.") from None
    except _DAMAGED as error:
        why = " ".join(str(error).split())
        what = f"This {name} is damaged or cut off, or of a kind that is not read ({why})."
        raise Refused(f"{what} Save it again, or as PNG or JPEG.") from None


def _check_header(image: ImageFile) -> None:
    """Before anything is decoded."""
    _check_pixels(image.size, MAX_JPEG if isinstance(image, JpegImageFile) else MAX_PIXELS)
    if min(image.size) < MIN_SIDE:
        rule = f"A picture must have at least {MIN_SIDE} x {MIN_SIDE} pixels."
        raise Refused(rule, f"{image.width} x {image.height}", "a larger one")
    if isinstance(image, TiffImageFile):
        if DNG_VERSION in image.tag_v2 or image.tag_v2.get(SUBFILE_TYPE, 0) & 1:  # the first image is a preview
            raise not_a_photo(RAW_PHOTO)
        across, down = (int(image.tag_v2.get(tag, 0)) for tag in (TILE_WIDTH, TILE_LENGTH))
        _check_pixels((across, down), MAX_PIXELS)


def _check_boxes(raw: bytes) -> None:
    """The size of the picture may be that of a small cut from a large one; each says its size in an `ispe` box."""
    for box in _EXTENT.finditer(raw):
        _check_pixels((int.from_bytes(box[1]), int.from_bytes(box[2])), MAX_PIXELS)


def _scans(raw: bytes) -> int:
    """How often a JPEG's pixels are gone over, MAX_SCANS + 1 at most."""
    at, scans = 2, 0
    while scans <= MAX_SCANS and (found := _MARKER.search(raw, at)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        at = found.end() + int.from_bytes(raw[found.end() : found.end() + 2])
    return scans


def _check_scans(image: JpegImageFile, scans: int) -> None:
    if scans > (most := min(MAX_SCANS, MAX_SCANNED // (image.width * image.height))):
        rule = f"A JPEG of {image.width:,} x {image.height:,} pixels may have up to {most:.0f} scans."
        raise Refused(rule, min(scans, MAX_SCANS + 1), "one that is saved again, not as a progressive one")
    sampled = [(across, down) for _, across, down, _ in image.layer]
    finest = max(across for across, _ in sampled) * max(down for _, down in sampled)
    needed = 2 * image.width * image.height * sum(across * down for across, down in sampled) // finest
    if scans > 1 and needed > MAX_COEFFICIENTS:
        rule = f"A progressive JPEG may take up to {MAX_COEFFICIENTS / 1e9:.0f} GB to decode."
        raise Refused(rule, f"{needed / 1e9:.1f} GB", "a smaller one, or save it not as a progressive one")


def _check_pixels(size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        raise _too_large(most, f"{size[0]:,} x {size[1]:,} pixels")


def _too_large(most: int, received: str) -> Refused:
    return Refused(f"A picture may have up to {most // 1_000_000} megapixels.", received, "a smaller one")


def _turn_upright(image: ImageFile) -> None:
    with suppress(*_DAMAGED):  # a broken EXIF block says nothing, the pixels are fine
        ImageOps.exif_transpose(image, in_place=True)


def _other_frames(image: ImageFile) -> tuple[str, ...]:
    frames = 1
    with suppress(*_DAMAGED):  # what follows the first frame may be damaged
        frames = getattr(image, "n_frames", 1)
    return (f"The first of its {frames:,} pictures was taken.",) if frames > 1 else ()


def picture_pixels(picture: np.ndarray, size: int, channels: int) -> Tensor:
    """A picture (S, S, C) uint8 as `photo_batch` gives a photo, but uint8 (channels, size, size); C may be any."""
    return torch.from_numpy(picture_view(picture, Frame(size, channels)).pixels)


def picture_view(picture: np.ndarray, frame: Frame, mode: str = "crop") -> View:
    """A picture (H, W, C) uint8 as `see` gives a photo; with other channels than a photo's, which must be the net's."""
    if picture.shape[-1] in (1, 3):
        return see(picture_image(picture), frame, mode)
    if picture.shape[-1] != frame.channels:
        raise Refused(f"This net takes pictures with {frame.channels} channels.", picture.shape[-1])
    grey = replace(frame, channels=1)
    bands = [see(Image.fromarray(band), grey, mode) for band in np.moveaxis(picture, -1, 0)]
    return replace(bands[0], pixels=np.concatenate([band.pixels for band in bands]))


def picture_image(picture: np.ndarray) -> Image.Image:
    """A picture (S, S, C) uint8 to look at: the first three of its channels as RGB, or the first as grey."""
    return Image.fromarray(picture[..., :3] if picture.shape[-1] > 2 else np.ascontiguousarray(picture[..., 0]))


def photo_batch(image: Image.Image, size: int, channels: int = 3) -> Tensor:
    """The centre, resized with antialiasing: uint8 (1, channels, size, size), channels 3 (RGB) or 1 (grey)."""
    return torch.from_numpy(see(image, Frame(size, channels)).pixels)[None]
