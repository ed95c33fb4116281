"""Specs: round trips, names, every rule with its message, and texts that no program wrote."""

import dataclasses
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet.blocks import BLOCKS, SHORTCUTS, STEMS
from resnet.codes import from_code, from_dict, from_json, to_code, to_dict, to_json
from resnet.layers import ACTIVATIONS, NORMS
from resnet.model import build
from resnet.spec import (
    MAX_BLOCKS,
    MAX_WIDTH,
    PRESETS,
    NetSpec,
    SpecError,
    StageSpec,
    cifar,
    output_strides,
    plain_twin,
    with_output_stride,
)
from tests.strategies import net_specs

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
    assert to_code(cifar(26)) == "ResNet-26"
    assert to_code(cifar(50)) == "ResNet-20~stages.8x16s1-8x32s2-8x64s2", "ResNet-50 is the ImageNet net"
    assert (cifar(8).name, plain_twin(cifar(8)).name, cifar(50).name) == ("ResNet-8", "plain-8", "ResNet-50 (custom)")
    assert from_code("plain-20") == plain_twin(BASE)
    assert from_code("plain-50_v1") == plain_twin(PRESETS["ResNet-50 v1"])
    assert from_code("ResNet-26") == cifar(26)
    assert from_code("ResNet-20~zero_init.False~classes.0010") == BASE
    assert from_code("plain-1202~classes.100") == dataclasses.replace(plain_twin(cifar(1202)), classes=100)


@pytest.mark.parametrize("name", PRESETS)
def test_name_and_depth(name: str) -> None:
    spec, twin = PRESETS[name], plain_twin(PRESETS[name])
    assert spec.name == name
    plain = name.replace("ResNet", "plain") if name.startswith("ResNet-") else f"plain {name}"
    assert twin.name == plain.replace("50-D", "50-C")  # without shortcuts ResNet-50-C and -D are one net
    assert (spec.plain, twin.plain) == (False, True)
    told = int(re.findall(r"-([0-9]+)", name)[0])
    told = 26 if name == "WRN-28-10" else told  # that name counts two of the projections
    assert spec.depth == twin.depth == told
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


# Rules: what breaks each, the field to mend, and what the message must hold.

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
STAGE_RANGES = {"blocks": (1, 600), "width": (1, 4096), "stride": (1, 4), "dilation": (1, 16)}


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
    "stochastic depth is a chance": (
        lambda: changed(stochastic_depth=0.95),
        "stochastic_depth",
        "is a chance",
        "0.95",
        "0 to 0.9",
    ),
    "stochastic depth is a number": (
        lambda: changed(stochastic_depth=True),
        "stochastic_depth",
        "is a chance",
        "True",
        "0 to 0.9",
    ),
    "stochastic depth is finite": (
        lambda: changed(stochastic_depth=float("nan")),
        "stochastic_depth",
        "is a chance",
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
    "one is no squeeze": (lambda: changed(se=1), "se", "squeezes", "1", "0 for none"),
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
        "may not be deeper",
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
    "6n+2 layers": (lambda: cifar(21), "depth", "6n+2", "21", "20 or 26"),
    "at least 8 layers": (lambda: cifar(2), "depth", "in range", "2", "8 to 1,202"),
    "at most 1202 layers": (lambda: cifar(1208), "depth", "in range", "1208", "8 to 1,202"),
    "a code starts with a preset": (
        lambda: from_code("VGG-16"),
        "net",
        "starts with a preset",
        "'VGG-16'",
        "ResNet-18",
    ),
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


# Texts that no program wrote.

BAD_CODES: list[Any] = [
    None,
    20,
    b"ResNet-20",
    "",
    " ",
    "~",
    "~~~",
    ".",
    "ResNet-20 ",
    "ResNet-20\n",
    "\nResNet-20",
    "resnet-20",
    "ResNet-",
    "ResNet--20",
    "ResNet-21",
    "ResNet-2",
    "ResNet-9998",
    "ResNet-" + "9" * 10_000,
    "ResNet-٢٠",
    "ResNet-²",
    "ResNet-20~classes.١٢",
    "ResNet-20~classes.\uff11\uff12",
    "ResNet-20~stages.٣x16s1",
    "plain",
    "plainplain-20",
    "plainResNet-20",
    "x" * 10_000,
    "ResNet-20~" * 1000,
    "ResNet-20" + "~classes" * 1000,
    "ResNet-20~block." + "x" * 10_000,
    "ResNet-20~classes." + "9" * 10_000,
    "ResNet-20~stages." + "-".join(["1x16s1"] * 1500),
    "ResNet-20~stages." + "9" * 10_000,
    "ResNet-20~",
    "ResNet-20~.",
    "ResNet-20~.3",
    "ResNet-20~classes.",
    "ResNet-20~classes.-3",
    "ResNet-20~classes.+3",
    "ResNet-20~classes.1_0",
    "ResNet-20~classes. 10",
    "ResNet-20~classes.10\n",
    "ResNet-20~zero_init.1",
    "ResNet-20~zero_init.true",
    "ResNet-20~expansion.4",
    "ResNet-20~depth.20",
    "ResNet-20~__init__.1",
    "ResNet-20~self.1",
    "ResNet-20~stages.",
    "ResNet-20~stages.1x1s1-",
    "ResNet-20~stages.1x16s1\n",
    "ResNet-20~stages.0x16s1",
    "ResNet-20~stages.1x16s9",
    "ResNet-20~shortcut.none~zero_init.True",
    "ResNet-20~stages.1x16s1d",
    "ResNet-20~stages.1x16s1d0",
    "ResNet-20~stages.1x16s1E",
    "ResNet-20~stages.1x16s1Bd2",
    "ResNet-20~stochastic_depth.0.",
    "ResNet-20~stochastic_depth.\u0660.\u0662",
    "plain ResNet-20 ",
    "ResNet-50~shortcut.A~stem_width.4096",
    "\0",
    "\ud800",
    "ResNet-20~block.\ud800",
    "../../etc/passwd",
    "{{7*7}}",
]


@pytest.mark.parametrize("code", BAD_CODES, ids=lambda code: ascii(code)[:40])
def test_garbage_codes_are_refused(code: Any) -> None:
    with pytest.raises(SpecError):
        from_code(code)


def with_entry(name: str, text: str) -> str:
    """The JSON of a good net, but `text` in the place of one value."""
    return json.dumps(to_dict(BASE) | {name: "HERE"}).replace('"HERE"', text)


BAD_JSON: list[Any] = [
    None,
    20,
    b"\xff\xfe\x01",
    "",
    "null",
    "NaN",
    "Infinity",
    "1e999",
    "[]",
    "[[]]",
    '"stages"',
    "true",
    "{}",
    '{"stages": null}',
    '{"stages": 3}',
    '{"stages": "3x16s1"}',
    '{"stages": {}}',
    '{"stages": {"blocks": 1, "width": 16}}',
    '{"stages": [null]}',
    '{"stages": [[1, 16, 1]]}',
    '{"stages": [{}]}',
    '{"stages": [{"blocks": 1}]}',
    '{"stages": [{"blocks": 1, "width": NaN}]}',
    '{"stages": [{"blocks": 1, "width": 1.0}]}',
    '{"stages": [{"blocks": 1, "width": 16, "depth": 3}]}',
    '{"stages": [{"blocks": 1, "width": 16}], "": 1}',
    '{"stages": [{"blocks": 1, "width": 16}], "depth": 20}',
    '{"stages": [{"blocks": 1, "width": 16}], "self": 1}',
    json.dumps([to_dict(BASE)]),
    json.dumps(json.dumps(to_dict(BASE))),
    to_json(BASE)[:-1],
    to_json(BASE) + "}",
    "'" + to_json(BASE) + "'",
    "\ufeff" + to_json(BASE),
    "[" * 100_000,
    '{"stages":' * 100_000,
    "1" * 5000,
    with_entry("classes", "1" * 5000),
    with_entry("classes", "1" * 4000),
    with_entry("classes", "1e400"),
    with_entry("classes", "-Infinity"),
    with_entry("classes", "NaN"),
    with_entry("classes", "10.0"),
    with_entry("classes", "true"),
    with_entry("block", "[]"),
    with_entry("block", '{"basic": 1}'),
    with_entry("stem", "[[[[[[]]]]]]"),
    with_entry("norm", "null"),
    with_entry("zero_init", "0"),
    with_entry("zero_init", "null"),
    with_entry("stride_on", '["3x3"]'),
]


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: ascii(text)[:40])
def test_garbage_json_is_refused(text: Any) -> None:
    with pytest.raises(SpecError):
        from_json(text)


@pytest.mark.parametrize(
    "data",
    [None, 0, 1.5, "stages", [], [1], (), set(), {}, {1: 2}, {"stages": [{1: 2}]}, {"stages": [BASE]}, BASE, object()],
    ids=lambda data: repr(data).split(" at 0x")[0],  # the same in each process
)
def test_garbage_objects_are_refused(data: Any) -> None:
    with pytest.raises(SpecError):
        from_dict(data)
    with pytest.raises(SpecError):
        from_dict(to_dict(BASE) | {"stages": data})


def test_no_depth_of_nesting_gets_through() -> None:
    for depth in range(1, 1200):  # past the recursion limit, and near it, where reading works and printing may not
        with pytest.raises(SpecError):
            from_json(with_entry("classes", "[" * depth + "]" * depth))
        with pytest.raises(SpecError):
            from_json(with_entry("stages", "[" * depth + "]" * depth))


LETTERS = "0123456789abcxsABRNe._~- \n\t+%/\\\"'[]{}:,é²٣\0\ud83d\U0001f600"


def mutate(text: str, other: str, rng: random.Random) -> str:
    """One to four edits: delete, insert, replace, repeat, or the tail of another text."""
    for _ in range(rng.randint(1, 4)):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        j = min(j, i + 4)
        letters = "".join(rng.choices(LETTERS, k=rng.randint(1, 3)))
        tail = other[rng.randint(0, len(other)) :]
        edits = [text[:i] + text[j:], text[:i] + letters + text[i:], text[:i] + letters + text[j:]]
        text = rng.choice([*edits, text[:j] + text[i:], text[:i] + tail, text + "~" + tail.partition("~")[2]])
    return text


def accepted(read: Callable[[Any], NetSpec], items: list[Any]) -> set[NetSpec]:
    """What `read` takes; any exception but SpecError is the caller's failure."""
    found, fields = set(), set()
    for item in items:
        try:
            found.add(read(item))
        except SpecError as error:
            fields.add(error.field)
    assert fields <= {*FIELDS, *STAGE_RANGES, "net", "spec", "depth"}
    return found


def check_builds(spec: NetSpec) -> None:
    """A forward on the meta device; two blocks of each stage do, the others repeat the second."""
    short = tuple(dataclasses.replace(s, blocks=min(s.blocks, 2)) for s in spec.stages)
    model = build(dataclasses.replace(spec, stages=short), device="meta").eval()
    with torch.no_grad():
        assert model(torch.empty(2, *spec.input_shape, device="meta")).shape == (2, spec.classes)


def test_mutated_codes_are_read_or_refused() -> None:
    rng = random.Random(0)
    valid = [*map(to_code, SPECS.values()), "plain-20", "plain-50_v1~norm.none", "ResNet-26~zero_init.True"]
    found = accepted(from_code, [mutate(rng.choice(valid), rng.choice(valid), rng) for _ in range(5000)])
    assert len(found) > 50
    for spec in found:
        assert from_code(to_code(spec)) == spec
    for spec in rng.sample(sorted(found, key=to_code), 12):
        check_builds(spec)


def test_mutated_json_is_read_or_refused() -> None:
    rng = random.Random(1)
    valid = [json.dumps(to_dict(spec)) for spec in SPECS.values()]
    found = accepted(from_json, [mutate(rng.choice(valid), rng.choice(valid), rng) for _ in range(3000)])
    assert found
    assert all(from_json(to_json(spec)) == spec for spec in found)


def test_odd_values_anywhere_are_read_or_refused() -> None:
    rng = random.Random(2)
    odd: list[Any] = [
        None,
        True,
        0,
        1,
        -1,
        3,
        10**20,
        1.5,
        float("nan"),
        "",
        "A",
        "none",
        "3x3",
        [],
        [[]],
        {},
        {"a": 1},
        b"",
        (),
    ]
    items = []
    for _ in range(3000):
        data = to_dict(rng.choice(list(SPECS.values())))
        where = rng.choice([data, data, rng.choice(data["stages"])])
        where[rng.choice([*where, "new"])] = rng.choice(odd)
        items.append(data)
    found = accepted(from_dict, items)
    assert found
    assert all(from_dict(to_dict(spec)) == spec for spec in found)


@given(net_specs(max_width=64))
@settings(max_examples=60, deadline=None)
def test_a_spec_that_constructs_builds_and_round_trips(spec: NetSpec) -> None:
    assert from_code(to_code(spec)) == from_json(to_json(spec)) == spec
    check_builds(spec)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Of a field's type, and of others: in range or not."""
    numbers = st.integers(-3, 2000) | st.floats()
    names = st.sampled_from(["", "A", "B", "D", "none", "3x3", "7x7", "bottleneck", "batch", "relu"])
    return numbers | names | st.booleans() | st.none()


@given(net_specs(max_width=64), st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_spec_is_taken_or_refused_with_a_rule(spec: NetSpec, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(FIELDS[1:]), min_size=1, max_size=3, unique=True))
    entries: dict[str, Any] = {name: data.draw(values(name), label=name) for name in names}
    if data.draw(st.booleans()):
        changed_stages = [to_dict(spec)["stages"][0] | {"shortcut": data.draw(values(str)), "width": 1}]
        entries["stages"] = changed_stages
    refused = None
    try:
        made = from_dict(to_dict(spec) | entries)
    except SpecError as error:
        refused = error
    if refused:
        assert re.search(r"Received .*\. Choose .+\.$", str(refused), re.S)
        assert refused.field in {*FIELDS, *STAGE_RANGES}
        return
    assert from_code(to_code(made)) == made
    check_builds(made)


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_specs_build(name: str) -> None:
    check_builds(CUSTOM[name])
