"""Uploaded pictures: every kind that people have, and every kind of nonsense."""

import contextlib
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnet.data.photos import open_photo, photo_batch
from resnet.errors import Refused

RNG = np.random.default_rng(0)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(60)[:, None] * 4, np.arange(90) * 2, 128), -1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    raw = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    at = raw.index(b"\xff\xc0")
    raw[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(raw)


def webp_header(width: int, height: int) -> bytes:
    raw = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    assert raw[12:16] == b"VP8L"
    kept = struct.unpack("<I", raw[21:25])[0] >> 28 << 28
    raw[21:25] = struct.pack("<I", kept | (width - 1) | (height - 1) << 14)
    return bytes(raw)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colours_survive(kind: str) -> None:
    image = open_photo(encode(Image.fromarray(SMOOTH), kind, **({} if kind == "PNG" else {"quality": 95})))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - SMOOTH).mean() < (0.001 if kind == "PNG" else 4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("tag", "turns", "mirrored"), [(3, 2, False), (6, 3, False), (8, 1, False), (2, 0, True)])
def test_exif_orientation_is_applied(kind: str, tag: int, turns: int, mirrored: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    expected = np.rot90(SMOOTH[:, ::-1] if mirrored else SMOOTH, turns)
    found = np.asarray(open_photo(encode(Image.fromarray(SMOOTH), kind, exif=exif)))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


def test_broken_exif_leaves_the_pixels() -> None:
    raw = encode(Image.fromarray(SMOOTH), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    with warnings.catch_warnings(action="ignore"):
        assert np.array_equal(np.asarray(open_photo(raw)), SMOOTH)


def test_cmyk_jpeg_has_the_colours_of_the_print() -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (64, 64), ink) for ink in (0, 255, 255, 0)])  # magenta + yellow = red
    red = np.asarray(open_photo(encode(cmyk, "JPEG", quality=95)))[32, 32]
    assert red[0] > 240
    assert max(red[1:]) < 15


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_goes_over_white(kind: str) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:] = 255, 0, 0, 128
    found = np.asarray(
        open_photo(encode(Image.fromarray(pixels), kind, **({} if kind == "PNG" else {"lossless": True})))
    )
    assert (found[:, :7] == 255).all()
    assert np.abs(found[8, 12].astype(int) - (255, 127, 127)).max() <= 1


def test_palettes_grey_and_bilevel() -> None:
    grey = Image.fromarray(SMOOTH[..., 0])
    assert np.array_equal(np.asarray(open_photo(encode(grey, "PNG"))), np.repeat(SMOOTH[..., :1], 3, -1))
    bits = np.asarray(open_photo(encode(grey.convert("1"), "PNG")))[..., 0]
    assert np.array_equal(bits == 255, np.asarray(grey.convert("1")))
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert open_photo(encode(palette, "PNG")).getpixel((3, 3)) == (10, 200, 30)
    assert open_photo(encode(palette, "PNG", transparency=1)).getpixel((3, 3)) == (255, 255, 255)
    both = Image.merge("LA", [grey, Image.new("L", grey.size, 0)])
    assert open_photo(encode(both, "PNG")).getpixel((3, 50)) == (255, 255, 255)


def test_16_bits_are_scaled_not_clipped() -> None:
    deep = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    found = np.asarray(open_photo(encode(Image.fromarray(deep), "PNG")))
    assert np.array_equal(found, np.repeat((deep // 256).astype(np.uint8)[..., None], 3, -1))


def test_a_large_jpeg_is_decoded_smaller_but_looks_the_same() -> None:
    large = Image.fromarray(SMOOTH).resize((1800, 1200))
    raw = encode(large, "JPEG", quality=90)
    small = open_photo(raw, at_least=256)
    assert small.size == (450, 300)
    assert open_photo(raw).size == (1800, 1200)
    assert (photo_batch(small, 32).float() - photo_batch(large, 32).float()).abs().mean() < 2


GOOD = {kind: encode(Image.fromarray(SMOOTH), kind) for kind in ("PNG", "JPEG", "WEBP")}
BAD = (
    {
        "text": (b"these are my holiday pictures", "not a PNG, JPEG or WebP"),
        "empty": (b"", "empty"),
        "gif": (encode(Image.fromarray(SMOOTH), "GIF"), "not a PNG, JPEG or WebP"),
        "bmp": (encode(Image.fromarray(SMOOTH), "BMP"), "not a PNG, JPEG or WebP"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG, JPEG or WebP"),
        "wav": (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40, "damaged"),
        "tiny": (encode(Image.new("RGB", (7, 100)), "PNG"), "7 x 100"),
        "huge png": (png_header(30_000, 30_000), "64 megapixels.*30,000 x 30,000 pixels"),
        "large png": (png_header(10_000, 10_000), "64 megapixels.*10,000 x 10,000 pixels"),  # where Pillow only warns
        "huge jpeg": (jpeg_header(60_000, 60_000), "60,000 x 60,000 pixels"),
        "huge webp": (webp_header(16_000, 16_000), "256 megapixels"),
        "large webp": (webp_header(9_000, 9_000), "9,000 x 9,000 pixels"),
    }
    | {f"cut {kind}": (raw[: len(raw) * 2 // 3], "damaged or cut off") for kind, raw in GOOD.items()}
)


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_give_a_sentence(name: str) -> None:
    raw, words = BAD[name]
    with warnings.catch_warnings(action="error"), pytest.raises(Refused, match=words) as caught:
        open_photo(raw)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no traceback of Pillow's under it


@pytest.mark.parametrize("kind", GOOD)
def test_no_damage_escapes_as_another_error(kind: str) -> None:
    for trial in range(300):
        raw = bytearray(GOOD[kind])
        for at in RNG.integers(0, len(raw) if trial % 2 else 60, 1 + trial % 4):
            raw[at] = RNG.integers(256)
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(Refused):
            assert open_photo(bytes(raw)).mode == "RGB"


def test_batch_is_the_centred_square() -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 10, 20, 30
    batch = photo_batch(Image.fromarray(pixels), 20)
    assert batch.shape == (1, 3, 20, 20)
    assert batch.is_contiguous()
    assert [batch[0, c].unique().tolist() for c in range(3)] == [[10], [20], [30]]
    assert photo_batch(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), 20).unique().tolist() == [
        10,
        20,
        30,
    ]


def test_batch_is_antialiased() -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255  # without antialiasing: 0, or 255, or stripes
    batch = photo_batch(Image.fromarray(checks.astype(np.uint8)), 16)
    assert (batch.float() - 127.5).abs().max() < 3


def test_grey_batch() -> None:
    batch = photo_batch(Image.new("RGB", (50, 50), (255, 0, 0)), 28, channels=1)
    assert batch.shape == (1, 1, 28, 28)
    assert batch.unique().tolist() == [76]  # 0.299 x 255


@pytest.mark.parametrize(
    ("size", "channels", "words"), [(32, 4, "channels.*Received 4"), (0, 3, "4,096.*Received 0"), (10**6, 3, "1000000")]
)
def test_batch_refuses(size: int, channels: int, words: str) -> None:
    with pytest.raises(Refused, match=words):
        photo_batch(Image.new("RGB", (50, 50)), size, channels)
