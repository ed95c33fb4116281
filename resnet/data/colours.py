"""The colours of a photo as sRGB, whatever they were: a profile of its own, CMYK, 16 bits, transparency."""

import functools
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from resnet.data.ranges import finite_range, to_bytes
from resnet.errors import Refused

MAX_PROFILE = 4 * 2**20  # bytes; those for print have about one MiB
NEAR = 2  # of 255: a profile that moves no colour further is sRGB already
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # as ICC names them


def opaque_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """RGB of the same size, transparency over white, and a sentence on each change of the colours."""
    if image.mode.startswith(("I", "F")):
        return _scaled(image)
    profile = image.info.get("icc_profile")
    image = _opaque(image)
    if not profile:
        return image.convert("RGB"), ()
    try:
        transform = _to_srgb(bytes(profile), image.mode)
    except (ImageCms.PyCMSError, ValueError, TypeError, OSError):
        return image.convert("RGB"), ("Its colour profile is damaged or for another kind of picture: ignored.",)
    if transform is None:
        return image.convert("RGB"), ()
    turned = transform.apply(image.convert(transform.input_mode))
    return turned, ("Its colours were turned from its own profile into sRGB.",)


def _scaled(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """By its own range, for 10 or 12 bits in 16 would be nearly black."""
    values = np.asarray(image)
    if (found := finite_range(values)) is None:
        raise Refused("This picture has no values: all of them are NaN or infinite.")
    low, high = found
    note = f"Its grey values, {low:,} to {high:,}, were scaled to 0 to 255."
    grey = Image.fromarray(to_bytes(values, low, high))
    if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns 8 bits only
        grey = ImageOps.invert(grey)
    return grey.convert("RGB"), (note,)


def _opaque(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        seen = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(seen, mask=seen)
    return image if image.mode == "CMYK" else image.convert("L" if grey else "RGB")


@functools.lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None for a profile that is sRGB's. Raises what ImageCms raises, and ValueError where it is not for the mode."""
    if len(profile) > MAX_PROFILE:
        raise ValueError(f"a profile of {len(profile):,} bytes")
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    if mode == "L" and opened.profile.xcolor_space == _SPACES["RGB"]:
        mode = "RGB"
    if opened.profile.xcolor_space != _SPACES[mode]:
        raise ValueError(f"a profile for {opened.profile.xcolor_space}")
    transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    return None if mode != "CMYK" and _is_near(transform, mode) else transform


def _is_near(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 18, 3)
    probe = Image.fromarray(colours).convert(mode)
    moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return bool(np.abs(moved).max() <= NEAR)
