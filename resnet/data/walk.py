"""A walk through a folder that somebody made by hand: what is in it, without hidden files and without leaving it."""

import os
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from resnet.data.formats import SUFFIXES
from resnet.errors import Refused

LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # what systems leave in folders, beside names with a dot
ANNOTATIONS = "annotations.txt"  # Tiny-ImageNet's val_annotations.txt: a line for each picture
MAX_ANNOTATIONS = 256 * 2**20  # bytes of it
NAMED = 3  # of the names that a sentence would have
NO_PICTURE = "no picture by its name"
Classes = dict[str, list[bytes]]  # by name of each class its pictures, relative to the root


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is nothing that a person put there."""
    return name.startswith(".") or name.lower() in LITTER


def readable(name: str) -> str:
    """A name or path as text that every screen and file takes: bytes that are no UTF-8 become \\xe9 and the like."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def apart(names: Iterable[str]) -> dict[str, str]:
    """By name its readable form; a number tells those apart that would read the same."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        text, number = readable(name), 2
        while text in taken:
            text, number = f"{readable(name)} ({number})", number + 1
        taken.add(text)
        found[name] = text
    return found


def tokens(name: str) -> set[str]:
    return set(re.split("[^a-z]+", name.lower()))


def first_of(names: Iterable[str]) -> str:
    """The first few names, readable, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return ", ".join(map(readable, found[:NAMED])) + more


class Walk:
    """Looks through `root`, and keeps by reason the names of what it passes over.

    Links are followed where they stay below `root`. Refused for more than `limit` pictures.
    """

    def __init__(self, root: Path, limit: int | None) -> None:
        self.root, self.limit, self.count = os.fspath(root), limit, 0
        self.start = len(os.path.join(self.root, ""))
        self.left: defaultdict[str, set[str]] = defaultdict(set)
        self.deep: set[str] = set()  # the folders of pictures in a class's folder

    def folders(self, folder: str) -> dict[str, str]:
        """By name the paths of the folders directly in `folder`."""
        return {entry.name: entry.path for entry in self._entries(folder) if entry.is_dir()}

    def holds_pictures(self, folder: str) -> bool:
        return any(_named_as_picture(entry) for entry in self._entries(folder))

    def undoubled(self, part: str) -> str:
        """The folder of a part, or the one in it where that has its name and is alone (train/train)."""
        inside = self.folders(part)
        return inside[os.path.basename(part)] if list(inside) == [os.path.basename(part)] else part

    def labelled(self, part: str) -> Classes:
        """The pictures of a part by class, from its list of classes or its folders."""
        return self._annotated(part) or self.classes(part)

    def classes(self, folder: str) -> Classes:
        """The pictures in each folder in `folder`, however deep."""
        found: Classes = {}
        for entry in self._entries(folder):
            if not entry.is_dir():
                if self._is_picture(entry):
                    self._leave("a picture outside the class folders", entry.path)
            elif pictures := self._pictures(entry.path):
                found[entry.name] = pictures
            else:
                self._leave("a folder without pictures", entry.path)
        return found

    def leave_beside(self, folder: str, used: Iterable[str]) -> None:
        """Note all in `folder` but the paths that are used."""
        for entry in self._entries(folder):
            if entry.path not in used and (entry.is_dir() or self._is_picture(entry)):
                self._leave("a folder or picture beside the parts", entry.path)

    def inside(self, folder: str) -> str:
        """What lies directly in a folder, in words."""
        names = first_of(self.folders(folder))
        pictures = sum(map(_named_as_picture, self._entries(folder)))
        return f"{f'the folders {names}' if names else 'no folder'} and {pictures or 'no'} pictures"

    def shown(self, path: str) -> str:
        """A path as it is named to a person: from the root, which goes by its own name."""
        return readable(path[self.start :]) or readable(os.path.basename(self.root))

    def notes(self) -> list[str]:
        """What was found deeper than usual, and what was passed over, in a sentence for each reason."""
        left = {why: sorted(names) for why, names in self.left.items() if names}
        deep = f"Read as their class's: the pictures in {first_of(sorted(self.deep))}."
        said = [f"Left out as {why}: {len(names):,} ({first_of(names)})." for why, names in left.items()]
        return [deep, *said] if self.deep else said

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """By name, what is neither hidden nor a link that must not be followed."""
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if why := "hidden" if hidden(entry.name) else self._astray(entry):
                self._leave(why, entry.path)
            else:
                yield entry

    def _astray(self, entry: os.DirEntry[str]) -> str:
        """Why a link is not followed; an empty word for one that is, and for all that is no link."""
        if not entry.is_symlink():
            return ""
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(self.root):
            return "a link that leads out of the folder"
        if Path(os.path.realpath(os.path.dirname(entry.path))).is_relative_to(target):
            return "a link to a folder that it lies in"
        return "" if target.exists() else "a link that leads nowhere"

    def _pictures(self, folder: str) -> list[bytes]:
        """Those in a folder and below it, in order; links come last, and no folder counts twice."""
        found: list[bytes] = []
        seen, waiting = set[str](), deque([folder])
        while waiting:
            here = waiting.popleft()
            if (real := os.path.realpath(here)) in seen:
                self._leave("a folder that was read already", here)
                continue
            seen.add(real)
            for entry in self._entries(here):
                if entry.is_dir():
                    (waiting.append if entry.is_symlink() else waiting.appendleft)(entry.path)
                elif self._is_picture(entry):
                    found.append(self._relative(entry.path))
                    self.deep |= {here[self.start :]} if here != folder else set()
                    self.count += 1
                    if self.limit is not None and self.count > self.limit:
                        raise Refused(f"{self.shown('')} has more than {self.limit:,} pictures. Use fewer.")
        return sorted(found)

    def _annotated(self, folder: str) -> Classes:
        """The pictures by class where one list has a line for each: file, tab, class (Tiny-ImageNet's val/)."""
        files = (entry for entry in self._entries(folder) if entry.is_file())
        lists = [entry.path for entry in files if entry.name.lower().endswith(ANNOTATIONS)]
        if len(lists) != 1:
            return {}
        deep = set(self.deep)
        paths = self._pictures(folder)
        self.deep = deep  # here a folder has no say about the class
        pictures = {os.path.basename(path): path for path in paths}
        if len(pictures) < len(paths):  # in folders of the classes, with names that tell nothing
            return {}
        found: Classes = {}
        with open(lists[0], "rb") as file:
            for line in file.read(MAX_ANNOTATIONS).splitlines():
                name, _, rest = line.partition(b"\t")
                if rest and name in pictures:
                    found.setdefault(os.fsdecode(rest.partition(b"\t")[0]), []).append(pictures.pop(name))
        if found:
            self.left[NO_PICTURE].discard(lists[0][self.start :])
            self.left[f"without a class in {self.shown(lists[0])}"].update(map(os.fsdecode, pictures.values()))
        return found

    def _is_picture(self, entry: os.DirEntry[str]) -> bool:
        if not (_named_as_picture(entry) and entry.is_file()):
            self._leave(NO_PICTURE, entry.path)
            return False
        return True

    def _relative(self, path: str) -> bytes:
        return os.fsencode(path[self.start :].replace(os.sep, "/"))

    def _leave(self, why: str, path: str) -> None:
        self.left[why].add(path[self.start :])


def _named_as_picture(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES)
