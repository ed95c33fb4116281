"""Random nets for hypothesis: every field drawn, only valid combinations, small enough for a CPU."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from resnet.nets.blocks import BLOCKS, SHORTCUTS
from resnet.nets.kinds import STEMS
from resnet.nets.layers import ACTIVATIONS, NORMS
from resnet.nets.spec import STRIDE_ON, NetSpec, SpecError, StageSpec


def _growing(channels: int, widths: Sequence[int], expansion: int) -> bool:
    """Whether every stage has the channels of the one before, or more."""
    sides = [channels, *(width * expansion for width in widths)]
    return sides == sorted(sides)


@st.composite
def net_specs(
    draw: st.DrawFn, max_blocks: int = 3, max_width: int = 12, max_stages: int = 3, dims: tuple[int, ...] = (2, 3)
) -> NetSpec:
    """A valid spec: up to max_blocks blocks a stage, max_width channels (before expansion), 8 to 40 pixels a side."""
    block = draw(st.sampled_from(list(BLOCKS)))
    frames = draw(st.integers(1, 5)) if draw(st.sampled_from(dims)) == 3 else 0
    stem = draw(st.sampled_from([name for name in STEMS if (3 if frames else 2) in STEMS[name].dims]))
    stem_width = draw(st.integers(1, max_width))
    stages = draw(st.lists(_stages(max_blocks, max_width), min_size=1, max_size=max_stages))
    plain = draw(st.integers(0, 3)) == 0  # "none" forbids what leaves a block its shortcut alone
    kinds = list(SHORTCUTS) if plain else [kind for kind in SHORTCUTS if kind != "none"]
    if not _growing(stem_width, [stage["width"] for stage in stages], BLOCKS[block].expansion):
        kinds.remove("A")
    values = {"shortcut": draw(st.sampled_from(kinds))}
    own = st.sampled_from(["", "", *kinds])  # half of the stages at least follow the net
    specs = tuple(StageSpec(**stage, shortcut=draw(own)) for stage in stages)
    values |= draw(_bottleneck(min(s.width for s in specs)) if "bottleneck" in block else st.just({}))
    values |= {} if plain else draw(_starts())
    common = draw(_common())
    if 1 in (max(1, stem_width // 2), stem_width, *_inner(specs, values)):
        common["norm"] = common["norm"].replace("group", "batch")  # PyTorch refuses to norm one image's single value
    try:
        return NetSpec(specs, block, stem=stem, stem_width=stem_width, frames=frames, **values | common)
    except SpecError:  # a 3-D average pool must fit into its map
        no_pool = [StageSpec(s.blocks, s.width, s.stride, s.dilation, s.shortcut.replace("D", "B")) for s in specs]
        values["shortcut"] = values["shortcut"].replace("D", "B")
        return NetSpec(tuple(no_pool), block, stem=stem, stem_width=stem_width, frames=frames, **values | common)


def _inner(stages: Sequence[StageSpec], values: dict[str, Any]) -> list[int]:
    """The widths, and those inside bottlenecks."""
    times, groups = values.get("base_width", 64) / 64, values.get("cardinality", 1)
    return [stage.width for stage in stages] + [int(stage.width * times) * groups for stage in stages]


def _stages(max_blocks: int, max_width: int) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries(
        {
            "blocks": st.integers(1, max_blocks),
            "width": st.integers(1, max_width),
            "stride": st.sampled_from([1, 2, 2, 3, 4]),
            "dilation": st.sampled_from([1, 1, 1, 2, 3]),
        }
    )


def _bottleneck(narrow: int) -> st.SearchStrategy[dict[str, Any]]:
    """Groups of at least one channel."""
    least = -(-64 // narrow)
    return st.fixed_dictionaries(
        {
            "cardinality": st.sampled_from([1, 1, 2, 4]),
            "base_width": st.one_of(st.just(64), st.integers(least, max(least, 130))),
            "stride_on": st.sampled_from(STRIDE_ON),
        }
    )


def _starts() -> st.SearchStrategy[dict[str, Any]]:
    """What only blocks with shortcuts may have."""
    inits = [{}, {"zero_init": True}, {"skip_init": True}]
    drops = st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.9])
    return st.builds(lambda init, drop: init | {"stochastic_depth": drop}, st.sampled_from(inits), drops)


def _common() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "se": st.sampled_from([0, 0, 2, 4, 16]),
            "norm": st.sampled_from(list(NORMS)),
            "activation": st.sampled_from(list(ACTIVATIONS)),
            "in_channels": st.integers(1, 4),
            "classes": st.integers(2, 12),
            "image_size": st.integers(8, 40),
        }
    )
