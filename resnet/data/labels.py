"""Labels of any kind as classes that count from 0: numbers from 1, words, one-hot rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet.errors import Refused

MAX_CLASSES = 100_000  # as in NetSpec
NAMED = 5  # labels that a sentence names
Arrays = dict[str, NDArray[Any]]  # by part: train and test, or all
Numbers = dict[str, NDArray[np.int64]]


def classes(labels: Arrays, names: NDArray[Any] | None) -> tuple[Numbers, tuple[str, ...], list[str]]:
    """Numbers (N,) of each part, the classes' names, and what was done. Refused for labels that are no classes."""
    known = None if names is None else _texts(names).tolist()
    notes: list[str] = []
    if {array.dtype.kind in "US" for array in labels.values()} == {True}:
        numbers, known = _words({part: _texts(array) for part, array in labels.items()}, known)
        notes.append(f"The labels are words: {len(known)} classes, in the order of their names.")
    else:
        numbers = {part: _whole(array, f"{part}_labels", notes) for part, array in labels.items()}
        from_1 = _count_from_0(numbers, known, notes)
        known = _numbered(numbers, int(from_1)) if known is None else known
    highest = max(int(part.max()) for part in numbers.values())
    if highest >= len(known):
        raise Refused(f"Label {highest} is out of range for {len(known)} class_names: labels count from 0.")
    if len(known) < 2:
        raise Refused("A data set needs at least two classes.", len(known))
    return numbers, tuple(known), list(dict.fromkeys([*notes, *_untrained(numbers, known)]))


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return array.reshape(-1)


def _words(labels: Arrays, known: list[str] | None) -> tuple[Numbers, list[str]]:
    """In the order of `known` where it has all of them, else by name."""
    found = {part: np.unique(array).tolist() for part, array in labels.items()}
    first, *others = found
    if missing := sorted({word for part in others for word in found[part]} - set(found[first])):
        raise Refused(f"{first}_labels has none of {', '.join(map(repr, missing[:NAMED]))}, and others have.")
    order = known if known is not None and set(found[first]) <= set(known) else found[first]
    place = {word: number for number, word in enumerate(order)}
    numbers = {part: np.array([place[word] for word in array.tolist()], np.int64) for part, array in labels.items()}
    return numbers, list(order)


def _whole(array: NDArray[Any], key: str, notes: list[str]) -> NDArray[np.int64]:
    if array.dtype.kind in "US":
        raise Refused("Labels must be words in all parts, or numbers in all.", f"{key} of {array.dtype}")
    if array.ndim == 2 and array.shape[1] > 1:
        notes.append(f"The labels came as rows of {array.shape[1]} with a single 1, and became its place.")
        return _places(array, key)
    array = array.reshape(-1)
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.round(array))).all():
        raise Refused(f"{key} must be whole numbers or words.", f"{array.dtype} with fractions, NaN or infinity")
    low, high = array.min().item(), array.max().item()
    if low < 0 or high > MAX_CLASSES:
        raise Refused(f"{key} must count from 0, up to {MAX_CLASSES - 1:,}.", f"{int(low)} to {int(high)}")
    return array.astype(np.int64)


def _places(array: NDArray[Any], key: str) -> NDArray[np.int64]:
    ones = array == 1
    if not (ones | (array == 0)).all() or not (ones.sum(1) == 1).all():
        rule = f"{key} has several labels for each picture, or shares of them: one number for each is needed."
        raise Refused(rule, f"shape {array.shape}", "one class of each picture")
    return ones.argmax(1).astype(np.int64)


def _count_from_0(numbers: Numbers, known: list[str] | None, notes: list[str]) -> bool:
    """Whether they counted from 1: a class keeps the name that it had."""
    low = min(int(part.min()) for part in numbers.values())
    high = max(int(part.max()) for part in numbers.values())
    from_1 = low == 1 and (known is None or len(known) == high)
    if from_1:
        for part in numbers.values():
            part -= 1
        notes.append(f"The labels count from 1 to {high}: they were made to count from 0.")
        high -= 1
    if high >= MAX_CLASSES:
        raise Refused(f"Labels must count from 0, up to {MAX_CLASSES - 1:,}.", high)
    return from_1


def _numbered(numbers: Numbers, first: int) -> list[str]:
    highest = max(int(part.max()) for part in numbers.values())
    if highest >= (count := len(next(iter(numbers.values())))):
        raise Refused(f"Label {highest} is out of range for {count} training images.")
    return [str(label + first) for label in range(highest + 1)]


def _untrained(numbers: Numbers, known: list[str]) -> list[str]:
    lacking = np.setdiff1d(np.arange(len(known)), next(iter(numbers.values())))
    if not len(lacking):
        return []
    some = ", ".join(known[label] for label in lacking[:NAMED]) + (" and others" if len(lacking) > NAMED else "")
    return [f"{len(lacking):,} of {len(known):,} classes have no training picture: {some}."]
