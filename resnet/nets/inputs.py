"""What a trained net needs to be run besides its weights: how its images are prepared, and its classes' names."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from resnet.errors import Refused

Moment = tuple[Any, ...]  # C numbers, or C rows of S rows of S numbers


@dataclass(frozen=True)
class Inputs:
    """A net reads (pixels / 255 - mean) / std; mean and std are by channel (C,), or by pixel (C, S, S), nested."""

    mean: Moment
    std: Moment
    class_names: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Inputs":
        """The inverse of `to_json`; Refused for any other text."""
        try:
            values = json.loads(text)
            mean, std = _moment(values["mean"]), _moment(values["std"])
            names = tuple(map(str, values["class_names"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(f"This is no description of a net's inputs ({error}).") from None
        return Inputs(mean, std, names)


def _moment(values: Any) -> Moment:
    """Lists into tuples; ValueError for anything but finite numbers."""
    if isinstance(values, list):
        return tuple(_moment(v) if isinstance(v, list) else _number(v) for v in values)
    raise ValueError("mean and std are lists")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
