"""Folders of pictures, one folder for each class, listed and read without trust."""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnet.data.photos import open_photo, photo_batch
from resnet.data.sizes import check_memory
from resnet.errors import Refused

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_IMAGES, MAX_FILE = 200_000, 256 * 2**20  # of a folder; bytes of one picture


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
