"""Folders as people have them, by both readers: which pictures are read, under which class, and what is left out."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnet import limits
from resnet.data import pictures
from resnet.data.dataset import Dataset, available, load, load_offered, load_tests
from resnet.data.folder import TEST, Folder, Pictures, open_folder
from resnet.errors import Refused
from tests.support.pictures import paint, save

COLOURS = {"cat": (250, 0, 0), "dog": (0, 250, 0), "owl": (0, 0, 250)}
Reader = Callable[[str], Dataset | Folder]
both = pytest.mark.parametrize("read", [load, lambda name: open_folder(name, 16)], ids=["memory", "streamed"])


def put(folder: Path, animal: str, count: int = 5, suffix: str = "png") -> None:
    """Pictures in the animal's colour."""
    for number in range(count):
        paint(folder / f"im {number}.{suffix}", COLOURS[animal])


def classes(root: Path, *animals: str, count: int = 5) -> None:
    for animal in animals or ("cat", "dog"):
        put(root / animal, animal, count)


def images(data: Dataset | Folder, part: str) -> Tensor:
    if isinstance(data, Dataset):
        return data.train_images if part == "train" else data.test_images
    found, count = Pictures(data, 0, False), len(getattr(data, f"{part}_labels"))
    return torch.stack([found[TEST if part == "test" else 0, row] for row in range(count)])  # type: ignore[misc]


def seen(data: Dataset | Folder, part: str) -> dict[str, int]:
    """By class how many pictures a part has of it, each of which must have the colour that the class's name begins."""
    labels = getattr(data, f"{part}_labels")
    names = [data.class_names[label] for label in labels]
    animals = [list(COLOURS)[row] for row in images(data, part).float().mean((2, 3)).argmax(1)]
    assert [name.split(",")[0] for name in names] == animals
    return {name: names.count(name) for name in data.class_names}


# Each layout: what writes it, the training and test pictures by class, and what the notes say.


def from_a_mac(root: Path) -> None:
    classes(root)
    for name in (".DS_Store", "cat/._im 0.png", "dog/Thumbs.db", "__MACOSX/cat/im 0.png", ".ipynb_checkpoints/a.png"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"\0\5\x16\7 Mac OS X")


def broken(root: Path) -> None:
    classes(root, count=6)
    (root / "cat" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (root / "dog" / "zero.png").write_bytes(b"")
    (root / "dog" / "page.jpg").write_text("<html>404")


def misnamed(root: Path) -> None:
    classes(root, count=6)
    for animal, kind in (("cat", "PNG"), ("dog", "WebP")):
        Image.new("RGB", (20, 20), COLOURS[animal]).save(root / animal / "im 0.jpg", kind)
    (root / "cat" / "notes.txt").write_text("three cats")


def deep(root: Path) -> None:
    classes(root, count=4)
    put(root / "cat" / "more" / "and more", "cat", 10)


def parts(*names: str, counts: tuple[int, ...] = (5, 2)) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for name, count in zip(names, counts, strict=True):
            classes(root / name, count=count)

    return write


def flat_test(root: Path) -> None:
    parts("train", "val")(root)
    put(root / "test", "owl", 1)


def unlabelled_test(root: Path) -> None:
    parts("train", "val")(root)
    put(root / "test" / "images", "owl", 1)


def lists_of_classes(root: Path) -> None:
    for animal in ("cat", "dog"):
        put(root / "top" / "train" / animal / "images", animal, 4)
        (root / "top" / "train" / animal / f"{animal}_boxes.txt").write_text("im 0.png\t0\t0\t9\t9\n")
    (root / "top" / "wnids.txt").write_text("cat\ndog\n")
    paint(root / "top" / "val" / "images" / "val_0.png", COLOURS["dog"])
    paint(root / "top" / "val" / "images" / "val_1.png", COLOURS["cat"])
    paint(root / "top" / "val" / "images" / "val_2.png", COLOURS["owl"])
    lines = "val_0.png\tdog\t0\t0\t9\t9\nval_1.png\tcat\t0\t0\t9\t9\nval_9.png\tcat\t0\t0\t9\t9\n"
    (root / "top" / "val" / "val_annotations.txt").write_text(lines)


def sorted_beside_their_list(root: Path) -> None:
    parts("train", "val")(root)
    (root / "val" / "val_annotations.txt").write_text("im 0.png\tdog\t0\t0\t9\t9\n")


def wrapped(root: Path) -> None:
    classes(root / "wrapped" / "dataset")


def links(root: Path) -> None:
    classes(root / "all", count=4)
    for part in ("train", "test"):
        (root / part).mkdir()
        for animal in ("cat", "dog"):
            (root / part / animal).symlink_to(f"../all/{animal}")


def doubled(root: Path) -> None:
    parts("seg_train/seg_train", "seg_test/seg_test")(root)
    put(root / "seg_pred" / "seg_pred", "owl", 1)


def with_an_empty_class(root: Path) -> None:
    classes(root)
    (root / "owl").mkdir()
    put(root, "owl", 1)


FIFTH = {"cat": 4, "dog": 4}, {"cat": 1, "dog": 1}
SPLIT = {"cat": 5, "dog": 5}, {"cat": 2, "dog": 2}
LAYOUTS: dict[str, tuple[Callable[[Path], None], dict[str, int], dict[str, int], str]] = {
    "a plain folder": (classes, *FIFTH, "Every 5th picture of each class is for tests"),
    "from a Mac": (from_a_mac, *FIFTH, r"Left out as hidden: 5 \(.DS_Store, .ipynb_checkpoints, __MACOSX and 2 more\)"),
    "three broken of fifteen": (
        broken, {"cat": 5, "dog": 4}, {"cat": 1, "dog": 2},
        r"Left out as unreadable: 3 of 15 pictures \(dog/page.jpg, dog/zero.png, cat/bad.jpg\)",
    ),
    "other suffixes": (misnamed, {"cat": 5, "dog": 5}, {"cat": 2, "dog": 2}, r"no picture .*: 1 \(cat/notes.txt\)"),
    "folders in a class": (
        deep, {"cat": 11, "dog": 3}, {"cat": 3, "dog": 1}, "Read as their class's: the pictures in cat/more/and more",
    ),
    "train and valid": (parts("train", "valid"), *SPLIT, ""),
    "training and validation": (parts("training", "validation"), *SPLIT, ""),
    "train and testing": (parts("train", "testing"), *SPLIT, ""),
    "Train and Test": (parts("Train", "Test"), *SPLIT, ""),
    "TRAIN and VAL": (parts("TRAIN", "VAL"), *SPLIT, ""),
    "training_set and test_set": (parts("training_set", "test_set"), *SPLIT, ""),
    "doubled parts": (doubled, *SPLIT, r"beside the parts: 1 \(seg_pred\)"),
    "a flat test": (flat_test, *SPLIT, r"use val/.*test/ has no folder with the name of a class.*1 \(test/im 0.png\)"),
    "an unlabelled test": (unlabelled_test, *SPLIT, "The tests use val/.*test/ has no folder with the name of a class"),
    "train, val and test": (
        parts("train", "val", "test", counts=(5, 3, 2)), *SPLIT, "The tests use test/. val/ is left out",
    ),
    "Tiny-ImageNet": (
        lists_of_classes, {"cat": 4, "dog": 4}, {"cat": 1, "dog": 1},
        r"in top/train/cat/images, top/train/dog/images\..*"
        r"without a class in top/val/val_annotations.txt: 1 \(top/val/images/val_2.png\)",
    ),
    "a list beside folders": (sorted_beside_their_list, *SPLIT, r"^Left out as no picture by its name: 1 \(val/val"),
    "wrapped": (wrapped, *FIFTH, ""),
    "links inside": (links, {"cat": 4, "dog": 4}, {"cat": 4, "dog": 4}, r"beside the parts: 1 \(all\)"),
    "an empty class": (
        with_an_empty_class, *FIFTH, r"outside the class folders: 1 \(im 0.png\).*without pictures: 1 \(owl\)",
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_people_have(data_dir: Path, read: Reader, layout: str) -> None:
    write, train, test, note = LAYOUTS[layout]
    write(data_dir / "x")
    data = read("x")
    assert (seen(data, "train"), seen(data, "test")) == (train, test)
    assert re.search(note, " ".join(data.notes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_readers_have_one_listing_in_whatever_order_the_disk_gives_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    LAYOUTS[layout][0](data_dir / "x")
    memory, streamed = load("x"), open_folder("x", 16)
    assert torch.equal(memory.train_labels, streamed.train_labels)
    assert torch.equal(memory.test_labels, streamed.test_labels)
    assert (*memory.notes, streamed.notes[-1]) == streamed.notes
    assert re.match(r"Each of the \d+ pictures was decoded once", streamed.notes[-1])
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(scan(path), key=lambda entry: entry.name, reverse=True))
    again = open_folder("x", 16)
    assert again.files.tolist() == streamed.files.tolist()
    assert again.notes == streamed.notes
    assert again.fingerprint == streamed.fingerprint


# What is refused


def one_class(root: Path) -> None:
    classes(root, "cat")


def no_classes(root: Path) -> None:
    put(root, "cat", 3)


def strange(root: Path) -> None:
    parts("train", "test")(root)
    put(root / "test" / "owl", "owl")


def flat(root: Path) -> None:
    put(root / "train", "cat")
    put(root / "test", "cat")


def no_use(root: Path) -> None:
    classes(root / "train")
    put(root / "test", "owl", 1)


def lone_pictures(root: Path) -> None:
    classes(root, count=1)


def all_broken(root: Path) -> None:
    classes(root, "cat", "dog", "owl")
    for path in (root / "owl").iterdir():
        path.write_text("no picture")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing": (Path.mkdir, "x must hold a folder of pictures for each of at least two classes, side by side or in "
                "train/ and test/ .*Received no folder and no pictures"),
    "one class": (one_class, "at least two classes.*Received the folders cat and no pictures"),
    "no classes": (no_classes, "at least two classes.*Received no folder and 3 pictures"),
    "strange classes": (strange, "test pictures of classes without training pictures: owl"),
    "no tests": (parts("train", counts=(5,)), "train/ but neither test/ nor val/.*Choose the folder train"),
    "no training": (parts("val", "test"), "has test/ but no train/"),
    "flat parts": (flat, "^train/ must hold a folder of pictures for each class. Received no folder and 5 pictures"),
    "a flat test alone": (no_use, "^test/ must hold .*, named as in train/. Received no folder and 1 pictures"),
    "two of a part": (parts("train", "val", "valid", counts=(5, 2, 2)), "two folders for one part, val, valid"),
    "single pictures": (lone_pictures, "has no test pictures: each class needs two"),
    "a third broken": (all_broken, "5 of 15 pictures in x cannot be read, and 25% of them may be left out: "
                       "owl/im .*The first is owl/im .*: This is text, not a"),
}  # fmt: skip


@both
@pytest.mark.parametrize("layout", REFUSED)
def test_other_layouts_are_refused_with_what_was_found_and_what_is_expected(
    data_dir: Path, read: Reader, layout: str
) -> None:
    write, sentence = REFUSED[layout]
    write(data_dir / "x")
    with pytest.raises(Refused, match=sentence):
        read("x")


@both
def test_the_owner_says_how_many_pictures_may_be_broken(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, read: Reader
) -> None:
    broken(data_dir / "x")
    monkeypatch.setattr(limits, "BROKEN_SHARE", 3 / 15)
    assert len(read("x").train_labels) == 9
    monkeypatch.setattr(limits, "BROKEN_SHARE", 0)
    with pytest.raises(Refused, match=r"3 of 15 pictures in x cannot be read, and 0% of them may be left out"):
        read("x")
    monkeypatch.setattr(limits, "BROKEN_SHARE", 1)
    all_broken(data_dir / "y")
    with pytest.raises(Refused, match=r"y has no training pictures that can be read of owl"):
        read("y")


def test_of_many_streamed_pictures_only_the_headers_are_read(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_DECODED", 20)
    broken(data_dir / "x")
    classes(data_dir / "x", count=12)
    cut = data_dir / "x" / "cat" / "im 3.png"
    cut.write_bytes(cut.read_bytes()[:-30])  # its header is whole
    monkeypatch.setattr(pictures, "open_photo", None)
    *_, left, note = open_folder("x", 16).notes
    assert re.search(r"unreadable: 3 of 27 pictures .*dog/zero.png", left)
    assert note.startswith("Only the headers of the 27 pictures were read")


@both
def test_what_was_changed_in_reading_pictures_is_told_once_for_all_alike(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, read: Reader
) -> None:
    classes(data_dir / "x", count=6)
    original, greys = pictures.open_photo, iter(range(100, 104))

    def changing(raw: bytes, at_least: int) -> Image.Image:
        photo = original(raw, at_least)
        red = np.asarray(photo)[0, 0, 0] > 0
        photo.info["notes"] = (f"Its greys, 0 to {next(greys)}, were scaled.",) if red and next(left, None) else ()
        return photo

    left = iter(range(1, 5))
    monkeypatch.setattr(pictures, "open_photo", changing)
    monkeypatch.setattr(pictures, "cores", lambda: 1)  # one after the other
    notes = read("x").notes
    assert re.fullmatch(r"Changed in 4 pictures, as in cat/im \d.png: Its greys, 0 to 100, were scaled\.", notes[1])


# Links


@both
def test_links_are_followed_inside_the_folder_and_named_where_they_are_not(
    data_dir: Path, tmp_path: Path, read: Reader
) -> None:
    root = data_dir / "x"
    classes(root)
    put(tmp_path / "secret", "owl")
    put(root / ".store" / "dogs", "dog", 3)
    (root / "dog" / "stored").symlink_to("../.store/dogs")
    (root / "cat" / "again.png").symlink_to("im 0.png")
    targets = {
        "owl": f"{tmp_path}/secret",
        "cat/out.png": f"{tmp_path}/secret/im 0.png",
        "cat/up": "..",
        "dog/here": ".",
    }
    for link, target in (targets | {"cat/self": "self", "cat/dead.png": "nothing", "dog/twice": "stored"}).items():
        (root / link).symlink_to(target)
    data = read("x")
    train, test = seen(data, "train"), seen(data, "test")
    assert {name: train[name] + test[name] for name in train} == {"cat": 6, "dog": 8}
    notes = " ".join(data.notes)
    assert "a link that leads out of the folder: 2 (cat/out.png, owl)" in notes
    assert "a link to a folder that it lies in: 2 (cat/up, dog/here)" in notes
    assert "a link that leads nowhere: 2 (cat/dead.png, cat/self)" in notes
    assert "a folder that was read already: 1 (dog/twice)" in notes


def test_pipes_are_not_opened(data_dir: Path) -> None:
    classes(data_dir / "x")
    os.mkfifo(data_dir / "x" / "cat" / "pipe.png")
    assert "no picture by its name: 1 (cat/pipe.png)" in " ".join(load("x").notes)


# Names


@pytest.fixture
def odd(data_dir: Path) -> Path:
    """A data set and classes and files in it whose names are no UTF-8, where the disk takes them."""
    root = data_dir / os.fsdecode(b"na\xefve")
    try:
        root.mkdir()
    except OSError:
        pytest.skip("names here must be UTF-8")
    for name, animal in ((b"cat", "cat"), (b"dog,\xe9", "dog"), (b"owl,\xe8", "owl"), (b"dog,\\xe9", "dog")):
        put(root / os.fsdecode(name), animal)
    paint(root / os.fsdecode(b"cat") / os.fsdecode(b"caf\xe9.png"), COLOURS["cat"])
    (root / os.fsdecode(b"cat") / os.fsdecode(b"\xe9.txt")).write_text("")
    return root


@both
def test_names_that_are_no_utf_8_are_shown_as_text(odd: Path, read: Reader) -> None:
    assert available()[2:] == ["na\\xefve"]
    data = read("na\\xefve")
    assert data.class_names == ("cat", "dog,\\xe9", "dog,\\xe9 (2)", "owl,\\xe8")
    assert seen(data, "train")["dog,\\xe9 (2)"] == 4
    assert seen(data, "test")["owl,\\xe8"] == 1
    for text in (*data.class_names, *data.notes, data.source, data.name):
        text.encode()
    (odd / "cat" / os.fsdecode(b"caf\xe9.png")).write_text("")
    assert "(cat/caf\\xe9.png)" in " ".join(read("na\\xefve").notes)
    with pytest.raises(Refused, match="must be UTF-8") as caught:
        read(str(odd))
    str(caught.value).encode()


def test_suffixes_in_capitals_are_npz_files_too(data_dir: Path) -> None:
    Path(save(data_dir / "zoo.npz")).rename(data_dir / "ZOO.NPZ")
    assert available()[2:] == ["ZOO.NPZ"]
    assert len(load_offered("ZOO.NPZ").train_labels) == len(load(str(data_dir / "ZOO.NPZ")).train_labels) == 12


# Tests alone


@pytest.mark.parametrize(
    ("write", "expected", "note"),
    [
        (classes, {"cat": 5, "dog": 5}, "All pictures of the folder are tested on"),
        (one_class, {"cat": 5}, "All pictures of the folder are tested on"),
        (parts("train", "val"), {"cat": 2, "dog": 2}, ""),
        (parts("test", counts=(3,)), {"cat": 3, "dog": 3}, ""),
        (unlabelled_test, {"cat": 2, "dog": 2}, "The tests use val/"),
        (broken, {"cat": 6, "dog": 6}, "unreadable: 3 of 15"),
        (lists_of_classes, {"cat": 1, "dog": 1}, "without a class"),
    ],
)
def test_for_a_test_the_part_for_it_is_read_or_all(
    data_dir: Path, write: Callable[[Path], None], expected: dict[str, int], note: str
) -> None:
    write(data_dir / "x")
    data = load_tests("x", 16)
    assert seen(data, "test") == expected
    assert re.search(note, " ".join(data.notes))
    assert len(data.train_labels) == 1


def test_for_a_test_the_training_pictures_are_not_read(data_dir: Path) -> None:
    parts("train", "test")(data_dir / "x")
    for path in (data_dir / "x" / "train").glob("*/*"):
        path.write_text("")
    assert len(load_tests("x", 16).test_labels) == 4
    (data_dir / "y").mkdir()
    with pytest.raises(Refused, match=r"at least two classes.*no folder and no pictures"):
        load_tests("y", 16)
