"""Nets for the tests of specs: each field changed once, and odd ones at the ends of what is allowed."""

import dataclasses
from typing import Any

from resnet.nets.spec import MAX_BLOCKS, MAX_WIDTH, PRESETS, NetSpec, StageSpec, cifar, plain_twin

BASE = PRESETS["ResNet-20"]
FIELDS = [f.name for f in dataclasses.fields(NetSpec)]

# Another value for every field of ResNet-20; a new field must come here too.
OTHER: dict[str, Any] = {
    "stages": (StageSpec(1, 16), StageSpec(2, 99, 4, 2), StageSpec(1, 9, 1, 16, "B")),
    "block": "bottleneck",
    "shortcut": "B",
    "cardinality": 4,
    "base_width": 100,
    "stride_on": "1x1",
    "se": 4,
    "stem": "7x7",
    "stem_width": 7,
    "norm": "none",
    "activation": "gelu",
    "zero_init": True,
    "skip_init": True,
    "stochastic_depth": 0.25,
    "in_channels": 1,
    "classes": 100_000,
    "image_size": 8,
    "frames": 5,
}
STAGE_RANGES = {"blocks": (1, 600), "width": (1, 4096), "stride": (1, 4), "dilation": (1, 16)}
BOTTLENECKS = {"cardinality", "base_width"}  # fields that only a bottleneck takes


def other(field: str) -> NetSpec:
    """ResNet-20 with another value of one field."""
    base = dataclasses.replace(BASE, block="bottleneck") if field in BOTTLENECKS else BASE
    return dataclasses.replace(base, **{field: OTHER[field]})


CUSTOM = {
    "smallest": NetSpec((StageSpec(1, 1),), stem_width=1, in_channels=1, classes=2, image_size=8),
    "many at once": NetSpec(
        (StageSpec(3, 24, 4, 3), StageSpec(1, 70, 3, 1, "none"), StageSpec(2, 80, 2, 2, "A")),
        block="preact-bottleneck",
        shortcut="D",
        cardinality=3,
        base_width=32,
        stride_on="1x1",
        se=64,
        stem="deep",
        stem_width=17,
        norm="none",
        activation="silu",
        in_channels=64,
        classes=3,
        image_size=1024,
    ),
    "a clip": NetSpec(
        (StageSpec(2, 8), StageSpec(1, 16, 2)), "basic", "D", stem="3x7x7", norm="group", stochastic_depth=0.1, frames=8
    ),
    "zero_init": NetSpec((StageSpec(2, 16), StageSpec(1, 16, 2)), shortcut="A", stem_width=16, zero_init=True),
    "eight stages": NetSpec(tuple(StageSpec(1, 8 * i, 1 + i % 4) for i in range(1, 9))),
    "deepest": cifar(1202),
    "widest": NetSpec((StageSpec(MAX_BLOCKS, MAX_WIDTH, 4),), "bottleneck", stem_width=MAX_WIDTH, image_size=1024),
    "shrinking": NetSpec((StageSpec(1, 64), StageSpec(1, 8, 2)), shortcut="B"),
} | {f"{field} changed": other(field) for field in OTHER}

SPECS = PRESETS | {f"twin of {name}": plain_twin(spec) for name, spec in PRESETS.items()} | CUSTOM


def changed(**values: Any) -> NetSpec:
    return dataclasses.replace(BASE, **values)
