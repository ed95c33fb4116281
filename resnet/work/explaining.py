"""What nets say of pictures, and where they look: work for the Saliency page."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from resnet.work.contract import Cost, Progress
from resnet.work.predict import explained, forward, in_turn
from resnet.work.requests import Work
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
    """What a net says of one picture: the probability of every class."""

    probabilities: np.ndarray

    def top(self, k: int = 5) -> list[int]:
        """The likeliest classes, the first one first."""
        return np.argsort(-self.probabilities, kind="stable")[:k].tolist()


@dataclass(frozen=True)
class Answers:
    """An `Answer` of each net to its picture."""

    models: tuple[Model, ...]
    pictures: tuple[Picture, ...]
    alone = False

    def cost(self) -> Cost:
        return in_turn([forward(each, 1) for each in self.models])

    def run(self) -> Work:
        found: list[Answer] = []
        for model, picture in zip(self.models, self.pictures, strict=True):
            yield Progress(len(found) / len(self.models), model.title)
            found.append(self._answer(model, picture))
        return found

    def _answer(self, one: Model, picture: Picture) -> Answer:
        from resnet.attribution.methods import top_k  # captum is slow to import

        model, _, inputs = one.open()
        values, classes = top_k(model, prepared(picture.batch(), inputs), sys.maxsize)  # of all classes, in their order
        return Answer(values[0, classes[0].argsort()].numpy())


class Query(NamedTuple):
    """A map to be made: of the logit `target` of a net for a picture, minus the logit `against` unless that is None."""

    model: Model
    picture: Picture
    method: str
    layer: str
    target: int
    against: int | None = None


@dataclass(frozen=True)
class Maps:
    """The attribution map (S, S) of each query, as far as they are known while it runs."""

    queries: tuple[Query, ...]
    alone = False

    def cost(self) -> Cost:
        return in_turn([explained(each.model, each.method, each.layer) for each in self.queries])

    def run(self) -> Work:
        from resnet.attribution.methods import explaining

        done: list[np.ndarray] = []
        for query, model, images in _opened(self.queries):
            share, title = len(done) / len(self.queries), query.model.title
            yield Progress(share, title, done)
            call = query.method, model, images, query.target, query.layer, None, query.against
            for maps, part in explaining(*call):
                so_far = [*done, maps[0].numpy()]
                yield Progress(share + part / len(self.queries), title, so_far)
            done = so_far
        return done


def _opened(queries: tuple[Query, ...]) -> Iterator[tuple[Query, nn.Module, Tensor]]:
    """Each query with its net, opened once for queries in a row, and its prepared picture (1, C, S, S)."""
    last = None
    for query in queries:
        if query.model != last:
            model, _, inputs = query.model.open()
            last = query.model
        yield query, model, prepared(query.picture.batch(), inputs)
