"""The sample photos: they open, are small, and each has its source and a class that the nets know by that name."""

import re

import pytest
from torchvision.models import ResNet18_Weights

from resnet.data.cifar import CLASSES
from resnet.data.samples import FOLDER, SAMPLES, open_sample
from resnet.errors import Refused

KNOWN = {*CLASSES, *ResNet18_Weights.IMAGENET1K_V1.meta["categories"]}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_opens_and_shows_classes_of_the_nets(name: str) -> None:
    photo = open_sample(name)
    assert min(photo.size) >= 300
    assert max(photo.size) <= 512
    assert photo.mode == "RGB"
    assert set(SAMPLES[name].shows) <= KNOWN


def test_the_first_one_is_known_to_both_kinds_of_nets() -> None:
    first = next(iter(SAMPLES.values()))
    assert {*first.shows} & {*CLASSES}
    assert {*first.shows} - {*CLASSES}


def test_every_file_has_a_source_and_they_are_small_together() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.glob("*.jpg")}
    assert set(files) == {sample.path.name for sample in SAMPLES.values()}
    assert sum(files.values()) < 1_000_000
    listed = re.findall(r"^\| `(.+?)` \|.*\| (CC0|public domain) \|", (FOLDER / "SOURCES.md").read_text("utf-8"), re.M)
    assert {name for name, _ in listed} == set(files)


def test_an_unknown_sample_is_refused() -> None:
    with pytest.raises(Refused, match=r"(?s)sample photo.*cat"):
        open_sample("../secret")
