"""What torch.save wrote, read without running anything of it.

torch.load(weights_only=True) calls only what a list of names allows. Beside torch's own list stand here the few other
classes that training scripts save beside the weights. None of them is ever looked up: a stand-in of ours takes its
place, which keeps the numbers of an array and nothing else.
"""

import re
import zipfile
from collections.abc import Iterator
from threading import Lock
from typing import IO, Any

import numpy as np
import torch

from resnet.errors import Refused

_LOCK = Lock()  # the list of allowed names is the whole process's


class Ignored:
    """Options, paths: no weights."""

    def __new__(cls, *args: object) -> "Ignored":
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class DType:
    """A numpy.dtype of numbers or text; Refused for any other, such as Python objects."""

    def __init__(self, name: str, *options: object) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[biufcSU]\d{1,9}", name):
            raise Refused(f"Arrays beside weights hold numbers. Received a NumPy array of kind {name!r:.40}.")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder("<" if state[1] == "<" else ">" if state[1] == ">" else "|")


class NDArray:
    """A numpy.ndarray; `values` look into the file's own bytes, so that a shape that claims more is an error."""

    values = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, fortran, raw = state[-4:]
        self.values = np.ndarray(shape, kind.dtype, raw, order="F" if fortran else "C")

    def tensor(self) -> torch.Tensor:
        """A copy; TypeError for what is no tensor's kind, as text."""
        return torch.from_numpy(self.values.astype(self.values.dtype.newbyteorder("=")))


def _reconstruct(*args: object) -> NDArray:
    return NDArray()


def _scalar(*args: object) -> None:
    """A best accuracy or the like."""


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
STAND_INS: dict[str, Any] = {
    "argparse.Namespace": Ignored,
    **{f"{module}.{name}": Ignored for module in ("pathlib", "pathlib._local") for name in _PATHS},
    "numpy.dtype": DType,
    "numpy.ndarray": NDArray,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}


def load(file: IO[bytes]) -> object:
    """The content, with tensors on the CPU and arrays as NDArray; any exception for a damaged or hostile file.

    A bytearray, which torch allows, is refused: it takes as much memory as a number in the file says.
    """
    if any(b"\nbytearray\n" in pickle for pickle in _pickles(file)):
        raise Refused("Weights are tensors and nothing else. Received a bytearray.")
    file.seek(0)
    with _LOCK, torch.serialization.safe_globals([(thing, name) for name, thing in STAND_INS.items()]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _pickles(file: IO[bytes]) -> Iterator[bytes]:
    """Of a zip archive those that torch.load reads; the whole of an older file."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        yield file.read()
        return
    with zipfile.ZipFile(file) as archive:
        yield from (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
