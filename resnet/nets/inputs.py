"""What a file says of a trained net besides its weights: how images are prepared, its classes' names, its beginning."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet.errors import Refused
from resnet.nets.spec import NetSpec

MAX_RESIZE = 4
MAX_WORDS = 500  # characters
Moment = tuple[Any, ...]  # C numbers, or C rows of S rows of S numbers


@dataclass(frozen=True)
class Inputs:
    """A net reads (pixels / 255 - mean) / std; mean and std are by channel (C,), or by pixel (C, S, S), nested.

    Of a photo it reads the centre, after the short side was resized to `resize` times the net's image size.
    """

    mean: Moment
    std: Moment
    class_names: tuple[str, ...]
    resize: float = 1.0
    interpolation: str = "bilinear"  # or bicubic
    began: str = ""  # the weights that its training began with, in words; "" for drawn ones

    @staticmethod
    def of(
        mean: list[Any],
        std: list[Any],
        class_names: Iterable[Any],
        resize: float = 1.0,
        interpolation: str = "bilinear",
        began: str = "",
    ) -> "Inputs":
        """From lists; ValueError or TypeError where they are not what they should be."""
        if not 1 <= resize <= MAX_RESIZE or interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"a photo is resized to 1 to {MAX_RESIZE} times the net's size, bilinear or bicubic")
        names = tuple(map(str, class_names))
        return Inputs(_moment(mean), _moment(std), names, float(resize), interpolation, str(began)[:MAX_WORDS])

    def fitted(self, spec: NetSpec) -> "Inputs | None":
        """For a net that may read other images or have other classes: None where mean and std are not for it.

        Classes that are not the net's get numbers.
        """
        shapes = {np.shape(self.mean), np.shape(self.std)}
        channels, size = spec.in_channels, spec.image_size
        if not shapes <= {(channels,), (channels, size, size)} or not np.all(np.array(self.std) > 0):
            return None
        names = self.class_names if len(self.class_names) == spec.classes else tuple(map(str, range(spec.classes)))
        return dataclasses.replace(self, class_names=names)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Inputs":
        """The inverse of `to_json`; Refused for any other text."""
        try:
            return Inputs.of(**json.loads(text))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Refused(f"This is no description of a net's inputs ({error}).") from None


def _moment(values: Any) -> Moment:
    """Nested lists into tuples; ValueError, TypeError or OverflowError for anything but finite numbers."""
    array = np.array(values, dtype=np.float64)
    if array.ndim not in (1, 3) or not np.isfinite(array).all():
        raise ValueError("mean and std are finite numbers, by channel or by pixel")
    return _nested(array.tolist())


def _nested(values: list[Any]) -> Moment:
    return tuple(_nested(value) if isinstance(value, list) else value for value in values)
