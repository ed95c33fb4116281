"""Pictures on disk, an .npz or a folder of class folders, read without trust into the fields of a `Dataset`."""

import functools
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resnet.data.photos import open_photo, photo_batch
from resnet.errors import Refused

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_IMAGES, MAX_FILE = 200_000, 256 * 2**20  # of a folder; bytes of one picture
MIN_SIZE, MAX_SIZE, MAX_CLASSES = 8, 1024, 100_000  # what a net may have
NEEDED = ("train_images", "train_labels", "test_images", "test_labels")
OPTIONAL = ("class_names", "source", "train_masks", "test_masks")
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def memory_limit() -> int:
    """Bytes that pictures may take: half of the machine's memory, or 4 GiB where it cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def check_memory(count: int, channels: int, size: int) -> None:
    """Refused where `count` pictures of `size` pixels would not fit."""
    needed, limit = count * channels * size * size, memory_limit()
    if needed > limit:
        received = f"{count:,} pictures at {size} x {size} pixels ({needed / 2**30:.1f} GiB)"
        raise Refused(_memory_rule(limit), received, "fewer pictures or a smaller size")


def _memory_rule(limit: int) -> str:
    return f"Pictures may take {limit / 2**30:.1f} GiB of this machine's memory."


def check_size(size: int) -> None:
    """Refused where no net takes pictures of `size` pixels."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise Refused(f"Pictures must be {MIN_SIZE} to {MAX_SIZE:,} pixels wide and high.", size, "another size")


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
    needed, limit = sum(header.bytes for header in headers.values()), memory_limit()
    if needed > limit:
        raise Refused(_memory_rule(limit), f"{needed / 2**30:.1f} GiB", "fewer pictures")
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


def read_folder(folder: Path, size: int) -> dict[str, Any]:
    """The fields of a `Dataset` but its name from folder/<class>/*, or from train/ and test/ (or val/) above that."""
    root = folder.resolve()
    try:
        parts = _split(root)
    except OSError as error:
        raise Refused(f"The folder {folder} cannot be read ({error.strerror or error}).") from None
    names = tuple(parts["train"])
    if len(names) < 2:
        raise Refused(f"{folder.name} must hold a folder of pictures for each of at least two classes.", len(names))
    if strange := [name for name in parts["test"] if name not in names]:
        raise Refused(
            f"{folder.name} has test pictures of classes without training pictures: {', '.join(strange[:5])}."
        )
    check_memory(sum(len(files) for part in parts.values() for files in part.values()), 3, size)
    fields: dict[str, Any] = {"class_names": names, "source": f"The pictures in the folder {folder.name}."}
    for part, classes in parts.items():
        files = [(path, names.index(name)) for name, paths in classes.items() for path in paths]
        if not files:
            raise Refused(f"{folder.name} has no {part} pictures. Add PNG, JPEG or WebP files.")
        fields[f"{part}_images"] = _read_files([path for path, _ in files], root, size)
        fields[f"{part}_labels"] = torch.tensor([label for _, label in files])
    return fields


def class_folders(folder: Path) -> list[Path]:
    """The visible folders directly in `folder`, by name; links that lead out of it are left out."""
    inside = (entry for entry in os.scandir(folder) if not entry.name.startswith("."))
    return sorted(Path(entry.path) for entry in inside if entry.is_dir() and confined(entry, folder))


def confined(entry: os.DirEntry[str], root: Path) -> bool:
    """False for a link that leads out of `root`."""
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root.resolve())


def picture_files(folder: Path, root: Path) -> Iterator[Path]:
    """The pictures directly in `folder`, in no order; links that lead out of `root` are left out."""
    for entry in os.scandir(folder):
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file() and confined(entry, root):
            yield Path(entry.path)


def _split(root: Path) -> dict[str, dict[str, list[Path]]]:
    """{"train" and "test": {class: files}}; without a split, every 5th picture of each class is a test picture."""
    folders = {path.name: path for path in class_folders(root)}
    budget = iter(range(MAX_IMAGES))
    if "train" in folders and class_folders(folders["train"]):
        held_out = folders.get("test") or folders.get("val")
        if held_out is None:
            raise Refused(
                f"{root.name} has train/ but neither test/ nor val/. Add one, or put the classes side by side."
            )
        found = {"train": folders["train"], "test": held_out}
        return {part: _classes(class_folders(path), root, budget) for part, path in found.items()}
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for name, files in _classes(list(folders.values()), root, budget).items():
        order = np.random.default_rng(0).permutation(len(files))
        test = set(order[::5].tolist()) if len(files) > 1 else set()
        parts["train"][name] = [path for index, path in enumerate(files) if index not in test]
        parts["test"][name] = [path for index, path in enumerate(files) if index in test]
    return parts


def _classes(folders: list[Path], root: Path, budget: Iterator[int]) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        for path in picture_files(folder, root):
            if next(budget, None) is None:
                raise Refused(f"{root.name} has more than {MAX_IMAGES:,} pictures. Use fewer.")
            classes.setdefault(folder.name, []).append(path)
    return {name: sorted(paths) for name, paths in classes.items()}


def _read_files(paths: list[Path], root: Path, size: int) -> Tensor:
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes without the GIL
        for index, image in enumerate(pool.map(functools.partial(_read_file, root=root, size=size), paths)):
            images[index] = image[0]
    return images


def _read_file(path: Path, root: Path, size: int) -> Tensor:
    return photo_batch(open_picture(path, root, at_least=2 * size), size)


def open_picture(path: Path, root: Path, at_least: int) -> Image.Image:
    """`open_photo` for a file below `root`, which the Refused then names."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise Refused(f"This file has more than {MAX_FILE // 2**20} MiB.")
        return open_photo(path.read_bytes(), at_least=at_least)
    except Refused as error:
        raise Refused(f"{path.relative_to(root)}: {error}") from None
    except OSError as error:
        raise Refused(f"{path.relative_to(root)} cannot be read ({error.strerror or error}).") from None
