"""What a file of a picture is, by its bytes and never by its name."""

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pillow_heif import HeifImageFile

from resnet.errors import Refused

# The readers themselves: Image.open would raise or warn about a bomb before we can name the picture's size.
READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,  # of an MPO, the first of its JPEGs
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "HEIC": HeifImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
PHOTO_TYPES = "PNG, JPEG, WebP, AVIF, HEIC, GIF, BMP or TIFF"
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
)
RAW_PHOTO = "a camera's raw photo (such as DNG, CR2, NEF or ARW)"

# By offset; the first that fits counts, and a name that is not in READERS says what else the file is.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBPVP8", "WebP"),
    (0, b"GIF8", "GIF"),
    (8, b"CR\x02", RAW_PHOTO),  # a TIFF otherwise
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"FUJIFILMCCD-RAW", RAW_PHOTO),
    (0, b"IIU\0", RAW_PHOTO),
    (0, b"IIR", RAW_PHOTO),
    (0, b"MMOR", RAW_PHOTO),
    (4, b"ftypcrx ", RAW_PHOTO),
    (4, b"ftyp", "a video or sound (MP4, MOV, M4A)"),
    (4, b"moov", "a video (MOV)"),
    (8, b"AVI ", "a video (AVI)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (WebM or MKV)"),
    (8, b"WAVE", "a sound (WAV)"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop document (PSD)"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (4, b"JXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"jP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"PK\x03\x04", "a zip archive or an office document"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\0\x05\x16\x07", "what macOS keeps beside a file (its name begins with ._)"),
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the file)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"SIMPLE  =", "a FITS file"),
)
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of its second header; "BM" alone could begin a text


def format_of(raw: bytes) -> str:
    """The name in READERS of what these bytes are; Refused, saying what else they are where that can be told."""
    if not raw:
        raise Refused("This file is empty (0 bytes).", choices=f"a {PHOTO_TYPES} picture")
    name = _in_a_box(raw) or next((name for at, magic, name in _MAGIC if raw.startswith(magic, at)), "") or _by_eye(raw)
    if not name:
        raise Refused(f"This is not a {PHOTO_TYPES} picture: it starts with {raw[:12]!r}. Save it in one of these.")
    if name not in READERS:
        raise not_a_photo(name)
    return name


def not_a_photo(what: str) -> Refused:
    return Refused(f"This is {what}, not a {PHOTO_TYPES} picture. Save it in one of these.")


def _in_a_box(raw: bytes) -> str:
    """AVIF or HEIC by any brand in the first box: the main one may be `mif1` for both."""
    if raw[4:8] != b"ftyp":
        return ""
    box = raw[8 : min(int.from_bytes(raw[:4]), 1024)]
    brands = {box[at : at + 4] for at in range(0, len(box), 4)}
    return "AVIF" if brands & _AVIF else "HEIC" if brands & _HEIC else ""


def _by_eye(raw: bytes) -> str:
    if raw.startswith(b"BM") and int.from_bytes(raw[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    start = raw[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    return "text" if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start) else ""
