"""The nets that fit a budget: a grid of depths, widths, groups and stems, counted block by block, the largest kept."""

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd

from resnet.costs.memory import memory
from resnet.costs.profiler import Profile, profile
from resnet.errors import Refused
from resnet.nets.spec import NetSpec, SpecError, StageSpec

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # of the first stage; each later one is twice as wide
GROUPS = ((1, 64), (32, 4), (64, 4), (8, 64))  # cardinality and base width: ResNet, ResNeXt's three
# Blocks by stage: the published nets', and what lies between them.
DEPTHS: dict[int, list[tuple[int, ...]]] = {
    3: [(n, n, n) for n in (1, 2, 3, 5, 7, 9, 12, 18, 27, 36, 54, 100, 200)],
    4: [(1, 1, 1, 1), (2, 2, 2, 2), (2, 3, 4, 2), (3, 4, 6, 3), (3, 4, 12, 3), (3, 4, 23, 3), (3, 8, 36, 3),
        (3, 12, 48, 3), (3, 24, 36, 3)],
}  # fmt: skip
OPTIMIZER = "sgd momentum"


@dataclass(frozen=True)
class Budget:
    """At most so many params, MACs for one image, and bytes at the peak of a training step of `batch` images.

    A limit of 0 is none. Refused for a negative one.
    """

    params: int = 0
    macs: int = 0
    memory: int = 0
    batch: int = 128

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < (field.name == "batch"):
                choices = "1 or more" if field.name == "batch" else "0 for none, or more"
                raise Refused(f"A budget's {field.name} is a whole number.", repr(value), choices)

    def holds(self, params: int, macs: int) -> bool:
        return (not self.params or params <= self.params) and (not self.macs or macs <= self.macs)


@dataclass(frozen=True)
class Fit:
    """A net in the budget, with what was counted on the net itself; bytes are 0 where no memory was asked for."""

    spec: NetSpec
    params: int
    macs: int
    bytes: int

    @property
    def size(self) -> tuple[int, int, int]:
        """What the Pareto list compares: depth, width, cardinality."""
        return self.spec.depth, self.spec.stages[0].width, self.spec.cardinality


def families(base: NetSpec, blocks: tuple[str, ...], stems: tuple[str, ...]) -> list[list[NetSpec]]:
    """Nets of two blocks a stage by block, stem and groups, narrow to wide, with the input and options of `base`."""
    found = []
    for block, stem, (cardinality, base_width) in itertools.product(blocks, stems, GROUPS):
        family = []
        for width in WIDTHS:
            with suppress(SpecError):  # groups in a basic block, or fewer than one channel in a group
                values: dict[str, Any] = {"block": block, "stem": stem, "stem_width": width, "cardinality": cardinality}
                family.append(dataclasses.replace(base, stages=_stages(base, width), base_width=base_width, **values))
        found.append(family)
    return [family for family in found if family]


def _stages(base: NetSpec, width: int) -> tuple[StageSpec, ...]:
    count = 3 if len(base.stages) == 3 else 4
    return tuple(StageSpec(2, width * 2**index, 1 if index == 0 else 2) for index in range(count))


def search(
    base: NetSpec, budget: Budget, blocks: tuple[str, ...], stems: tuple[str, ...]
) -> Iterator[tuple[float, list[Fit]]]:
    """The share of the grid that is done, and the Pareto list so far; each listed net is counted again, whole.

    A net is listed where no other of its block and stem that fits is at least as deep, as wide and as grouped.
    """
    found: list[Fit] = []
    grid = families(base, blocks, stems)
    for done, family in enumerate(grid):
        for place, net in enumerate(family):
            fit = deepest(net, budget)
            if fit is None:
                break  # a wider one fits even less
            found = pareto([*found, fit])
            yield (done + place / len(family)) / len(grid), found
    yield 1.0, found


def deepest(family: NetSpec, budget: Budget) -> Fit | None:
    """The deepest net of a family in the budget, None where not even the shallowest fits."""
    counted = profile(family)
    depths = [d for d in DEPTHS[len(family.stages)] if budget.holds(*extrapolated(counted, d))]

    def taken(depth: tuple[int, ...]) -> int:
        return memory(with_blocks(family, depth), budget.batch, OPTIMIZER).peak

    if budget.memory:  # grows with the depth, so that a bisection finds the last one that fits
        depths = depths[: bisect_right(depths, budget.memory, key=taken)]
    if not depths:
        return None
    spec = with_blocks(family, depths[-1])
    whole = profile(spec)
    return Fit(spec, whole.params, whole.macs, taken(depths[-1]) if budget.memory else 0)


def with_blocks(spec: NetSpec, depths: tuple[int, ...]) -> NetSpec:
    """The same net with so many blocks in its stages."""
    pairs = zip(spec.stages, depths, strict=True)
    return dataclasses.replace(spec, stages=tuple(dataclasses.replace(stage, blocks=n) for stage, n in pairs))


def extrapolated(two: Profile, depths: tuple[int, ...]) -> tuple[int, int]:
    """Params and MACs of the net with other depths, from its profile with two blocks a stage: exact, blocks repeat."""
    params, macs = two.params, two.macs
    boxes = two.blocks().set_index("name")
    for stage, blocks in enumerate(depths, 1):
        params += (blocks - 2) * int(boxes.params[f"layer{stage}.1"])
        macs += (blocks - 2) * int(boxes.macs[f"layer{stage}.1"])
    return params, macs


def pareto(fits: list[Fit]) -> list[Fit]:
    """Those that no other of the same block and stem is at least as large as in depth, width and cardinality."""

    def beaten(fit: Fit) -> bool:
        rivals = (f for f in fits if (f.spec.block, f.spec.stem) == (fit.spec.block, fit.spec.stem) and f != fit)
        return any(f.size != fit.size and all(x >= y for x, y in zip(f.size, fit.size, strict=True)) for f in rivals)

    return sorted((fit for fit in dict.fromkeys(fits) if not beaten(fit)), key=lambda fit: fit.size, reverse=True)


def table(fits: list[Fit]) -> pd.DataFrame:
    """One row per net: name, block, stem, depth, blocks by stage, width, cardinality, params, macs, bytes."""
    rows = [
        (
            fit.spec.name, fit.spec.block, fit.spec.stem, fit.spec.depth,
            "-".join(str(stage.blocks) for stage in fit.spec.stages),
            fit.spec.stages[0].width, fit.spec.cardinality, fit.params, fit.macs, fit.bytes,
        )
        for fit in fits
    ]  # fmt: skip
    names = ["name", "block", "stem", "depth", "blocks", "width", "cardinality", "params", "macs", "bytes"]
    return pd.DataFrame(rows, columns=names)
