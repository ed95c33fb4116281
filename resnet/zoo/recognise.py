"""What a file is that holds no weights, by its first bytes, and what to do with it."""

import io
import re
import zipfile
from typing import IO

HEAD = 2048  # bytes looked at
TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of torch.save's files from before PyTorch 1.6
OTHER_FILE = "Choose a safetensors file, or a state_dict written by torch.save."
UNPACK = f"Unpack it first. {OTHER_FILE}"
CONVERT = f"Convert it to PyTorch's weights first. {OTHER_FILE}"
STATE_DICT = "Save its state_dict: torch.save(model.state_dict(), PATH)."
AGAIN = "The copy or download broke off: fetch it again."

# Where the bytes stand, as a pattern, what the file is, what to do.
BYTES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run git lfs pull, or download it."),
    (0, rb"(?i)\s*(<!--.*?-->\s*)?<(!doctype )?html", "a web page", "Download the file itself; perhaps sign in."),
    (0, rb"\s*<\?xml", "XML, perhaps a server's answer in the file's place", "Download the file itself."),
    (0, rb'(?s)\s*\{.*"weight_map"', "the index of a net in several files", "Choose a file that it names."),
    (0, rb"\s*[{\[]", "JSON", OTHER_FILE),
    (0, rb"\x89HDF\r\n", "HDF5, as Keras writes (.h5)", CONVERT),
    (0, rb"\x93NUMPY", "a NumPy array (.npy)", OTHER_FILE),
    (0, rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a\x32\x3a\x42]", "a protobuf, as ONNX and TensorFlow write", CONVERT),
    (0, rb"GGUF", "a GGUF file", CONVERT),
    (4, rb"TFL3", "a TensorFlow Lite model", CONVERT),
    (0, rb"\x1f\x8b", "gzip", UNPACK),
    (0, rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a compressed file", UNPACK),
    (257, rb"ustar", "a tar archive", UNPACK),
    (0, rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP", "a picture", OTHER_FILE),
    (4, rb"ftyp", "a picture or a film", OTHER_FILE),
    (0, rb"%PDF", "a PDF", OTHER_FILE),
    (0, rb"\x80[\2-\5]", "a plain Python pickle", "It is not opened, for it may run code. " + OTHER_FILE),
)  # fmt: skip


def is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, and the header in JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


def what_else(file: IO[bytes]) -> str:
    """A sentence or two on a file that is no weights at all; "" for safetensors and files of torch.save."""
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        return f"This is an empty file. {AGAIN}"
    if is_safetensors(head) or TORCH in head[:32]:
        return ""
    if head.startswith(b"PK"):
        return _zipped(file)
    for start, pattern, what, advice in BYTES:
        if re.match(pattern, head[start:], re.DOTALL):
            return f"This is no file of weights but {what}. {advice}"
    if text := _text(head):
        return f"This is no file of weights but text, which begins {text[:40]!r}. {OTHER_FILE}"
    return f"This is no file of weights that is known; it begins with the bytes {head[:4].hex(' ')}. {OTHER_FILE}"


def _zipped(file: IO[bytes]) -> str:
    if not zipfile.is_zipfile(file):
        return f"This is no whole file of weights but the beginning of one. {AGAIN}"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    file.seek(0)
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return f"This is no file of weights but a TorchScript program. {STATE_DICT}"
    if "data.pkl" in ends:
        return ""
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return f"This is no file of weights but a program of torch.export (.pt2). {STATE_DICT}"
    if "model.weights.h5" in ends:
        return f"This is no file of weights but a Keras model (.keras). {CONVERT}"
    if names and all(name.endswith(".npy") for name in names):
        return f"This is no file of weights but NumPy arrays (.npz). {OTHER_FILE}"
    first = f" with {names[0]!r:.60}" if names else ""
    return f"This is no file of weights but a zip archive{first}. {UNPACK}"


def _text(head: bytes) -> str:
    """The text that these bytes are, "" where they are none; the last character may be cut."""
    text = io.TextIOWrapper(io.BytesIO(head[: HEAD - 3]), "utf-8", "replace").read().strip("\ufeff")
    return text if all(c.isprintable() or c.isspace() for c in text) and "\ufffd" not in text else ""
