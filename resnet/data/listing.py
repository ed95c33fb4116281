"""Which files of a folder are pictures of which class, for training or for tests: one listing for all readers."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnet import limits
from resnet.data.split import every_fifth
from resnet.data.walk import Classes, Walk, apart, first_of, readable, tokens
from resnet.errors import Refused

WORDS = {"train": {"train", "training"}, "test": {"test", "testing"}, "val": {"val", "valid", "validation"}}
LAYOUT = "a folder of pictures for each of at least two classes, side by side or in train/ and test/ (or val/)"


@dataclass(frozen=True, eq=False)
class Listing:
    """Files (N,), as bytes below `root`, with labels int64 (N,): a function of the folder's content alone.

    A path's place in its class is that of its bytes, a class's place that of its folder's name.
    """

    root: Path
    class_names: tuple[str, ...]
    train_files: np.ndarray
    train_labels: Tensor
    test_files: np.ndarray
    test_labels: Tensor
    notes: tuple[str, ...]  # sentences: what was chosen, and what was left out

    @property
    def files(self) -> np.ndarray:
        """Those for training before those for tests."""
        return np.concatenate([self.train_files, self.test_files])

    def without(self, broken: Mapping[int, Refused]) -> "Listing":
        """All but these rows of `files`. Refused where they are more than `limits.BROKEN_SHARE`, or all of a class."""
        if not broken:
            return self
        files, share = self.files, limits.BROKEN_SHARE
        said = f"{len(broken):,} of {len(files):,} pictures"
        names = first_of(os.fsdecode(files[row]) for row in broken)
        if len(broken) > share * len(files):
            first = next(iter(broken.values()))
            rule = f"{said} in {readable(self.root.name)} cannot be read, and {share:.0%} of them may be left out"
            raise Refused(f"{rule}: {names}. The first is {first}")
        kept = np.ones(len(files), bool)
        kept[list(broken)] = False
        train, test = np.split(kept, [len(self.train_files)])
        return dataclasses.replace(
            self,
            train_files=self.train_files[train],
            train_labels=self.train_labels[torch.from_numpy(train)],
            test_files=self.test_files[test],
            test_labels=self.test_labels[torch.from_numpy(test)],
            notes=(*self.notes, f"Left out as unreadable: {said} ({names})."),
        )._checked(len(self.train_files) > 0)

    def _checked(self, trains: bool) -> "Listing":
        """Refused without test pictures, and where it `trains` without training pictures of a class."""
        name, counts = readable(self.root.name), torch.bincount(self.train_labels, minlength=len(self.class_names))
        if trains and (bare := [self.class_names[label] for label in torch.where(counts == 0)[0]]):
            raise Refused(f"{name} has no training pictures that can be read of {first_of(bare)}.")
        if not len(self.test_files):
            raise Refused(f"{name} has no test pictures: each class needs two pictures, or put some into test/.")
        return self


def list_folder(folder: Path, limit: int | None = None, tests_only: bool = False) -> Listing:
    """The pictures in folder/<class>/**, or in train/<class>/** and test/<class>/** (or val/), one folder down or not.

    Without such parts every 5th picture of each class is for tests. `tests_only`: there are no training pictures, and
    without parts all are for tests. Refused for more pictures than `limit`, and for folders of another layout.
    """
    root = folder.resolve()
    walk = Walk(root, limit)
    try:
        return _listed(walk, root, tests_only)
    except OSError as error:
        where = readable(os.fspath(error.filename or folder))
        raise Refused(f"The folder {where} cannot be read ({error.strerror or error}).") from None


def _listed(walk: Walk, root: Path, tests_only: bool) -> Listing:
    top = _top(walk)
    parts = _parts(walk, top, tests_only)
    train, test, notes = _split(walk, top, parts, tests_only) if parts else _whole(walk, top, tests_only)
    classes = test if tests_only else train
    if len(classes) < (1 if tests_only else 2):
        found = " ".join([f"{walk.inside(top)}.", *walk.notes()]).removesuffix(".")
        raise Refused(f"{readable(root.name)} must hold {LAYOUT}.", found)
    if strange := [name for name in test if name not in classes]:
        words = f"has test pictures of classes without training pictures: {first_of(strange)}"
        raise Refused(f"{readable(root.name)} {words}. Add some, or remove these.")
    raw = sorted(classes)
    (files, labels), (test_files, test_labels) = _rows(train, raw), _rows(test, raw)
    notes += walk.notes()
    listing = Listing(root, tuple(apart(raw).values()), files, labels, test_files, test_labels, tuple(notes))
    return listing._checked(not tests_only)


def _rows(classes: Classes, names: list[str]) -> tuple[np.ndarray, Tensor]:
    """Bytes of one width, so that they are one block of memory which all processes share, and the labels."""
    files = [file for name in names for file in classes.get(name, [])]
    counts = torch.tensor([len(classes.get(name, [])) for name in names])
    return np.array(files, np.bytes_), torch.arange(len(names)).repeat_interleave(counts)


def _top(walk: Walk) -> str:
    """Where the classes or the parts lie: the root, or below folders that hold nothing but the next one."""
    here = walk.root
    while len(inside := walk.folders(here)) == 1 and not _named(inside) and not walk.holds_pictures(here):
        [here] = inside.values()
    return here if len(inside) > 1 or _named(inside) else walk.root


def _named(names: Iterable[str]) -> dict[str, list[str]]:
    """By part the names that are one of its words."""
    found = {part: [name for name in names if name.lower() in words] for part, words in WORDS.items()}
    return {part: called for part, called in found.items() if called}


def _worded(names: Iterable[str]) -> dict[str, list[str]]:
    """By part the names that have one of its words in them: seg_train, test-set."""
    found = {part: [name for name in names if words & tokens(name)] for part, words in WORDS.items()}
    return {part: called for part, called in found.items() if called}


def _parts(walk: Walk, top: str, tests_only: bool) -> dict[str, str]:
    """By part its folder, of which one is for tests; {} where `top` holds the classes themselves."""
    folders = walk.folders(top)
    named = _named(folders)
    for found in (named, _worded(folders)):
        trains = "train" in found and (found is named or any(walk.folders(folders[name]) for name in found["train"]))
        if found.keys() - {"train"} and (trains or (tests_only and len(found) == len(folders))):
            if two := next((names for names in found.values() if len(names) > 1), None):
                raise Refused(f"{walk.shown(top)} has two folders for one part, {first_of(two)}. Leave one of them.")
            return {part: folders[name] for part, [name] in found.items()}
    for name in chain.from_iterable(named.values()):
        if walk.folders(folders[name]) and not walk.holds_pictures(folders[name]):
            lack = "neither test/ nor val/" if name in named.get("train", []) else "no train/"
            rule = f"{walk.shown(top)} has {readable(name)}/ but {lack}. Add one, or put the classes side by side."
            raise Refused(rule, walk.inside(top), f"the folder {readable(name)} itself, to use a part of it for tests")
    return {}


def _split(walk: Walk, top: str, parts: dict[str, str], tests_only: bool) -> tuple[Classes, Classes, list[str]]:
    """What is trained on, what is tested on, and in words which of test/ and val/ that is."""
    walk.leave_beside(top, parts.values())
    at = {part: walk.undoubled(path) for part, path in parts.items()}
    names = walk.folders(at["train"]).keys() if "train" in at else set[str]()
    if not (names or tests_only):
        rule = f"{walk.shown(at['train'])}/ must hold a folder of pictures for each class."
        raise Refused(rule, walk.inside(at["train"]))
    held_out = [at[part] for part in ("test", "val") if part in at]
    chosen, test = _held_out(walk, held_out, names)
    train = {} if tests_only else walk.labelled(at["train"])
    notes = [f"The tests use {walk.shown(chosen)}/."] if len(held_out) > 1 else []
    if chosen != held_out[0]:
        notes.append(f"{walk.shown(held_out[0])}/ has no folder with the name of a class and is left out.")
    elif notes:
        notes.append(f"{walk.shown(held_out[1])}/ is left out.")
    return train, test, notes


def _held_out(walk: Walk, paths: list[str], names: Set[str]) -> tuple[str, Classes]:
    """The first of the folders that has a class of those names, or any class where there are none, and its classes.

    A test/ without is that of a competition: pictures whose classes are not told.
    """
    for path in paths:
        classes = walk.labelled(path)
        if classes and not (names and names.isdisjoint(classes)):
            return path, classes
    rule = f"{walk.shown(paths[0])}/ must hold a folder of pictures for each class, named as in train/."
    raise Refused(rule, walk.inside(paths[0]))


def _whole(walk: Walk, top: str, tests_only: bool) -> tuple[Classes, Classes, list[str]]:
    """All for tests, or of each class every 5th picture, the same ones each time."""
    classes = walk.classes(top)
    if tests_only:
        return {}, classes, ["All pictures of the folder are tested on."]
    train: Classes = {}
    test: Classes = {}
    for name, files in classes.items():
        tests = set(every_fifth(len(files)).tolist())
        train[name] = [file for row, file in enumerate(files) if row not in tests]
        test[name] = [files[row] for row in sorted(tests)]
    return train, test, ["Every 5th picture of each class is for tests."]
