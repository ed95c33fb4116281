"""Specs: round trips, names, and every rule with its message."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from resnet.nets.blocks import BLOCKS, SHORTCUTS
from resnet.nets.codes import from_code, from_dict, from_json, to_code, to_dict, to_json
from resnet.nets.kinds import ACTIVATION_KINDS, BLOCK_KINDS, NORM_KINDS, SHORTCUT_KINDS, STEMS
from resnet.nets.layers import ACTIVATIONS, NORMS
from resnet.nets.spec import (
    PRESETS,
    NetSpec,
    SpecError,
    StageSpec,
    cifar,
    output_strides,
    plain_twin,
    with_output_stride,
)
from tests.support.nets import BASE, BOTTLENECKS, FIELDS, OTHER, SPECS, STAGE_RANGES, changed
from tests.support.strategies import net_specs


def test_every_field_is_changed_once() -> None:
    assert list(OTHER) == FIELDS
    assert all(OTHER[name] != getattr(BASE, name) for name in FIELDS)


@pytest.mark.parametrize("name", SPECS)
def test_round_trips(name: str) -> None:
    spec = SPECS[name]
    for back in (from_json(to_json(spec)), from_dict(to_dict(spec)), from_code(to_code(spec))):
        assert back == spec
        assert hash(back) == hash(spec)
    assert re.fullmatch(r"[A-Za-z0-9_.~-]+", to_code(spec)), "a code must need no quoting in a URL or a shell"


def test_settings_by_stage_in_a_code() -> None:
    spec = dataclasses.replace(BASE, stages=OTHER["stages"])
    assert to_code(spec) == "ResNet-20~stages.1x16s1-2x99s4d2-1x9s1d16B"
    assert from_code("ResNet-20~stages.3x16s1A-3x32s2none-3x64s1d2").stages == (
        StageSpec(3, 16, 1, 1, "A"), StageSpec(3, 32, 2, 1, "none"), StageSpec(3, 64, 1, 2)
    )  # fmt: skip


def test_code_names_the_nearest_preset_and_what_differs() -> None:
    assert to_code(BASE) == "ResNet-20"
    assert to_code(changed(shortcut="B", classes=100)) == "ResNet-20~shortcut.B~classes.100"
    assert to_code(PRESETS["ResNet-50 v1"]) == "ResNet-50_v1"
    assert to_code(cifar(38)) == "ResNet-38"
    assert to_code(cifar(50)) == "CIFAR_ResNet-50", "ResNet-50 is the ImageNet net"
    assert (cifar(8).name, plain_twin(cifar(8)).name) == ("ResNet-8", "plain-8")
    assert from_code("plain-20") == plain_twin(BASE)
    assert from_code("plain-50_v1") == plain_twin(PRESETS["ResNet-50 v1"])
    assert from_code("ResNet-38") == cifar(38)
    assert from_code("ResNet-20~zero_init.False~classes.0010") == BASE
    assert from_code("plain-1202~classes.100") == dataclasses.replace(plain_twin(cifar(1202)), classes=100)


@pytest.mark.parametrize("name", PRESETS)
def test_name_and_depth(name: str) -> None:
    spec, twin = PRESETS[name], plain_twin(PRESETS[name])
    assert spec.name == name
    plain = name.replace("ResNet", "plain") if name.startswith("ResNet-") else f"plain {name}"
    assert twin.name == plain.replace("plain-50-D", "plain-50-C")  # without shortcuts ResNet-50-C and -D are one net
    assert (spec.plain, twin.plain) == (False, True)
    named = int(re.findall(r"-([0-9]+)", name)[0])
    named = 26 if name == "WRN-28-10" else named  # that name counts two of the projections
    assert spec.depth == twin.depth == named
    assert dataclasses.replace(spec, classes=7, image_size=65).name == name
    assert dataclasses.replace(twin, classes=7, image_size=65).name == twin.name
    assert dataclasses.replace(spec, zero_init=True).name == f"ResNet-{spec.depth} (custom)"
    if spec.frames:
        assert dataclasses.replace(spec, frames=spec.frames + 1).name == name
    assert dataclasses.replace(twin, stem_width=9).name == f"plain-{spec.depth} (custom)"


@given(net_specs())
@settings(max_examples=100, deadline=None)
def test_every_net_has_a_name(spec: NetSpec) -> None:
    assert str(spec.depth) in spec.name
    assert plain_twin(spec).name.startswith(("plain", "ResNet"))


def test_cifar_depths() -> None:
    for depth in range(8, 1203, 6):
        assert cifar(depth).depth == depth
    assert [(s.blocks, s.width, s.stride) for s in cifar(20).stages] == [(3, 16, 1), (3, 32, 2), (3, 64, 2)]


def test_twin_differs_in_the_shortcut_only() -> None:
    """And in what would leave its blocks nothing."""
    off = {"shortcut", "zero_init", "skip_init", "stochastic_depth"}
    for spec in SPECS.values():
        twin = plain_twin(spec)
        differ = {name for name in FIELDS if getattr(twin, name) != getattr(spec, name)}
        assert differ <= {*off, "stages"}
        assert spec.plain or "shortcut" in differ
        assert twin.plain
        assert (twin.zero_init, twin.skip_init, twin.stochastic_depth) == (False, False, 0)
        assert [dataclasses.replace(s, shortcut="") for s in spec.stages] == list(twin.stages)


# Rules: what breaks each, the field to fix, and what the message must hold.

CHOICES: dict[str, list[str]] = {
    "block": list(BLOCKS),
    "shortcut": list(SHORTCUTS),
    "stem": list(STEMS),
    "stride_on": ["3x3", "1x1"],
    "norm": list(NORMS),
    "activation": list(ACTIVATIONS),
}
RANGES = {
    "cardinality": (1, 256),
    "base_width": (1, 1024),
    "se": (0, 64),
    "stem_width": (1, 4096),
    "in_channels": (1, 64),
    "classes": (2, 100_000),
    "image_size": (8, 1024),
    "frames": (0, 256),
}


def check_error(error: SpecError, field: str, *parts: str) -> None:
    assert isinstance(error, ValueError)
    assert error.field == field
    for part in parts:
        assert part in str(error)


@pytest.mark.parametrize("value", ["", "C?", "BASIC", None, 3, [], {}, ("3x3",), float("nan")], ids=repr)
@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choices_are_refused(field: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        changed(**{field: value})
    rule = f"{field.replace('_', ' ').capitalize()} must be one this program knows."
    check_error(caught.value, field, rule, f"Received {value!r}", *CHOICES[field])


def outside(low: int, high: int) -> list[Any]:
    return [low - 1, high + 1, -(10**30), 10**30, float(low), float("nan"), float("inf"), True, str(low), None, [low]]


def out_of_range(ranges: dict[str, tuple[int, int]]) -> list[Any]:
    cases = [(field, value, low, high) for field, (low, high) in ranges.items() for value in outside(low, high)]
    return [pytest.param(*case, id=f"{case[0]}={case[1]!r}") for case in cases]


def stage(**values: Any) -> StageSpec:
    return StageSpec(**{"blocks": 1, "width": 16, "stride": 1} | values)


@pytest.mark.parametrize(("field", "value", "low", "high"), out_of_range(RANGES | STAGE_RANGES))
def test_numbers_out_of_range_are_refused(field: str, value: Any, low: int, high: int) -> None:
    make: Callable[..., object] = changed if field in RANGES else stage
    with pytest.raises(SpecError) as caught:
        make(**{field: value})
    rule = f"{field.replace('_', ' ').capitalize()} must be a whole number in range."
    check_error(caught.value, field, rule, f"Received {value!r}", f"{low:,}", f"{high:,}")


def test_ends_of_the_ranges_are_taken() -> None:
    for field, ends in RANGES.items():
        wide = {"stages": (stage(width=64),), "block": "bottleneck"} if field in BOTTLENECKS else {}
        assert {getattr(changed(shortcut="B", **wide, **{field: end}), field) for end in ends} == set(ends)
    for field, ends in STAGE_RANGES.items():
        assert {getattr(stage(**{field: end}), field) for end in ends} == set(ends)


RULES: dict[str, tuple[Callable[[], object], str, str, str, str]] = {
    "zero_init is a bool": (lambda: changed(zero_init=1), "zero_init", "is a switch", "1", "true or false"),
    "skip_init is a bool": (lambda: changed(skip_init=None), "skip_init", "is a switch", "None", "true or false"),
    "zero and skip init exclude each other": (
        lambda: changed(zero_init=True, skip_init=True),
        "skip_init",
        "stop each other",
        "both",
        "one of them",
    ),
    "zero_init needs shortcuts": (
        lambda: changed(zero_init=True, shortcut="none"),
        "zero_init",
        "every stage must have one",
        "none",
        "another",
    ),
    "skip_init needs a shortcut in each stage": (
        lambda: changed(skip_init=True, stages=(stage(), stage(shortcut="none"))),
        "skip_init",
        "every stage must have one",
        "none",
        "no skip init",
    ),
    "stochastic depth needs shortcuts": (
        lambda: changed(stochastic_depth=0.1, shortcut="none"),
        "stochastic_depth",
        "every stage",
        "none",
        "another",
    ),
    "stochastic depth is a probability": (
        lambda: changed(stochastic_depth=0.95),
        "stochastic_depth",
        "is a probability",
        "0.95",
        "0 to 0.9",
    ),
    "stochastic depth is a number": (
        lambda: changed(stochastic_depth=True),
        "stochastic_depth",
        "is a probability",
        "True",
        "0 to 0.9",
    ),
    "stochastic depth is finite": (
        lambda: changed(stochastic_depth=float("nan")),
        "stochastic_depth",
        "is a probability",
        "nan",
        "0 to 0.9",
    ),
    "groups are a bottleneck's": (
        lambda: changed(cardinality=2),
        "cardinality",
        "bottleneck's 3x3",
        "2 with block basic",
        "block bottleneck",
    ),
    "base width is a bottleneck's": (
        lambda: changed(base_width=4, block="preact-basic"),
        "base_width",
        "bottleneck's 3x3",
        "4 with",
        "64, or",
    ),
    "a group has a channel": (
        lambda: changed(base_width=3, block="bottleneck"),
        "base_width",
        "may not be below 1",
        "16 x 3 / 64",
        "larger",
    ),
    "one is no squeeze": (lambda: changed(se=1), "se", "by 2 or more", "1", "0 for none"),
    "a video stem needs frames": (lambda: changed(stem="3x7x7"), "stem", "clips", "0 frames", "1 frame or more"),
    "a 3-D average pool fits": (
        lambda: changed(shortcut="D", frames=1),
        "shortcut",
        "must fit",
        "a side of 1 at stride 2",
        "more frames",
    ),
    "a stage's shortcut is known": (lambda: stage(shortcut="E"), "shortcut", "one this program knows", "'E'", "A or B"),
    "option A in one stage": (
        lambda: changed(shortcut="B", stages=(stage(width=32), stage(width=31, shortcut="A"))),
        "shortcut",
        "may not shrink",
        "[16, 32, 31]",
        "shortcut B",
    ),
    "strides make the output stride": (
        lambda: with_output_stride(PRESETS["ResNet-50"], 3),
        "output_stride",
        "must multiply",
        "3",
        "4, 8, 16, 32",
    ),
    "a number below 10": (
        lambda: from_code("ResNet-20~stochastic_depth.-1"),
        "stochastic_depth",
        "below 10",
        "'-1'",
        "0.2",
    ),
    "stages are a tuple": (lambda: changed(stages=[stage()]), "stages", "must be a tuple", "[StageSpec(", "at least"),
    "stages are StageSpecs": (lambda: changed(stages=((1, 2, 3),)), "stages", "must be a tuple", "(1, 2, 3)", "at"),
    "stages are not None": (lambda: changed(stages=None), "stages", "must be a tuple", "None", "at least one stage"),
    "no stage": (lambda: changed(stages=()), "stages", "1 to 8 stages", "0", "1 to 8"),
    "nine stages": (lambda: changed(stages=(stage(),) * 9), "stages", "1 to 8 stages", "9", "1 to 8"),
    "601 blocks": (
        lambda: changed(stages=(stage(blocks=600), stage())),
        "stages",
        "limited number of blocks",
        "601",
        "up to 600 blocks",
    ),
    "option A does not shrink": (
        lambda: changed(stages=(stage(width=32), stage(width=31))),
        "shortcut",
        "may not shrink",
        "[16, 32, 31]",
        "shortcut B",
    ),
    "option A does not shrink after the stem": (
        lambda: changed(stem_width=17),
        "shortcut",
        "may not shrink",
        "[17, 16, 32, 64]",
        "shortcut B",
    ),
    "6n+2 layers by name": (lambda: from_code("cifar_resnet21"), "depth", "6n+2", "21", "20 or 26"),
    "what came is cut off": (lambda: changed(block="x" * 10_000), "block", "one this", f"{'x' * 98}…. ", "bottleneck"),
    "6n+2 layers": (lambda: cifar(21), "depth", "6n+2", "21", "20 or 26"),
    "at least 8 layers": (lambda: cifar(2), "depth", "in range", "2", "8 to 1,202"),
    "at most 1202 layers": (lambda: cifar(1208), "depth", "in range", "1208", "8 to 1,202"),
    "a code starts with a name": (lambda: from_code("ResNet-51"), "net", "has this name", "'ResNet-51'", "ResNet-50"),
    "a name of two nets": (lambda: from_code("ResNet-164"), "net", "More than one", "'ResNet-164'", "Pre-ResNet-164"),
    "a change has a dot": (lambda: from_code("ResNet-20~norm"), "net", "NAME.VALUE", "'norm'", "stride_on"),
    "a change has a known name": (lambda: from_code("ResNet-20~x.1"), "net", "NAME.VALUE", "'x.1'", "stride_on"),
    "a number is digits": (lambda: from_code("ResNet-20~classes.1e3"), "classes", "whole number", "'1e3'", "digits"),
    "stages in a code": (lambda: from_code("ResNet-20~stages.3"), "stages", "BLOCKSxWIDTHsSTRIDE", "'3'", "3x16s1"),
    "a description is JSON": (lambda: from_json("{"), "spec", "is JSON", "Expecting", "this program wrote"),
    "a description has stages": (lambda: from_json("{}"), "spec", "not a net's", "stages", "this program wrote"),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_explained(rule: str) -> None:
    make, field, sentence, received, choices = RULES[rule]
    with pytest.raises(SpecError) as caught:
        make()
    text = str(caught.value)
    assert text.index(sentence) < text.index("Received ") < text.index("Choose ")
    assert received in text[text.index("Received ") : text.index("Choose ")]
    check_error(caught.value, field, choices)


def test_output_stride_trades_strides_for_dilation() -> None:
    spec = PRESETS["ResNet-50"]
    for output_stride, strides, dilations in [
        (32, (1, 2, 2, 2), (1, 1, 1, 1)), (16, (1, 2, 2, 1), (1, 1, 1, 2)), (8, (1, 2, 1, 1), (1, 1, 2, 4)),
        (4, (1, 1, 1, 1), (1, 2, 4, 8)),
    ]:  # fmt: skip
        net = with_output_stride(spec, output_stride)
        assert (net.output_stride, output_stride in output_strides(spec)) == (output_stride, True)
        assert tuple(stage.stride for stage in net.stages) == strides
        assert tuple(stage.dilation for stage in net.stages) == dilations
    assert with_output_stride(spec, 32) == spec


def test_option_a_may_shrink_in_a_bottleneck_as_long_as_the_channels_grow() -> None:
    assert changed(stem_width=64, block="bottleneck").shortcut == "A"  # 64, 64, 128, 256


def test_the_names_that_a_spec_chooses_from_are_those_that_build() -> None:
    assert list(BLOCK_KINDS) == list(BLOCKS)
    assert [tuple(SHORTCUTS), tuple(NORMS), tuple(ACTIVATIONS)] == [SHORTCUT_KINDS, NORM_KINDS, ACTIVATION_KINDS]
