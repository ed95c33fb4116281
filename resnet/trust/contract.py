"""What a check of attribution maps is given, and what it says."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes

Verdict = Literal["good", "bad", "unclear"]


@dataclass(frozen=True, eq=False)
class Case:
    """What is judged: the maps (N, *S) by which a method explains the logits `target` (N,) of `images` (N, C, *S).

    With a class `against` they explain each target's logit minus that class's. `blank` is what a pixel gets that is
    taken away, one number or one for each channel, in the units of the prepared images: 0 is the mean colour of the
    training images. Equal cases with equal seeds give equal findings.
    """

    images: Tensor
    target: Tensor
    method: str  # a key of METHODS
    layer: str = ""
    options: Mapping[str, object] = field(default_factory=dict)  # of the method
    against: int | None = None
    maps: Tensor = field(default_factory=lambda: torch.empty(0))  # computed where they are not given
    blank: tuple[float, ...] = (0.0,)
    seed: int = 0
    masked: bool = False  # in training, the net saw pictures with blanked patches
    objects: Tensor = field(default_factory=lambda: torch.empty(0))  # bool (N, *S): where they are, if it is known
    others: Tensor = field(default_factory=lambda: torch.empty(0))  # (M, C, *S): pictures to put beside these
    shared: dict[str, Tensor] = field(default_factory=dict)  # what checks found that is the same for every method

    def blanked(self) -> Tensor:
        """The blank picture, (C or 1, 1, ..., 1): it broadcasts over an image (C, *S)."""
        return torch.tensor(self.blank).to(self.images).view(-1, *[1] * (self.images.dim() - 2))


class Spread(NamedTuple):
    """The mean of several draws, and between `low` and `high` where 19 of 20 more would lie."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Tensor) -> "Spread":
        """Of 5 draws (5,): the mean +- 2.776 (Student's t at 97.5 %, 4 degrees of freedom) x s x sqrt(1 + 1/5)."""
        mean, reach = float(draws.mean()), 2.776 * float(draws.std()) * math.sqrt(1 + 1 / 5)
        return cls(mean, mean - reach, mean + reach)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class Example(NamedTuple):
    """One measurement to look at: a picture (C, *S), prepared, and its map, with the box where it should be."""

    title: str
    value: float
    picture: Tensor
    map: Tensor  # of the picture's shape or a coarser one
    box: tuple[float, float, float, float]  # top, left, bottom, right in 0..1


@dataclass(frozen=True, eq=False)
class Finding:
    """What a check found: the mean over the images, and its `sentence`, which says what this number means here.

    `random` is what random maps get in the same measurement, over several draws, None where nothing is measured of
    them; `each` has the value of every image; `curves` a table to plot.
    """

    value: float  # NaN where there is nothing to measure
    verdict: Verdict
    sentence: str
    random: Spread | None = None
    each: tuple[float, ...] = ()
    curves: pd.DataFrame | None = None
    examples: tuple[Example, ...] = ()


class Facts(NamedTuple):
    """What is known of a case before anything runs."""

    size: tuple[int, ...]  # of an image, S
    classes: int


Judging = Generator[float, None, Finding]  # yields the share that is done, 0 to 1


def _applies(model: nn.Module, method: str) -> str:
    return ""


@dataclass(frozen=True)
class Check:
    """A way to tell whether a map can be believed.

    `function(model, case)` is a generator that yields the share done so far and returns the Finding; the net is lent to
    it in eval mode, its parameters without gradients, and the case has its maps, on the net's device. What it changes
    in weights it must change in a copy. `passes(facts, own)` says what it will run for each image, where `own` is what
    the method runs for one map; `reason(model, method)` why the check does not apply, "" where it does.
    """

    title: str
    function: Callable[[nn.Module, Case], Judging]
    passes: Callable[[Facts, Passes], Passes]
    reading: str  # how to read the number
    source: str
    higher_is_better: bool
    reason: Callable[[nn.Module, str], str] = _applies
    by_masks: bool = False  # it needs pictures whose objects' masks are known


class Step(NamedTuple):
    """How much of a check is done; the last step has its finding."""

    share: float
    finding: Finding | None = None
