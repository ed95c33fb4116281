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


def test_bad_folders_give_a_sentence(data_dir: Path) -> None:
    root = data_dir / "x"
    root.mkdir()
    with pytest.raises(Refused, match=r"at least two classes.*Received 0"):
        load(str(root))
    paint(root / "a" / "1.png")
    with pytest.raises(Refused, match=r"at least two classes.*Received 1"):
        load(str(root))
    paint(root / "b" / "1.png")
    with pytest.raises(Refused, match="no test pictures"):
        load(str(root))
    paint(root / "b" / "2.png")
    load(str(root))
    (root / "b" / "3.png").write_text("not a picture")
    with pytest.raises(Refused, match=r"b.3\.png: This is not a PNG"):
        load(str(root))
    paint(root / "train" / "a" / "1.png")
    with pytest.raises(Refused, match="neither test/ nor val/"):
        load(str(root))
    paint(root / "train" / "b" / "1.png")
    paint(root / "test" / "z" / "1.png")
    with pytest.raises(Refused, match="without training pictures: z"):
        load(str(root))


def test_folder_with_too_many_pictures(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_IMAGES", 3)
    for name in "abcd":
        paint(data_dir / "x" / name / "1.png")
    with pytest.raises(Refused, match="more than 3 pictures"):
        load("x")


def test_links_out_of_the_folder_are_not_followed(data_dir: Path, tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            paint(data_dir / "x" / name / f"{number}.png", (1, 1, 1))
    paint(tmp_path / "secret" / "s.png", (255, 255, 255))
    (data_dir / "x" / "a" / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    (data_dir / "x" / "c").symlink_to(tmp_path / "secret")
    (data_dir / "x" / "b" / "inside.png").symlink_to(data_dir / "x" / "a" / "0.png")
    loaded = load("x")
    assert loaded.class_names == ("a", "b")
    assert len(loaded.train_labels) + len(loaded.test_labels) == 5
    assert loaded.train_images.max() < 5
    assert loaded.test_images.max() < 5
