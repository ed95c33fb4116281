"""An .npz of pictures and labels, read without trust into the fields of a `Dataset`."""

import functools
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet.data.sizes import check_bytes, check_size
from resnet.errors import Refused

MAX_CLASSES = 100_000  # as in NetSpec
NEEDED = ("train_images", "train_labels", "test_images", "test_labels")
OPTIONAL = ("class_names", "source", "train_masks", "test_masks")
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Header:
    """What an .npz says of one array before it is read; `room` are the bytes that the file has for it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    room: int

    @property
    def bytes(self) -> int:
        return functools.reduce(int.__mul__, self.shape, self.dtype.itemsize)

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


def read_npz(path: Path) -> dict[str, Any]:
    """The fields of a `Dataset` but its name; every header is checked before any array is read. Never unpickles."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            _check_headers({key: _header(archive, member) for key, member in members.items()})
            arrays = {key: _array(archive, member) for key, member in members.items()}
    except Refused as error:
        raise Refused(f"{path.name}: {error}") from None
    except zipfile.BadZipFile:
        raise Refused(f"{path.name} is not an .npz file, or is damaged. Write it with numpy.savez.") from None
    except (*_DAMAGED, MemoryError) as error:
        raise Refused(f"{path.name} cannot be read ({error}). Write it again with numpy.savez.") from None
    return _fields(arrays, path.name)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if missing := [key for key in NEEDED if key not in members]:
        found = ", ".join(sorted(members)[:20]) or "nothing"
        raise Refused(f"It lacks {', '.join(missing)}. Found {found}. Add what is missing.")
    return {key: members[key] for key in (*NEEDED, *OPTIONAL) if key in members}


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"array format {version}")
        shape, _, dtype = read(file)
        return Header(shape, dtype, member.file_size - file.tell())


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_headers(headers: dict[str, Header]) -> None:
    for key, header in headers.items():
        _check_kind(key, header)
        if header.bytes != header.room:
            raise Refused(f"{key} should be {header}, but the file has {header.room:,} bytes for it. Write it again.")
    check_bytes(sum(header.bytes for header in headers.values()), "arrays")
    for part in ("train", "test"):
        images, labels = headers[f"{part}_images"].shape, headers[f"{part}_labels"].shape
        _check_images(f"{part}_images", images)
        if labels not in ((images[0],), (images[0], 1)):
            raise Refused(f"{part}_labels must be one number for each of the {images[0]} images.", f"shape {labels}")
        masks = headers.get(f"{part}_masks")
        if masks is not None and masks.shape not in (images[:3], (*images[:3], 1)):
            raise Refused(f"{part}_masks must have the shape {images[:3]} of the images.", masks.shape)
    train, test = headers["train_images"].shape, headers["test_images"].shape
    if train[1:] != test[1:]:
        raise Refused("Training and test images must have the same shape.", f"{train[1:]} and {test[1:]}")


def _check_kind(key: str, header: Header) -> None:
    kinds, wanted = {"images": ("u", "uint8"), "labels": ("iu", "integers"), "masks": ("bu", "bool or uint8")}.get(
        key.split("_")[-1], ("U", "text (a unicode array)")
    )
    wrong_width = wanted != "integers" and header.dtype.kind in "u" and header.dtype.itemsize != 1
    if header.dtype.kind not in kinds or wrong_width:
        never = "; Python objects are never read" if header.dtype.hasobject else ""
        raise Refused(f"{key} must be {wanted}{never}.", header.dtype)


def _check_images(key: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise Refused(f"{key} must be (N, H, W), (N, H, W, 1) or (N, H, W, 3).", shape)
    if shape[0] < 1:
        raise Refused(f"{key} is empty. At least one picture is needed.")
    if shape[1] != shape[2]:
        raise Refused(f"{key} must be square: crop or resize the pictures.", f"{shape[1]} x {shape[2]} pixels")
    check_size(shape[1])


def _fields(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, Any]:
    try:
        labels = {part: _labels(arrays[f"{part}_labels"], f"{part}_labels") for part in ("train", "test")}
        names = _class_names(arrays.get("class_names"), labels)
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    source = arrays.get("source", np.array(""))
    fields: dict[str, Any] = {"class_names": names, "source": str(source.flat[0]) if source.size else ""}
    for part in ("train", "test"):
        fields[f"{part}_images"] = _planes(arrays.pop(f"{part}_images"))
        fields[f"{part}_labels"] = torch.from_numpy(labels[part])
        masks = arrays.get(f"{part}_masks")
        fields[f"{part}_masks"] = (
            None if masks is None else torch.from_numpy(masks.reshape(len(masks), *masks.shape[1:3]) != 0)
        )
    return fields


def _planes(images: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()  # (N, C, S, S)


def _labels(labels: NDArray[Any], key: str) -> NDArray[np.int64]:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MAX_CLASSES:
        raise Refused(f"{key} must count from 0, up to {MAX_CLASSES - 1:,}.", f"{low} to {high}")
    return labels.reshape(-1).astype(np.int64)


def _class_names(names: NDArray[Any] | None, labels: dict[str, NDArray[np.int64]]) -> tuple[str, ...]:
    highest = max(int(part.max()) for part in labels.values())
    if names is None:
        if highest >= len(labels["train"]):
            raise Refused(f"Label {highest} is out of range for {len(labels['train'])} training images.")
        names = np.array([str(label) for label in range(highest + 1)])
    if names.ndim != 1 or highest >= len(names):
        raise Refused(f"Label {highest} is out of range for class_names of shape {names.shape}: labels count from 0.")
    if len(names) < 2:
        raise Refused("A data set needs at least two classes.", len(names))
    return tuple(str(name) for name in names)
