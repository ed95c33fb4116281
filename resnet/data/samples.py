"""The sample photos that come with the program; assets/photos/SOURCES.md has the author and the licence of each."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resnet.data.photos import open_photo
from resnet.errors import choose
from resnet.files import ROOT

FOLDER = ROOT / "assets" / "photos"


@dataclass(frozen=True)
class Sample:
    """A photo; `shows` are the classes that are right for it, by the names of CIFAR-10 and ImageNet."""

    name: str
    title: str
    shows: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.jpg"


SAMPLES: dict[str, Sample] = {
    sample.name: sample
    for sample in (
        Sample("cat", "Cat", ("cat", "tabby", "tiger cat", "Egyptian cat")),
        Sample("coffee", "Coffee", ("espresso", "cup", "coffee mug")),
        Sample("rocket", "Rocket", ("missile", "projectile")),
        Sample("camera", "Camera", ("tripod",)),
        Sample("horse", "Horse", ("horse", "sorrel")),
        Sample("astronaut", "Astronaut"),  # no class of either
    )
}


def open_sample(name: str) -> Image.Image:
    """As `open_photo`; Refused where there is no such sample."""
    return open_photo(choose("sample photo", name, SAMPLES).path.read_bytes())
