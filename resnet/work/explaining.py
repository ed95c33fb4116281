"""What nets say of pictures, and where they look: work for the Saliency page."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from resnet.work.contract import Cost, Progress
from resnet.work.predict import backward, forward, in_turn
from resnet.work.requests import Work, by_net
from resnet.work.weights import Model, prepared


@dataclass(frozen=True)
class Picture:
    """uint8 pixels (C, H, W); as bytes, so that two pictures are the same request only where every pixel is equal."""

    shape: tuple[int, ...]
    pixels: bytes

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Picture":
        return cls(pixels.shape, pixels.tobytes())

    def batch(self) -> np.ndarray:
        """(1, C, H, W)."""
        return np.frombuffer(self.pixels, np.uint8).reshape(1, *self.shape).copy()


class Answer(NamedTuple):
    """What a net says of one picture: its top classes, likeliest first, and their probabilities."""

    classes: list[int]
    probabilities: np.ndarray


@dataclass(frozen=True)
class Answers:
    """An `Answer` of each net to its picture, of 5 classes."""

    models: tuple[Model, ...]
    pictures: tuple[Picture, ...]
    alone = False

    def cost(self) -> Cost:
        return in_turn([forward(each.spec, 1) for each in self.models])

    def run(self) -> Work:
        nets = [each.spec for each in self.models]
        return (yield from by_net(self._answer, nets, self.models, self.pictures))

    def _answer(self, one: Model, picture: Picture) -> Answer:
        from resnet.attribution.methods import top_k  # captum is slow to import

        model, _, inputs = one.open()
        values, classes = top_k(model, prepared(picture.batch(), inputs), 5)
        return Answer(classes[0].tolist(), values[0].numpy())


@dataclass(frozen=True)
class Maps:
    """The attribution map (S, S) of each net for its picture and one of its classes."""

    models: tuple[Model, ...]
    pictures: tuple[Picture, ...]
    method: str
    layer: str
    targets: tuple[int, ...]
    alone = False

    def cost(self) -> Cost:
        return in_turn([backward(each.spec, 1) for each in self.models])

    def run(self) -> Work:
        from resnet.attribution.methods import explaining

        found: list[np.ndarray] = []
        for one, picture, target in zip(self.models, self.pictures, self.targets, strict=True):
            yield Progress(len(found) / len(self.models), one.spec.name, found)
            model, _, inputs = one.open()
            images = prepared(picture.batch(), inputs)
            for maps, share in explaining(self.method, model, images, target, self.layer):
                so_far = [*found, maps[0].numpy()]
                yield Progress((len(found) + share) / len(self.models), one.spec.name, so_far)
            found = so_far
        return found
