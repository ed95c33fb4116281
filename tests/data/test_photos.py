"""Uploaded pictures: every kind that people have, and every kind of nonsense."""

import contextlib
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from resnet.data.photos import check_header, open_photo, photo_batch, picture_image, picture_pixels
from resnet.errors import Refused
from tests.support.pictures import P3, P3_GAMMA, P3_TO_XYZ, profile

RNG = np.random.default_rng(0)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(60)[:, None] * 4, np.arange(90) * 2, 128), -1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
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


KINDS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIC", "GIF", "BMP", "TIFF")


@pytest.mark.parametrize("kind", KINDS)
def test_colours_survive(kind: str) -> None:
    lossy = kind not in ("PNG", "GIF", "BMP", "TIFF")
    image = open_photo(encode(Image.fromarray(SMOOTH), kind, **({"quality": 95} if lossy else {})))
    assert image.mode == "RGB"
    assert image.info == {"notes": ()}
    assert np.abs(np.asarray(image).astype(int) - SMOOTH).mean() < (8 if kind == "GIF" else 4 if lossy else 0.001)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize(("tag", "turns", "mirrored"), [(3, 2, False), (6, 3, False), (8, 1, False), (2, 0, True)])
def test_exif_orientation_is_applied(kind: str, tag: int, turns: int, mirrored: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    expected = np.rot90(SMOOTH[:, ::-1] if mirrored else SMOOTH, turns)
    found = np.asarray(open_photo(encode(Image.fromarray(SMOOTH), kind, exif=exif)))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


def test_a_heic_is_turned_once() -> None:
    """It says its orientation in its own box and often in EXIF too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encode(Image.fromarray(SMOOTH), "HEIC", quality=95, exif=exif.tobytes())
    assert b"irot" in raw
    assert np.abs(np.asarray(open_photo(raw)).astype(int) - np.rot90(SMOOTH, 3)).mean() < 4


def test_broken_exif_leaves_the_pixels() -> None:
    raw = encode(Image.fromarray(SMOOTH), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    with warnings.catch_warnings(action="ignore"):
        assert np.array_equal(np.asarray(open_photo(raw)), SMOOTH)


def test_cmyk_jpeg_has_the_colours_of_the_print() -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (64, 64), ink) for ink in (0, 255, 255, 0)])  # magenta + yellow = red
    red = np.asarray(open_photo(encode(cmyk, "JPEG", quality=95)))[32, 32]
    assert red[0] > 240
    assert max(red[1:]) < 15


LOSSLESS: dict[str, dict[str, object]] = {
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIC": {"quality": -1, "chroma": 444},
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIC", "TIFF"])
def test_alpha_goes_over_white(kind: str) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:] = 255, 0, 0, 128
    found = np.asarray(open_photo(encode(Image.fromarray(pixels), kind, **LOSSLESS.get(kind, {}))))
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


GREYS: dict[str, tuple[np.ndarray, str]] = {
    "12 bits in a PNG": (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), "PNG"),
    "16 bits in a TIFF": (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) + 9000, "TIFF"),
    "32 bits in a TIFF": (np.arange(64 * 64, dtype=np.int32).reshape(64, 64) - 700, "TIFF"),
    "floats in a TIFF": (np.linspace(-3, 1e6, 64 * 64, dtype=np.float32).reshape(64, 64), "TIFF"),
}


@pytest.mark.parametrize("name", GREYS)
def test_deep_greys_are_scaled_by_their_own_range(name: str) -> None:
    deep, kind = GREYS[name]
    found = open_photo(encode(Image.fromarray(deep), kind))
    expected = np.round((deep.astype(float) - deep.min()) / (float(deep.max()) - deep.min()) * 255)
    assert np.array_equal(np.asarray(found), np.repeat(expected[..., None], 3, -1))
    assert found.info["notes"] == (
        f"Its grey values, {deep.min().item():,} to {deep.max().item():,}, were scaled to 0 to 255.",
    )


def test_deep_greys_that_are_all_the_same_or_not_finite() -> None:
    assert (
        open_photo(encode(Image.fromarray(np.full((16, 16), 700, np.uint16)), "PNG")).getextrema() == ((128, 128),) * 3
    )
    values = np.linspace(0, 255, 256, dtype=np.float32).reshape(16, 16)
    values[0, :3] = np.nan, np.inf, -np.inf
    with warnings.catch_warnings(action="error"):  # NumPy's, where NaN becomes a byte
        found = np.asarray(open_photo(encode(Image.fromarray(values), "TIFF")))
    assert found[0, :5, 0].tolist() == [0, 255, 0, 0, 1]
    with pytest.raises(Refused, match="no values"):
        open_photo(encode(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF"))


def test_a_tiff_in_which_white_is_zero() -> None:
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    found = open_photo(encode(deep, "TIFF", tiffinfo={262: 0}))
    assert (found.getpixel((0, 0)), found.getpixel((63, 63))) == ((255, 255, 255), (0, 0, 0))


def to_srgb(device: np.ndarray, gamma: float, to_xyz: np.ndarray) -> np.ndarray:
    """By the definition in IEC 61966-2-1, from XYZ adapted to D50 (Bradford)."""
    red, green = (3.1338561, -1.6168667, -0.4906146), (-0.9787684, 1.9161415, 0.0334540)
    blue = (0.0719453, -0.2289914, 1.4052427)
    return encoded((device / 255) ** gamma @ to_xyz.T @ np.array((red, green, blue)).T)


def encoded(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF", "HEIC"])
def test_display_p3_becomes_srgb(kind: str) -> None:
    options = {} if kind in ("PNG", "TIFF") else {"quality": 95}
    found = open_photo(encode(Image.fromarray(SMOOTH), kind, icc_profile=P3, **options))
    expected = to_srgb(SMOOTH, P3_GAMMA, P3_TO_XYZ)
    assert np.abs(expected - SMOOTH).mean() > 5  # it is far from doing nothing
    away = np.abs(np.asarray(found) - expected)
    assert away.max() < 3 if not options else away.mean() < 5
    assert found.info["notes"] == ("Its colours were turned from its own profile into sRGB.",)


def test_transparency_and_palettes_keep_their_profile() -> None:
    [[expected]] = to_srgb(np.array([[[10, 200, 30]]]), P3_GAMMA, P3_TO_XYZ)
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.putpixel((3, 3), 0)
    found = open_photo(encode(palette, "PNG", transparency=0, icc_profile=P3))
    assert found.getpixel((3, 3)) == (255, 255, 255)
    assert np.abs(np.array(found.getpixel((9, 9))) - expected).max() < 3


def test_grey_profiles() -> None:
    grey = Image.fromarray(SMOOTH[..., 0])
    old_mac = profile(b"GRAY", {b"kTRC": 1.8})
    found = np.asarray(open_photo(encode(grey, "PNG", icc_profile=old_mac)))
    assert np.abs(found - encoded((SMOOTH[..., :1] / 255) ** 1.8)).max() < 2
    rgb = open_photo(encode(grey, "PNG", icc_profile=P3))  # not by the book, but people have it
    assert np.abs(np.asarray(rgb) - to_srgb(np.repeat(SMOOTH[..., :1], 3, -1), P3_GAMMA, P3_TO_XYZ)).max() < 3


def test_srgb_and_broken_profiles_leave_the_pixels() -> None:
    photo = Image.fromarray(SMOOTH)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = open_photo(encode(photo, "PNG", icc_profile=srgb))
    assert np.array_equal(np.asarray(found), SMOOTH)
    assert found.info["notes"] == ()
    for wrong in (b"no profile", P3[:200], profile(b"CMYK", {}), profile(b"GRAY", {b"kTRC": 1.0}), P3 + bytes(2**22)):
        found = open_photo(encode(photo, "TIFF", icc_profile=wrong))
        assert np.array_equal(np.asarray(found), SMOOTH)
        assert "profile is damaged or for another kind" in found.info["notes"][0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_of_several_pictures_the_first_is_taken(kind: str) -> None:
    red, blue, green = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green"))
    found = open_photo(encode(red, kind, save_all=True, append_images=[blue, green]))
    assert np.abs(np.asarray(found).astype(int) - (255, 0, 0)).max() < 8
    assert found.info["notes"] == ("The first of its 3 pictures was taken.",)


def test_what_follows_the_first_picture_may_be_damaged() -> None:
    red = Image.new("RGB", (16, 16), "red")
    raw = encode(red, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    assert open_photo(raw[:-20]).getpixel((3, 3)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_smaller_but_looks_the_same() -> None:
    large = Image.fromarray(SMOOTH).resize((1800, 1200))
    raw = encode(large, "JPEG", quality=90)
    small = open_photo(raw, at_least=256)
    assert small.size == (450, 300)
    assert open_photo(raw).size == (1800, 1200)
    tiny = encode(Image.fromarray(SMOOTH).resize((20, 20)), "JPEG")
    assert open_photo(tiny, at_least=1).size == (3, 3)  # only the file itself must have 8 pixels
    assert (photo_batch(small, 32).float() - photo_batch(large, 32).float()).abs().mean() < 2


def test_a_phones_jpeg_is_decoded_small_before_its_size_is_checked() -> None:
    raw = encode(Image.new("RGB", (12_000, 9_000), "green"), "JPEG", quality=40)
    found = open_photo(raw)
    assert found.size == (3000, 2250)
    assert np.abs(np.array(found.getpixel((9, 9))) - (0, 128, 0)).max() < 4
    with pytest.raises(Refused, match=r"64 megapixels.*12,000 x 9,000"):
        open_photo(raw, at_least=8000)  # as it would be for a strip that cannot become smaller


def tagged(tag: int, value: int) -> bytes:
    return encode(Image.fromarray(SMOOTH), "TIFF", tiffinfo={tag: value})


def tiled(width: int, height: int) -> bytes:
    """A TIFF of 16 x 16 grey pixels in one tile of that size."""
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: width, 323: height, 324: 200, 325: 256}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + bytes(256)


def ftyp(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return struct.pack(">I", 4 + len(body)) + body + bytes(500)


def ispe(kind: str, width: int, height: int) -> bytes:
    raw = bytearray(encode(Image.fromarray(SMOOTH), kind))
    at = raw.index(b"ispe") + 8
    raw[at : at + 8] = struct.pack(">II", width, height)
    return bytes(raw)


def gif_header(width: int, height: int) -> bytes:
    raw = encode(Image.new("L", (16, 16)), "GIF")
    return raw[:6] + struct.pack("<HH", width, height) + raw[10:]


def bmp_header(width: int, height: int) -> bytes:
    raw = encode(Image.new("RGB", (16, 16)), "BMP")
    return raw[:18] + struct.pack("<ii", width, height) + raw[26:]


def many_scans(scans: int) -> bytes:
    raw = encode(Image.fromarray(SMOOTH), "JPEG", progressive=True)
    last = raw.rindex(b"\xff\xda")
    return raw[:-2] + raw[last:-2] * scans + raw[-2:]


GOOD = {kind: encode(Image.fromarray(SMOOTH), kind) for kind in KINDS}
BAD = (
    {
        "text": (b"these are my holiday pictures", "This is text, not a PNG, JPEG, WebP, AVIF, HEIC, GIF, BMP or TIFF"),
        "a car": (b"BMW is a car", "This is text"),
        "noise": (bytes(range(200, 240)), "not a PNG, JPEG.*it starts with"),
        "empty": (b"", "empty"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        "html": (b"\n<!DOCTYPE html><html>404", "a web page"),
        "pdf": (b"%PDF-1.7\n" + bytes(99), "This is a PDF, not a"),
        "wav": (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40, "a sound"),
        "mp4": (ftyp(b"isom", b"iso2", b"mp41"), "a video"),
        "mov": (ftyp(b"qt  "), "a video"),
        "cr3": (ftyp(b"crx ", b"isom"), "raw photo"),
        "cr2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "raw photo"),
        "dng": (tagged(50706, 1), "raw photo"),
        "nef": (tagged(254, 1), "raw photo"),
        "psd": (b"8BPS\0\1" + bytes(99), "Photoshop"),
        "dicom": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
        "docx": (b"PK\x03\x04" + bytes(99), "zip archive"),
        "appledouble": (b"\0\x05\x16\x07\0\2\0\0Mac OS X        " + bytes(60), "macOS"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS pointer"),
        "heic of nothing but its name": (ftyp(b"heic", b"mif1", b"heic"), "HEIC is damaged"),
        "avif by a later brand": (ftyp(b"mif1", b"avif"), "AVIF is damaged"),
        "tiny": (encode(Image.new("RGB", (7, 100)), "PNG"), "7 x 100"),
        "huge png": (png_header(30_000, 30_000), "64 megapixels.*30,000 x 30,000 pixels"),
        "large png": (png_header(10_000, 10_000), "64 megapixels.*10,000 x 10,000 pixels"),  # where Pillow only warns
        "huge jpeg": (jpeg_header(60_000, 60_000), "256 megapixels.*60,000 x 60,000 pixels"),
        "huge strip": (jpeg_header(65_000, 1_000), "64 megapixels.*65,000 x 1,000 pixels"),
        "huge webp": (webp_header(16_000, 16_000), "256 megapixels"),
        "large webp": (webp_header(9_000, 9_000), "9,000 x 9,000 pixels"),
        "huge gif": (gif_header(60_000, 60_000), "60,000 x 60,000 pixels"),
        "huge bmp": (bmp_header(100_000, -100_000), "100,000 x 100,000 pixels"),
        "huge heic": (ispe("HEIC", 100_000, 100_000), "100,000 x 100,000"),
        "large heic": (ispe("HEIC", 9_000, 9_000), "9,000 x 9,000 pixels"),
        "heic that says less": (ispe("HEIC", 16, 16), "HEIC is damaged"),  # with a cut (`clap`) to 90 x 60 pixels
        "huge avif": (ispe("AVIF", 100_000, 100_000), "100,000 x 100,000"),
        "large avif": (ispe("AVIF", 9_000, 9_000), "9,000 x 9,000"),
        "huge tile": (tiled(40_000, 40_000), "40,000 x 40,000 pixels"),
        "many scans": (many_scans(101), r"up to 100 scans.*101"),
    }
    | {f"cut {kind}": (raw[: len(raw) * 2 // 3], "damaged or cut off") for kind, raw in GOOD.items()}
)


def test_a_progressive_jpeg_may_take_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode(Image.fromarray(SMOOTH), "JPEG", progressive=True, subsampling=0)
    monkeypatch.setattr("resnet.data.photos.MAX_COEFFICIENTS", 60 * 90 * 6)  # 3 channels of 16 bits
    open_photo(raw)
    monkeypatch.setattr("resnet.data.photos.MAX_COEFFICIENTS", 60 * 90 * 6 - 1)
    with pytest.raises(Refused, match="progressive"):
        open_photo(raw)
    open_photo(encode(Image.fromarray(SMOOTH), "JPEG"))
    open_photo(encode(Image.fromarray(SMOOTH), "JPEG", progressive=True))  # colours of half the size


def test_the_scans_of_a_large_jpeg_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, scans = many_scans(10), 20
    monkeypatch.setattr("resnet.data.photos.MAX_SCANNED", 60 * 90 * scans)
    open_photo(raw)
    monkeypatch.setattr("resnet.data.photos.MAX_SCANNED", 60 * 90 * scans - 1)
    with pytest.raises(Refused, match="up to 19 scans"):
        open_photo(raw)


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_give_a_sentence(name: str) -> None:
    raw, words = BAD[name]
    with warnings.catch_warnings(action="error"), pytest.raises(Refused, match=words) as caught:
        open_photo(raw)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no traceback of Pillow's under it


@pytest.mark.parametrize("kind", GOOD)
def test_the_start_of_a_file_is_checked_alone(kind: str) -> None:
    file = BytesIO(GOOD[kind])
    check_header(file)
    with pytest.raises(Refused, match="10,000 x 10,000"):
        check_header(BytesIO(png_header(10_000, 10_000)))
    with pytest.raises(Refused, match="This is text"):
        check_header(BytesIO(b"<xml>"))


def test_an_avif_in_which_time_stands_still() -> None:
    raw = encode(Image.fromarray(SMOOTH), "AVIF", save_all=True, append_images=[Image.fromarray(SMOOTH)])
    at = raw.index(b"mdhd") + (24 if raw[raw.index(b"mdhd") + 4] else 16)  # version 1 has longer times before it
    with pytest.raises(Refused, match="AVIF is damaged"):
        open_photo(raw[:at] + bytes(4) + raw[at + 4 :])


@pytest.mark.parametrize("kind", GOOD)
def test_no_damage_escapes_as_another_error(kind: str) -> None:
    for trial in range(100):
        raw = bytearray(GOOD[kind])
        for at in RNG.integers(0, len(raw) if trial % 2 else 60, 1 + trial % 4):
            raw[at] = RNG.integers(256)
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(Refused):
            assert open_photo(bytes(raw)).mode == "RGB"


def test_batch_is_the_centred_square() -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 28:72] = 10, 20, 30  # each of the net's pixels averages 2, and weighs its neighbours in
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


def test_pictures_of_any_number_of_channels() -> None:
    bands = np.random.default_rng(0).integers(0, 256, (16, 16, 8), np.uint8)
    found = picture_pixels(bands, 16, 8)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), bands)
    assert np.array_equal(np.asarray(picture_image(bands)), bands[..., :3])
    assert np.array_equal(np.asarray(picture_image(bands[..., :2])), bands[..., 0])
    with pytest.raises(Refused, match=r"3 channels.*Received 8"):
        picture_pixels(bands, 16, 3)
