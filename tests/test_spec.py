"""Specs: round trips, names, every rule with its message, and texts that no program wrote."""

import dataclasses
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from resnet.blocks import BLOCKS, NORMS, SHORTCUTS, STEMS
from resnet.model import build
from resnet.spec import (
    MAX_BLOCKS,
    MAX_WIDTH,
    PRESETS,
    NetSpec,
    SpecError,
    StageSpec,
    cifar,
    from_code,
    from_dict,
    from_json,
    plain_twin,
    to_code,
    to_dict,
    to_json,
)

BASE = PRESETS["ResNet-20"]
FIELDS = [f.name for f in dataclasses.fields(NetSpec)]

# Another value for every field of ResNet-20; a new field must come here too.
OTHER: dict[str, Any] = {
    "stages": (StageSpec(1, 16), StageSpec(2, 99, 4)),
    "block": "bottleneck",
    "shortcut": "B",
    "stem": "7x7",
    "stem_width": 7,
    "stride_on": "1x1",
    "norm": "none",
    "zero_init": True,
    "in_channels": 1,
    "classes": 100_000,
    "image_size": 8,
}

CUSTOM = {
    "smallest": NetSpec((StageSpec(1, 1),), stem_width=1, in_channels=1, classes=2, image_size=8),
    "all but zero_init": NetSpec(
        (StageSpec(3, 24, 4), StageSpec(1, 7, 3)), "bottleneck", "none", "3x3", 17, "1x1", "none", False, 64, 3, 1024
    ),
    "zero_init": NetSpec((StageSpec(2, 16), StageSpec(1, 16, 2)), shortcut="A", stem_width=16, zero_init=True),
    "eight stages": NetSpec(tuple(StageSpec(1, 8 * i, 1 + i % 4) for i in range(1, 9))),
    "deepest": cifar(1202),
    "widest": NetSpec((StageSpec(MAX_BLOCKS, MAX_WIDTH, 4),), "bottleneck", stem_width=MAX_WIDTH, image_size=1024),
    "shrinking": NetSpec((StageSpec(1, 64), StageSpec(1, 8, 2)), shortcut="B"),
} | {f"{field} changed": dataclasses.replace(BASE, **{field: value}) for field, value in OTHER.items()}

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
    assert twin.name == name.replace("ResNet", "plain")
    assert (spec.plain, twin.plain) == (False, True)
    assert f"ResNet-{spec.depth}" == name.split()[0]
    assert twin.depth == spec.depth
    assert dataclasses.replace(spec, classes=7, image_size=65).name == name
    assert dataclasses.replace(twin, classes=7, image_size=65).name == twin.name
    assert dataclasses.replace(spec, zero_init=True).name == f"ResNet-{spec.depth} (custom)"
    assert dataclasses.replace(twin, stem_width=9).name == f"plain-{spec.depth} (custom)"


def test_cifar_depths() -> None:
    for depth in range(8, 1203, 6):
        assert cifar(depth).depth == depth
    assert [(s.blocks, s.width, s.stride) for s in cifar(20).stages] == [(3, 16, 1), (3, 32, 2), (3, 64, 2)]


def test_twin_differs_in_the_shortcut_only() -> None:
    for spec in SPECS.values():
        differ = [name for name in FIELDS if getattr(plain_twin(spec), name) != getattr(spec, name)]
        assert differ == ([] if spec.plain else ["shortcut"])


# Rules: what breaks each, the field to mend, and what the message must hold.

CHOICES: dict[str, list[str]] = {
    "block": list(BLOCKS),
    "shortcut": list(SHORTCUTS),
    "stem": list(STEMS),
    "stride_on": ["3x3", "1x1"],
    "norm": list(NORMS),
}
RANGES = {"stem_width": (1, 4096), "in_channels": (1, 64), "classes": (2, 100_000), "image_size": (8, 1024)}
STAGE_RANGES = {"blocks": (1, 600), "width": (1, 4096), "stride": (1, 4)}


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
        assert {getattr(changed(shortcut="B", **{field: end}), field) for end in ends} == set(ends)
    for field, ends in STAGE_RANGES.items():
        assert {getattr(stage(**{field: end}), field) for end in ends} == set(ends)


RULES: dict[str, tuple[Callable[[], object], str, str, str, str]] = {
    "zero_init is a bool": (lambda: changed(zero_init=1), "zero_init", "is a switch", "1", "true or false"),
    "zero_init needs a norm": (
        lambda: changed(zero_init=True, norm="none"),
        "zero_init",
        "there must be one",
        "'none'",
        "norm batch",
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
    "ResNet-20~norm.none~zero_init.True",
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
    ids=repr,
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
        x = torch.empty(2, spec.in_channels, spec.image_size, spec.image_size, device="meta")
        assert model(x).shape == (2, spec.classes)


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


def random_spec(rng: random.Random) -> NetSpec:
    shortcut, norm = rng.choice(list(SHORTCUTS)), rng.choice(list(NORMS))
    widths = [rng.choice([1, 2, 3, 5, 16, 33]) for _ in range(rng.randint(1, 8))]
    return NetSpec(
        stages=tuple(StageSpec(rng.randint(1, 2), width, rng.randint(1, 4)) for width in sorted(widths)),
        block=rng.choice(list(BLOCKS)),
        shortcut=shortcut,
        stem=rng.choice(list(STEMS)),
        stem_width=1 if shortcut == "A" else rng.choice([1, 7, 64]),
        stride_on=rng.choice(["3x3", "1x1"]),
        norm=norm,
        zero_init=norm != "none" and rng.random() < 0.5,
        in_channels=rng.choice([1, 3, 64]),
        classes=rng.choice([2, 10, 1000]),
        image_size=rng.choice([8, 9, 15, 32, 33, 224]),
    )


def test_a_spec_that_constructs_builds() -> None:
    rng = random.Random(3)
    for spec in [*CUSTOM.values(), *(random_spec(rng) for _ in range(25))]:
        assert from_code(to_code(spec)) == spec
        check_builds(spec)
