"""The form of the Build page: a preset first, then every entry of a net by topic."""

import dataclasses

import streamlit as st

from pages.ui import state, widgets
from resnet.nets.blocks import BLOCKS, SHORTCUTS
from resnet.nets.kinds import STEMS
from resnet.nets.layers import ACTIVATIONS, NORMS
from resnet.nets.spec import (
    INT_RANGES,
    MAX_BLOCKS,
    MAX_WIDTH,
    PRESETS,
    STRIDE_ON,
    NetSpec,
    SpecError,
    StageSpec,
    output_strides,
    with_output_stride,
)

SCALARS = [field.name for field in dataclasses.fields(NetSpec) if field.name != "stages"]
STAGE_FIELDS = [field.name for field in dataclasses.fields(StageSpec)]
SHORTCUT_LABELS = {
    "": "the net's",
    "A": "A: zero-pad",
    "B": "B: projection",
    "C": "C: projection everywhere",
    "D": "D: avg-pool",
    "scaled": "scaled: x / 2",
    "exclusive": "exclusive gate: (1 - g) x, g F",
    "gated": "shortcut-only gate: (1 - g) x",
    "dropout": "dropout: half of x",
    "none": "none: plain",
}
TOPICS = {
    "Stage by stage": {"output_stride"},
    "Inside a block": {"cardinality", "base_width", "stride_on", "se", "stochastic_depth", "zero_init", "skip_init"},
    "Stem, norm and activation": {"stem", "stem_width", "norm", "activation"},
    "Input": {"in_channels", "frames"},
}
HELP = {
    "cardinality": "Groups of a bottleneck's 3x3. ResNeXt-50 32x4d has 32.",
    "base_width": "A bottleneck's 3x3 has width x base width / 64 channels in each group. Wide ResNet-50-2 has 128.",
    "se": "Squeeze-and-excitation at each branch's end: channels are squeezed by this number (the paper: 16). 0: none.",
    "stochastic_depth": "The chance that training skips the last branch; it grows linearly from 0 at the first one.",
    "zero_init": "The last norm (or convolution) of each branch starts at 0: each block starts as its shortcut.",
    "skip_init": "SkipInit: each branch times a learned number that starts at 0, made for nets without a norm.",
    "stem_width": "Channels after the stem.",
    "frames": "Of a clip, or slices of an MRI or CT volume: all convolutions become 3-D. 0: images.",
    "in_channels": "3 for colour, 1 for grey, MRI or CT.",
}
STRIDE_ON_HELP = "1x1 is the paper's v1, 3x3 is v1.5, which torchvision builds."
STEM_HELP = "7x7 and deep (three 3x3, ResNet-C) stride 2 and end in a max-pool; 3x7x7 is for clips, without a pool."


def fill(spec: NetSpec) -> None:
    """Make every field of the form show `spec`."""
    values = {f"build.{name}": getattr(spec, name) for name in SCALARS}
    values |= {"build.stages": len(spec.stages)}
    for index, stage in enumerate(spec.stages):
        values |= {f"build.{name}.{index}": getattr(stage, name) for name in STAGE_FIELDS}
    state.set_widgets(values | {"build.preset": None})


def filled() -> bool:
    """False on the first visit, and after one of another page: widgets that are not drawn lose their values."""
    return state.widget("build.block") is not None


def read() -> NetSpec:
    """The net that the form describes. SpecError where it breaks a rule."""
    stages = tuple(_stage(index) for index in range(state.widget("build.stages")))
    return NetSpec(stages, **{name: state.widget(f"build.{name}") for name in SCALARS})


def _stage(index: int) -> StageSpec:
    """A stage that was not there before starts as the last one, twice as wide."""
    if state.widget(f"build.blocks.{index}") is None:
        blocks, width = (state.widget(f"build.{name}.{index - 1}") for name in ("blocks", "width"))
        new = StageSpec(blocks, min(2 * width, MAX_WIDTH), 2)
        state.set_widgets({f"build.{name}.{index}": getattr(new, name) for name in STAGE_FIELDS})
    return StageSpec(**{name: state.widget(f"build.{name}.{index}") for name in STAGE_FIELDS})


def _load_preset() -> None:
    if chosen := state.widget("build.preset"):
        state.set_net(PRESETS[chosen])
        fill(PRESETS[chosen])


def _dilate() -> None:
    dilated = with_output_stride(state.net(), state.widget("build.output_stride"))
    state.set_net(dilated)
    fill(dilated)


def _number(place: st.delta_generator.DeltaGenerator, label: str, name: str) -> None:
    low, high = INT_RANGES[name]
    place.number_input(label, low, high, key=f"build.{name}", help=HELP.get(name))


def draw(shown: NetSpec, error: SpecError | None) -> None:
    """All fields beside the net that is `shown`; the one that breaks a rule is marked and its topic is open."""
    state.set_widgets({"build.output_stride": shown.output_stride})
    wrong = error.field if error else ""
    st.selectbox("Start from a preset", list(PRESETS), None, key="build.preset", on_change=_load_preset)
    widgets.choice("Shortcuts", SHORTCUTS, "build.shortcut", labels=SHORTCUT_LABELS)
    widgets.choice("Block", BLOCKS, "build.block")
    count = st.number_input("Stages", 1, 8, key="build.stages")
    with st.container(key="narrow-stages"):  # three fields side by side on a phone too
        for index in range(count):
            _stage_fields(index)
    left, right = st.columns(2, wrap=False)
    _number(left, "Image size (pixels)", "image_size")
    _number(right, "Classes", "classes")
    if error:
        st.error(f"{error} The net beside is the last one that can be built.", icon=":material/rule:")
        widgets.mark(f"build.{wrong}")
    for topic, fields in TOPICS.items():
        with st.expander(topic, expanded=wrong in fields):
            _TOPIC_FIELDS[topic](shown)


def _stage_fields(index: int) -> None:
    blocks, width, stride = st.columns(3, wrap=False)
    blocks.number_input(f"Stage {index + 1} blocks", 1, MAX_BLOCKS, key=f"build.blocks.{index}")
    width.number_input("width", 1, MAX_WIDTH, key=f"build.width.{index}", help="Channels before expansion.")
    stride.number_input("stride", 1, 4, key=f"build.stride.{index}", help="Of the stage's first block.")


def _by_stage(shown: NetSpec) -> None:
    choices = sorted({*output_strides(shown), shown.output_stride})
    text = "Pixels of the image per pixel of the last map; a smaller one turns the last strides into dilation."
    st.selectbox("Output stride", choices, key="build.output_stride", on_change=_dilate, help=text)
    for index in range(state.widget("build.stages")):
        dilation, shortcut = st.columns(2, wrap=False)
        dilation.number_input(f"Stage {index + 1} dilation", 1, 16, key=f"build.dilation.{index}")
        shortcut.selectbox(
            f"Stage {index + 1} shortcut", ["", *SHORTCUTS], key=f"build.shortcut.{index}",
            format_func=SHORTCUT_LABELS.__getitem__,
        )  # fmt: skip


def _inside(shown: NetSpec) -> None:
    left, right = st.columns(2, wrap=False)
    _number(left, "Cardinality", "cardinality")
    _number(right, "Base width", "base_width")
    widgets.choice("A bottleneck strides on its", STRIDE_ON, "build.stride_on", STRIDE_ON_HELP)
    left, right = st.columns(2, wrap=False)
    _number(left, "SE reduction", "se")
    right.number_input(
        "Stochastic depth", 0.0, 0.9, step=0.05, key="build.stochastic_depth", help=HELP["stochastic_depth"]
    )
    st.toggle("Zero-init", key="build.zero_init", help=HELP["zero_init"])
    st.toggle("SkipInit", key="build.skip_init", help=HELP["skip_init"])


def _stem(shown: NetSpec) -> None:
    widgets.choice("Stem", STEMS, "build.stem", STEM_HELP)
    _number(st.container(), "Stem width", "stem_width")
    widgets.choice("Norm", NORMS, "build.norm")
    widgets.choice("Activation", ACTIVATIONS, "build.activation")


def _input(shown: NetSpec) -> None:
    left, right = st.columns(2, wrap=False)
    _number(left, "Input channels", "in_channels")
    _number(right, "Frames or slices", "frames")


_TOPIC_FIELDS = dict(zip(TOPICS, (_by_stage, _inside, _stem, _input), strict=True))
