"""The pictures of a folder, read without trust: decoded into memory, or looked at once before they are streamed."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from resnet.data.listing import Listing, list_folder
from resnet.data.photos import check_header, open_photo, photo_batch
from resnet.data.sizes import check_memory
from resnet.data.walk import readable
from resnet.devices import cores
from resnet.errors import Refused

MAX_IMAGES, MAX_FILE = 200_000, 256 * 2**20  # of a folder in memory; bytes of one picture
MAX_DECODED = 20_000  # pictures that are decoded before a streamed training: seconds; of ImageNet half an hour
AT_ONCE = 4096  # files given to the threads together: a million waiting ones would take a gigabyte
Changes = tuple[str, ...]  # made in reading a picture, as sentences
T = TypeVar("T")


def read_folder(folder: Path, size: int, tests_only: bool = False) -> dict[str, Any]:
    """The fields of a `Dataset` but its name, of the pictures that `list_folder` finds.

    `tests_only`: a single picture stands for the training set. Refused for too many pictures, or broken ones.
    """
    listing = list_folder(folder, MAX_IMAGES, tests_only)
    check_memory(len(listing.files), 3, size)
    images, broken, changes = torch.empty(len(listing.files), 3, size, size, dtype=torch.uint8), {}, {}
    for row, found in enumerate(_each(listing, lambda path: _read_file(path, listing.root, size))):
        if isinstance(found, Refused):
            broken[row] = found
        else:
            images[row - len(broken)], changes[row] = found
    left = listing.without(broken)
    trained, tested = len(left.train_labels), len(left.test_labels)
    train, test = images[: trained + tested].split([trained, tested])
    return {
        "train_images": test[:1] if tests_only else train,
        "train_labels": left.test_labels[:1] if tests_only else left.train_labels,
        "test_images": test,
        "test_labels": left.test_labels,
        "class_names": left.class_names,
        "source": f"The pictures in the folder {readable(left.root.name)}.",
        "notes": (*left.notes, *_told(listing, changes)),
    }


def list_readable(folder: Path) -> Listing:
    """`list_folder` without the pictures that cannot be read, as far as one look at each of them tells.

    Up to MAX_DECODED are decoded, of more only the headers are read; a note says which. Refused for too many broken.
    """
    listing = list_folder(folder)
    count, look = len(listing.files), _decode
    note = f"Each of the {count:,} pictures was decoded once, to see that it can be read."
    if count > MAX_DECODED:
        note = f"Only the headers of the {count:,} pictures were read; one damaged further on ends the training."
        look = _check_header
    broken, changes = {}, {}
    for row, found in enumerate(_each(listing, lambda path: look(path, listing.root))):
        if isinstance(found, Refused):
            broken[row] = found
        else:
            changes[row] = found
    left = listing.without(broken)
    return dataclasses.replace(left, notes=(*left.notes, *_told(listing, changes), note))


def _told(listing: Listing, changes: dict[int, Changes]) -> list[str]:
    """What was changed in reading the pictures of these rows: sentences that differ in numbers alone count as one."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for row, sentences in changes.items():
        for sentence in sentences:
            alike.setdefault(re.sub(r"[\d.,]+", "", sentence), []).append((row, sentence))
    files = listing.files
    firsts = [(len(all_), readable(os.fsdecode(files[all_[0][0]])), all_[0][1]) for all_ in alike.values()]
    return [f"Changed in {count:,} pictures, as in {name}: {sentence}" for count, name, sentence in firsts]


def open_picture(path: Path, root: Path, at_least: int) -> Image.Image:
    """`open_photo` for a file below `root`, which the Refused then names."""
    with _named(path, root):
        return open_photo(path.read_bytes(), at_least=at_least)


def _each(listing: Listing, read: Callable[[Path], T]) -> Iterator[T | Refused]:
    """For each of the files, in their order, what `read` makes of it or its Refused; Pillow decodes without the GIL."""

    def tried(file: bytes) -> T | Refused:
        try:
            return read(listing.root / os.fsdecode(file))
        except Refused as error:
            return error

    files = listing.files
    with ThreadPoolExecutor(cores()) as pool:
        for first in range(0, len(files), AT_ONCE):
            yield from pool.map(tried, files[first : first + AT_ONCE])


def _read_file(path: Path, root: Path, size: int) -> tuple[Tensor, Changes]:
    photo = open_picture(path, root, at_least=2 * size)
    return photo_batch(photo, size)[0], _changes(photo)


def _decode(path: Path, root: Path) -> Changes:
    return _changes(open_picture(path, root, at_least=1))


def _changes(photo: Image.Image) -> Changes:
    notes = photo.info.get("notes")
    return notes if isinstance(notes, tuple) else ()  # a file may have a word of that name


def _check_header(path: Path, root: Path) -> Changes:
    with _named(path, root), open(path, "rb") as file:
        check_header(file)
    return ()


@contextmanager
def _named(path: Path, root: Path) -> Iterator[None]:
    """What goes wrong with a file below `root` as a Refused that names it, a file that is too large among it."""
    name = readable(os.fspath(path.relative_to(root)))
    try:
        if path.stat().st_size > MAX_FILE:
            raise Refused(f"This file has more than {MAX_FILE // 2**20} MiB.")
        yield
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    except OSError as error:
        raise Refused(f"{name} cannot be read ({error.strerror or error}).") from None
