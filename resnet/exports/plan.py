"""What a net's source code has to say in any framework: the options it uses, and its blocks' layers in symbols."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from resnet.costs.profiler import Profile, profile
from resnet.costs.recorder import shape_text
from resnet.nets.blocks import BLOCKS
from resnet.nets.model import block_plans, build, parts
from resnet.nets.spec import NetSpec

# What the writers of source know: an entry that is new in blocks.py comes here when they have learnt it.
_WRITTEN: dict[str, tuple[str, ...]] = {
    "block": ("basic", "bottleneck", "preact-basic", "preact-bottleneck"),
    "shortcut": ("A", "B", "C", "D", "none"),
    "norm": ("batch", "group", "none"),
    "activation": ("relu", "gelu", "silu"),
}
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


class Conv(NamedTuple):
    """One convolution of a branch, in the names of the block's arguments."""

    c_in: str
    c_out: str
    kernel: int
    stride: str
    dilation: str
    groups: int


def source_reason(spec: NetSpec) -> str:
    """Why no source can be written for the net, "" where it can."""
    used = [(name, getattr(spec, name)) for name in _WRITTEN] + [("shortcut", kind) for kind in spec.shortcuts]
    unknown = dict.fromkeys(f"{name} {value}" for name, value in used if value not in _WRITTEN[name])
    return f"No source code is written yet for {' or '.join(unknown)}." if unknown else ""


def convs(spec: NetSpec) -> list[Conv]:
    """The branch's convolutions in order; they are called conv1, conv2, ..."""
    first, dilation = dilation_names(spec)
    if not BLOCKS[spec.block].bottleneck:
        return [Conv("c_in", "width", 3, "stride", first, 1), Conv("width", "width", 3, "1", dilation, 1)]
    inner = "inner" if inner_width(spec) else "width"
    outer, middle = ("stride", "1") if spec.stride_on == "1x1" else ("1", "stride")
    return [
        Conv("c_in", inner, 1, outer, "1", 1),
        Conv(inner, inner, 3, middle, first, spec.cardinality),
        Conv(inner, "c_out", 1, "1", "1", 1),
    ]


def dilation_names(spec: NetSpec) -> tuple[str, str]:
    """Of a block's first wide convolution and of the others: "1" where the net has no dilation."""
    if all(stage.dilation == 1 for stage in spec.stages):
        return "1", "1"
    return ("dilation", "1") if BLOCKS[spec.block].bottleneck else ("first", "dilation")


def inner_width(spec: NetSpec) -> str:
    """A bottleneck's inner channels as an expression of width, "" where they are the width."""
    times, rest = divmod(spec.base_width, 64)
    if not rest:
        return f"{spec.cardinality * times} * width" if spec.cardinality * times > 1 else ""
    group = f"width * {spec.base_width} // 64"
    return group if spec.cardinality == 1 else f"{spec.cardinality} * ({group})"


def outer_width(spec: NetSpec) -> str:
    """A block's output channels in symbols."""
    return "c_out" if spec.expansion > 1 else "width"


def stage_kinds(spec: NetSpec) -> tuple[str, ...]:
    """Each stage's shortcut: A, B, C, D, none, or "identity" where no block changes its input's shape.

    Such a stage takes another stage's A, B or D, which is the identity there too, so that fewer kinds are left.
    """
    changing = {stage for stage, _, plan in block_plans(spec) if not plan.keeps_shape}
    numbered = enumerate(spec.shortcuts, 1)
    kinds = [kind if kind in ("C", "none") or stage in changing else "identity" for stage, kind in numbered]
    other = next((kind for kind in kinds if kind in ("A", "B", "D")), "identity")
    return tuple(other if kind == "identity" else kind for kind in kinds)


def shortcut_cases(spec: NetSpec, c_in: str) -> Iterator[tuple[str, str]]:
    """The cases in which a block's shortcut is not the identity: `if ...:` or `elif ...:`, and the kind."""
    kinds, word = list(dict.fromkeys(stage_kinds(spec))), "if"
    for kind in (kind for kind in kinds if kind != "identity"):
        tests = [f'shortcut == "{kind}"'] if len(kinds) > 1 else []
        if kind in ("A", "B", "D"):
            changed = f"stride > 1 or {c_in} != {outer_width(spec)}"
            tests.append(f"({changed})" if tests else changed)
        yield f"{word} {' and '.join(tests)}:", kind
        word = "elif"


def has_drop(spec: NetSpec) -> bool:
    return any(plan.drop for *_, plan in block_plans(spec))


def squeezed(spec: NetSpec) -> str:
    """Channels inside squeeze-and-excitation, as an expression of `channels`."""
    fewest = min(stage.width for stage in spec.stages) * spec.expansion
    return f"channels // {spec.se}" if fewest >= spec.se else f"max(1, channels // {spec.se})"


def stage_columns(spec: NetSpec) -> dict[str, Sequence[object]]:
    """What varies from stage to stage, one value per stage."""
    kinds = stage_kinds(spec)
    columns: dict[str, Sequence[object]] = {
        name: [getattr(stage, name) for stage in spec.stages] for name in ("blocks", "width", "stride")
    }
    if dilation_names(spec) != ("1", "1"):
        columns["dilation"] = [stage.dilation for stage in spec.stages]
    if len(set(kinds)) > 1:
        columns["shortcut"] = kinds
    return columns


def stage_table(spec: NetSpec) -> str:
    """The stages as a list of tuples."""
    columns = stage_columns(spec)
    rows = ["    (" + ", ".join(map(_quoted, row)) + ")," for row in zip(*columns.values(), strict=True)]
    return "\n".join([f"STAGES = [  # {', '.join(columns)}", *rows, "]"])


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def loop_variables(spec: NetSpec) -> dict[str, tuple[str, str]]:
    """What the loop over blocks carries along beside the map: its start and its next value."""
    before = {"before": ("1", "dilation")} if dilation_names(spec) != ("1", "1") else {}
    return before | ({"done": ("0", "done + 1")} if has_drop(spec) else {})


def block_arguments(spec: NetSpec) -> dict[str, tuple[str, str]]:
    """A block's arguments after its input, width and stride: type, and what the loop over blocks gives."""
    first, later = dilation_names(spec)
    arguments = {first: ("int", "before"), later: ("int", "dilation")}
    arguments.pop("1", None)
    if "shortcut" in stage_columns(spec):
        arguments["shortcut"] = ("str", "shortcut")
    if has_drop(spec):
        total = sum(stage.blocks for stage in spec.stages)
        arguments["drop"] = ("float", f"{spec.stochastic_depth} * done / {total - 1}")
    return arguments


@lru_cache(maxsize=4)
def costs(spec: NetSpec) -> Profile:
    """The net's profile; the writers of one file ask for it more than once."""
    return profile(spec)


def stem_layers(spec: NetSpec) -> dict[str, nn.Module]:
    """The stem's layers by name, on the meta device; a norm that is none is left out."""
    with torch.device("meta"):
        stem = {part.name: part.build() for part in parts(spec) if part.stage == "stem"}
    return {name: layer for name, layer in stem.items() if not isinstance(layer, nn.Identity)}


@lru_cache(maxsize=4)
def norms(spec: NetSpec) -> tuple[nn.Module, ...]:
    """The net's norm layers, on the meta device."""
    return tuple(module for module in build(spec, device="meta").modules() if isinstance(module, NORM_LAYERS))


def group_counts(spec: NetSpec) -> set[int]:
    """The numbers of groups that the net's group norms have."""
    return {module.num_groups for module in norms(spec) if isinstance(module, nn.GroupNorm)}


def header(spec: NetSpec) -> str:
    """The net's name and costs, as the first lines of a source file."""
    found, kind = costs(spec), "clip" if spec.frames else "image"
    return (
        f"{spec.name}: {found.params:,} parameters, {found.macs:,} MACs for one {kind} of "
        f"{shape_text(spec.input_shape)}.\n\n"
        "MACs are the multiply-adds of convolutions and linear layers, nothing else; FLOPs are twice as many."
    )


def net_name(spec: NetSpec) -> str:
    return "PlainNet" if spec.plain else "ResNet"
