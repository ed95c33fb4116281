"""Specs from texts that no program wrote: read or refused with a sentence."""

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

from resnet.nets.codes import from_code, from_dict, from_json, to_code, to_dict, to_json
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, SpecError
from tests.support.nets import BASE, CUSTOM, FIELDS, SPECS, STAGE_RANGES
from tests.support.strategies import net_specs

BAD_CODES: list[Any] = [
    None,
    20,
    b"ResNet-20",
    "",
    " ",
    "~",
    "~~~",
    ".",
    "ResNet-20\n",
    "\nResNet-20",
    "ResNet-",
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
