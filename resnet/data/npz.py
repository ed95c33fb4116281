"""An .npz of pictures and labels, read without trust into the fields of a `Dataset`."""

import functools
import lzma
import re
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnet.data.arrays import MAX_CHANNELS, Axes, axes, pixels
from resnet.data.labels import classes
from resnet.data.sizes import check_bytes, check_size
from resnet.data.split import every_fifth
from resnet.errors import Refused

PARTS = {
    "train": ("train", "training", "trainset", "tr"),
    "test": ("test", "testing", "testset", "te"),
    "val": ("val", "valid", "validation", "dev"),
    "all": ("",),
}
THINGS = {
    "images": ("images", "image", "imgs", "img", "pictures", "x", "data", "inputs", "features"),
    "labels": ("labels", "label", "y", "targets", "target"),
    "masks": ("masks", "mask"),
}
ROLES = {  # by a key's letters alone, small: x_train, trainX, Train-Images
    letters: f"{part}_{thing}"
    for part, part_words in PARTS.items()
    for thing, words in THINGS.items()
    for part_word in part_words
    for word in words
    for letters in (part_word + word, word + part_word)
} | {"classnames": "class_names", "labelnames": "class_names", "source": "source"}
KINDS = {"images": "buif", "labels": "buifUS", "masks": "bu", "names": "US", "source": "US"}  # of NumPy's dtypes
WORDS = {"images": "numbers", "labels": "numbers or text", "masks": "bool or uint8", "names": "text", "source": "text"}
NAMED = 10  # keys that a sentence names
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    SyntaxError,
    ArithmeticError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,  # of a header, which NumPy reads as a line of Python
)


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
            members, notes = _members(archive)
            found = _check_headers({role: _header(archive, member) for role, member in members.items()})
            arrays = {role: _array(archive, member) for role, member in members.items()}
        return _fields(arrays, found, notes)
    except Refused as error:
        raise Refused(f"{path.name}: {error}") from None
    except zipfile.BadZipFile:
        raise Refused(f"{path.name} is not an .npz file, or is damaged. Write it with numpy.savez.") from None
    except (*_DAMAGED, MemoryError) as error:
        raise Refused(f"{path.name} cannot be read ({error}). Write it again with numpy.savez.") from None


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """By role what is read, val in the place of test where there is none, and a sentence on the rest."""
    keys = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    by_role: dict[str, str] = {}
    for key in keys:
        by_role.setdefault(ROLES.get(re.sub("[^a-z]", "", key.lower()), ""), key)
    whole = [part for part in PARTS if {f"{part}_images", f"{part}_labels"} <= by_role.keys()]
    train = next((part for part in ("train", "all") if part in whole), "")
    held_out = next((part for part in ("test", "val") if part in whole), "")
    if train and held_out:
        taken, notes = {train: "train", held_out: "test"}, []
    elif train == "all":
        taken, notes = {"all": "all"}, ["Every 5th picture of each class is a test picture, for the file has no parts."]
    else:
        raise _lacking(by_role, keys)
    if held_out == "val":
        notes.append(f"The test pictures are {by_role['val_images']}, for there are none of a test.")
    names = {f"{part}_{thing}": f"{role}_{thing}" for part, role in taken.items() for thing in THINGS}
    names |= {"class_names": "class_names", "source": "source"}
    used = {role: by_role[name] for name, role in names.items() if name in by_role}
    if left := [key[:40] for key in keys if key not in used.values()]:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        notes.append(f"Not read: {', '.join(left[:NAMED])}{more}.")
    return {role: keys[key] for role, key in used.items()}, notes


def _lacking(by_role: dict[str, str], keys: dict[str, zipfile.ZipInfo]) -> Refused:
    needed = ("train_images", "train_labels", "test_images", "test_labels")
    missing = ", ".join(role for role in needed if role not in by_role)
    found = ", ".join(key[:40] for key in sorted(keys)[:20]) or "nothing"
    return Refused(
        f"It lacks {missing} (or others of these names: x_train, y_val, ...). Found {found}. Add what is missing."
    )


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


def _check_headers(headers: dict[str, Header]) -> Axes:
    """How the pictures lie, of all parts in the same way."""
    for role, header in headers.items():
        _check_kind(role, header)
        if header.bytes != header.room:
            raise Refused(f"{role} should be {header}, but the file has {header.room:,} bytes for it. Write it again.")
    parts = [role.removesuffix("_images") for role in headers if role.endswith("_images")]
    images = {part: headers[f"{part}_images"] for part in parts}
    copies = sum(header.bytes // header.dtype.itemsize for header in images.values() if header.dtype != np.uint8)
    check_bytes(sum(header.bytes for header in headers.values()) + copies, "arrays")
    for part, header in images.items():
        _check_part(part, header.shape, headers)
    if len(shapes := {header.shape[1:] for header in images.values()}) > 1:
        raise Refused("Training and test images must have the same shape.", " and ".join(map(str, sorted(shapes))))
    return axes("images", images[parts[0]].shape)


def _check_kind(role: str, header: Header) -> None:
    thing = role.split("_")[-1]
    wide_mask = thing == "masks" and header.dtype.itemsize != 1
    if header.dtype.kind not in KINDS[thing] or wide_mask or (thing == "images" and header.dtype.itemsize > 8):
        never = "; Python objects are never read" if header.dtype.hasobject else ""
        raise Refused(f"{role} must be {WORDS[thing]}{never}.", header.dtype)


def _check_part(part: str, shape: tuple[int, ...], headers: dict[str, Header]) -> None:
    labels = headers[f"{part}_labels"].shape
    if labels and shape and shape[-1] == labels[0] > MAX_CHANNELS and shape[0] != labels[0]:  # as MATLAB keeps them
        rule = f"{part}_images has its pictures along the last axis: put them first with np.moveaxis(images, -1, 0)."
        raise Refused(rule, shape)
    found = axes(f"{part}_images", shape)
    if found.count < 1:
        raise Refused(f"{part}_images is empty. At least one picture is needed.")
    check_size(found.size)
    if len(labels) not in (1, 2) or labels[0] != found.count or 0 in labels:
        raise Refused(f"{part}_labels must be one number or word for each of the {found.count} images.", labels)
    masks, plane = headers.get(f"{part}_masks"), (found.size, found.size)
    if masks is not None and masks.shape not in ((found.count, *plane, *last) for last in ((), (1,))):
        raise Refused(f"{part}_masks must have the shape {(found.count, *plane)} of the images.", masks.shape)


def _fields(arrays: dict[str, NDArray[Any]], found: Axes, notes: list[str]) -> dict[str, Any]:
    def by_part(thing: str) -> dict[str, NDArray[Any]]:
        return {role.split("_")[0]: arrays.pop(role) for role in list(arrays) if role.endswith(f"_{thing}")}

    labels, masks = by_part("labels"), by_part("masks")
    numbers, names, said = classes(labels, arrays.get("class_names"))
    planes, done = pixels(by_part("images"), found)
    source = arrays.get("source", np.array("")).reshape(-1)[:1].astype(str)
    fields: dict[str, Any] = {"class_names": names, "source": "".join(source), "notes": (*notes, *done, *said)}
    for part in planes:
        mask = masks[part].reshape(-1, found.size, found.size) != 0 if part in masks else None
        fields[f"{part}_images"], fields[f"{part}_labels"] = planes[part], torch.from_numpy(numbers[part])
        fields[f"{part}_masks"] = None if mask is None else torch.from_numpy(mask)
    return _split(fields) if "all" in planes else fields


def _split(fields: dict[str, Any]) -> dict[str, Any]:
    """Every 5th picture of each class held out, as in folders."""
    parts = {thing: fields.pop(f"all_{thing}") for thing in THINGS}
    tests = torch.zeros(len(parts["labels"]), dtype=torch.bool)
    for label in parts["labels"].unique():
        rows = torch.where(parts["labels"] == label)[0]
        tests[rows[every_fifth(len(rows))]] = True
    if not tests.any():
        raise Refused("At least one class needs two pictures, so that one can be held out for the test.")
    for part, rows in (("train", ~tests), ("test", tests)):
        fields |= {f"{part}_{thing}": None if of is None else of[rows] for thing, of in parts.items()}
    return fields
