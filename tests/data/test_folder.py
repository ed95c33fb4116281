"""Folders of pictures that stay on the disk: what is listed, how a picture is cut, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnet.data.dataset import load
from resnet.data.folder import TEST, Pictures, open_folder
from resnet.data.photos import open_photo, photo_batch
from resnet.errors import Refused
from tests.support.pictures import ZOO, write_zoo

SIZE = 16


@pytest.fixture(autouse=True)
def folder(data_dir: Path) -> Path:
    return write_zoo(data_dir / "zoo")


def test_a_folder_is_listed_by_class_and_name(folder: Path) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("no picture")
    (folder / "train" / ".hidden").mkdir()
    found = open_folder("zoo", SIZE)
    assert found.class_names == ZOO
    assert (found.classes, found.channels, found.size) == (3, 3, SIZE)
    assert found.train_files[[0, 1, 8]].tolist() == [b"train/cat/0.jpg", b"train/cat/1.png", b"train/dog/0.jpg"]
    assert found.train_labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert found.test_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert open_folder("zoo").size == 224


def test_a_part_of_the_training_pictures_is_balanced_and_the_one_that_a_resident_run_takes() -> None:
    part, resident = open_folder("zoo", SIZE, train=7), load("zoo", SIZE, train=7)
    assert part.train_labels.bincount().tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])
    assert torch.equal(part.train_labels, resident.train_labels)
    for file, image in zip(part.train_files, resident.train_images, strict=True):
        assert torch.equal(photo_batch(open_photo((part.root / file.decode()).read_bytes()), SIZE)[0], image)
    assert len(part.test_files) == 9


def test_a_test_picture_is_the_centre_of_the_resized_one(folder: Path) -> None:
    image = Image.open(folder / "val" / "cat" / "1.png")
    side = round(SIZE * 256 / 224)
    scale = side / min(image.size)
    width, height = (max(side, int(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = ((length - SIZE) / 2 for length in small.size)
    expected = np.asarray(small.crop((round(left), round(top), round(left) + SIZE, round(top) + SIZE)))
    found = Pictures(open_folder("zoo", SIZE), 0, True)[TEST, 1]
    assert isinstance(found, Tensor)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_a_sample_is_what_the_tests_see() -> None:
    found = open_folder("zoo", SIZE)
    sample, pictures = found.sample([1, 5]), Pictures(found, 0, False)
    for image, row in zip(sample.test_images, (1, 5), strict=True):
        assert torch.equal(image, pictures[TEST, row])  # type: ignore[arg-type]
    assert sample.test_labels.tolist() == [0, 1]
    (found.root / "val" / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(Refused, match=r"^val/cat/1.png: This file is empty"):
        found.sample([1, 5])


def test_crops_and_flips_differ_between_epochs_and_can_be_switched_off() -> None:
    found = open_folder("zoo", SIZE)
    drawn, still = Pictures(found, 0, True), Pictures(found, 0, False)
    assert not torch.equal(drawn[0, 5], drawn[1, 5])  # type: ignore[arg-type]
    assert torch.equal(still[0, 5], still[1, 5])  # type: ignore[arg-type]


def test_folders_that_cannot_be_streamed_are_one_sentence(folder: Path) -> None:
    with pytest.raises(Refused, match="8 to 1,024 pixels"):
        open_folder("zoo", 4)
    with pytest.raises(Refused, match="There is no data set"):
        open_folder(str(folder), SIZE, only_offered=True)
    with pytest.raises(Refused, match="cannot be read"):
        open_folder("nowhere", SIZE)
    (folder / "data.npz").write_bytes(b"")
    with pytest.raises(Refused, match=r"The folder .*data.npz cannot be read \(Not a directory\)"):
        open_folder(str(folder / "data.npz"), SIZE)
    with pytest.raises(Refused, match="At least one training image is needed"):
        open_folder(str(folder), SIZE, train=0)
