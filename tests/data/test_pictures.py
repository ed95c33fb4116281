"""Folders of pictures: what is read, and what is refused."""

from pathlib import Path

import pytest
import torch

from resnet.data import pictures
from resnet.data.dataset import load
from resnet.errors import Refused
from tests.support.pictures import paint


def test_folder_without_split(data_dir: Path) -> None:
    for number in range(10):
        paint(data_dir / "pets" / "cat" / f"{number}.png", (200, number, 0))
        paint(data_dir / "pets" / "dog" / f"{number}.JPG", (0, number, 200))
    paint(data_dir / "pets" / "owl" / "only.webp", (0, 200, 0))
    (data_dir / "pets" / "cat" / "notes.txt").write_text("hello")
    (data_dir / "pets" / ".hidden").mkdir()
    pets = load("pets")
    assert pets.class_names == ("cat", "dog", "owl")
    assert pets.train_labels.bincount().tolist() == [8, 8, 1]
    assert pets.test_labels.bincount().tolist() == [2, 2]
    assert pets.size == 32
    assert [note.split(":")[0] for note in pets.notes[1:]] == [
        "Left out as hidden",
        "Left out as no picture by its name",
    ]
    assert (pets.train_images[pets.train_labels == 0][:, 0] == 200).all()
    assert (pets.test_images[pets.test_labels == 1][:, 2] > 190).all()
    greens = torch.cat([pets.train_images, pets.test_images])[:, 1, 0, 0]
    assert set(range(10)) <= set(greens.tolist())  # each picture is on one side
    assert torch.equal(load("pets").train_images, pets.train_images)
    assert load("pets", size=64).train_images.shape[-1] == 64


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder_with_split(data_dir: Path, held_out: str) -> None:
    for name in ("a", "b", "c"):
        for number in range(3):
            paint(data_dir / "x" / "train" / name / f"{number}.png")
    paint(data_dir / "x" / held_out / "b" / "0.png")
    split = load("x")
    assert split.train_labels.bincount().tolist() == [3, 3, 3]
    assert split.test_labels.tolist() == [1]


def test_folder_with_too_many_pictures(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_IMAGES", 3)
    for name in "abcd":
        paint(data_dir / "x" / name / "1.png")
    with pytest.raises(Refused, match="more than 3 pictures"):
        load("x")
