"""What detectors and segmenters find in a photo, and where they look for it: work for the Saliency page."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet.costs.profiler import Profile
from resnet.work.contract import Cost, Progress
from resnet.work.explaining import Picture
from resnet.work.predict import FLOAT, MACS_PER_S, forward_of
from resnet.work.requests import Work

if TYPE_CHECKING:  # torchvision is slow to import
    from torch import Tensor, nn

MOST = 30  # objects of a photo, the likeliest
SHORT, LONG = 800, 1333  # the sides to which a detector scales a photo, as far as both allow
SEGMENTED = 520  # the shorter side for a segmenter; torchvision bounds the longer one nowhere
IN_PLACE = ("activation", "add")  # in torchvision's nets these keep no output of their own


@dataclass(frozen=True)
class Detected:
    """The MOST likeliest objects that a detector finds, as `attribution.boxes.Detections` of arrays."""

    system: str
    photo: Picture
    alone = False

    def cost(self) -> Cost:
        return _forward(self.system, self.photo, MOST)

    def run(self) -> Work:
        from resnet.attribution.boxes import Detections, detect

        yield Progress(0.0, f"Loading {self.system} …")
        model = _trained(self.system)
        yield Progress(0.2, "Finding objects …")
        found = detect(model, _floats(self.photo), MOST)
        return Detections(*(None if each is None else each.numpy() for each in found))


@dataclass(frozen=True)
class Segmented:
    """The class of each pixel and its probability, as `attribution.boxes.Segmentation` of arrays."""

    system: str
    photo: Picture
    alone = False

    def cost(self) -> Cost:
        return _forward(self.system, self.photo, _classes(self.system))

    def run(self) -> Work:
        from resnet.attribution.boxes import Segmentation, segment
        from resnet.zoo.trained import TRAINED

        yield Progress(0.0, f"Loading {self.system} …")
        model = _trained(self.system)
        yield Progress(0.2, "Classifying every pixel …")
        found = segment(model, _floats(self.photo), TRAINED[self.system].transforms())
        return Segmentation(*(each.numpy() for each in found))


@dataclass(frozen=True)
class BoxMap:
    """`attribution.boxes.box_map` (H, W) of a class's logit in a region (x1, y1, x2, y2) of the photo."""

    system: str
    photo: Picture
    box: tuple[float, float, float, float]
    label: int
    layer: str
    method: str = "grad-cam"
    alone = False

    def cost(self) -> Cost:
        return _backward(self.system, self.photo, self.layer)

    def run(self) -> Work:
        import torch

        from resnet.attribution.boxes import box_map

        yield Progress(0.0, f"Loading {self.system} …")
        model = _trained(self.system)
        yield Progress(0.2, f"Explaining one box at {self.layer} …")
        photo, box = _floats(self.photo), torch.tensor(self.box)
        return box_map(model, photo, box, self.label, self.layer, self.method).numpy()


@dataclass(frozen=True)
class RegionMap:
    """`attribution.boxes.region_map` (H, W) of a class: over the pixels that get this class, or over all of them."""

    system: str
    photo: Picture
    label: int
    layer: str
    everywhere: bool = False
    method: str = "grad-cam"
    alone = False

    def cost(self) -> Cost:
        needed = _backward(self.system, self.photo, self.layer)
        again = 0.0 if self.everywhere else _forward(self.system, self.photo, 0).seconds
        return Cost(needed.bytes, needed.seconds + again)

    def run(self) -> Work:
        from resnet.attribution.boxes import region_map, segment
        from resnet.zoo.trained import TRAINED

        yield Progress(0.0, f"Loading {self.system} …")
        model, photo, prepare = _trained(self.system), _floats(self.photo), TRAINED[self.system].transforms()
        region = None
        if not self.everywhere:
            yield Progress(0.2, "Classifying every pixel …")
            region = segment(model, photo, prepare).classes == self.label
        yield Progress(0.5, f"Explaining the region at {self.layer} …")
        return region_map(model, photo, prepare, self.label, self.layer, region, self.method).numpy()


def _trained(system: str) -> "nn.Module":
    from resnet.zoo.trained import load_trained

    return load_trained(system)


def _floats(photo: Picture) -> "Tensor":
    """(3, H, W) from 0 to 1."""
    import torch

    return torch.from_numpy(photo.batch()[0]).float() / 255


def _seen(system: str, photo: Picture) -> Profile:
    """The system's profile on a square with at least as many pixels as it sees of the photo."""
    from resnet.zoo.systems import profile_system
    from resnet.zoo.systems import system as entry

    short, long = sorted(photo.shape[1:])
    detector = entry(system).task == "detection"
    scale = min(SHORT / short, LONG / long) if detector else SEGMENTED / short
    sides = (32 * math.ceil(scale * side / 32) for side in (short, long))  # a detector pads to multiples of 32
    return profile_system(system, 32 * math.ceil(math.sqrt(math.prod(sides)) / 32))


def _forward(system: str, photo: Picture, kept: int) -> Cost:
    """Of loading the system and running it, with so many maps in the photo's size kept three times."""
    needed = forward_of(_seen(system, photo), 1)
    return Cost(needed.bytes + 3 * FLOAT * (kept + 3) * math.prod(photo.shape[1:]), needed.seconds)


def _backward(system: str, photo: Picture, layer: str) -> Cost:
    """The same, and of going back to a layer: all that comes after it is kept, but for the region proposals."""
    found = _seen(system, photo)
    forward = _forward(system, photo, _classes(system))
    start = max((i for i, row in enumerate(found.rows) if row.name.startswith(layer)), default=0)
    after = [row for row in found.rows[start:] if not row.name.startswith(("rpn", "roi_heads"))]
    kept = sum(row.activations for row in after if row.op not in IN_PLACE)
    return Cost(forward.bytes + FLOAT * kept, forward.seconds + 2 * sum(row.macs for row in after) / MACS_PER_S)


def _classes(system: str) -> int:
    from resnet.zoo.systems import system as entry

    return entry(system).classes if entry(system).task == "segmentation" else 0
