"""Build: edit a net and read its shapes and costs beside its plain twin's."""

import dataclasses

import streamlit as st

from pages.ui import state, widgets
from pages.ui.cached import net_profile
from resnet import plots
from resnet.blocks import BLOCKS, NORMS, SHORTCUTS, STEMS
from resnet.spec import MAX_BLOCKS, MAX_WIDTH, PRESETS, NetSpec, SpecError, StageSpec, plain_twin, to_code, to_json

SCALARS = [field.name for field in dataclasses.fields(NetSpec) if field.name != "stages"]
SHORTCUT_LABELS = {"A": "A: zero-pad", "B": "B: projection", "none": "none: plain"}
ZERO_INIT_HELP = (
    "The last norm of each branch starts at 0, so that each block starts as the identity (arXiv 1706.02677)."
)


def fill_form(spec: NetSpec) -> None:
    """Make every field of the form show `spec`."""
    values = {f"build.{name}": getattr(spec, name) for name in SCALARS}
    values["build.stages"] = len(spec.stages)
    for index, stage in enumerate(spec.stages):
        values |= {f"build.{name}.{index}": value for name, value in dataclasses.asdict(stage).items()}
    state.set_widgets(values | {"build.preset": None, "build.shown": spec})


def load_preset() -> None:
    if chosen := state.widget("build.preset"):
        state.set_net(PRESETS[chosen])
        fill_form(PRESETS[chosen])


def stage_fields(index: int) -> StageSpec:
    """One row of the form; a stage that was not there before starts as the last one, twice as wide."""
    if state.widget(f"build.blocks.{index}") is None:
        before = {name: state.widget(f"build.{name}.{index - 1}") for name in ("blocks", "width")}
        width = min(2 * before["width"], MAX_WIDTH)
        state.set_widgets(
            {f"build.blocks.{index}": before["blocks"], f"build.width.{index}": width, f"build.stride.{index}": 2}
        )
    blocks, width, stride = st.columns(3, wrap=False)
    return StageSpec(
        blocks.number_input(f"Stage {index + 1} blocks", 1, MAX_BLOCKS, key=f"build.blocks.{index}"),
        width.number_input("width", 1, MAX_WIDTH, key=f"build.width.{index}", help="Channels before expansion."),
        stride.number_input("stride", 1, 4, key=f"build.stride.{index}", help="Of the stage's first block."),
    )


def edited() -> NetSpec:
    """The net that the form describes. SpecError where it breaks a rule."""
    st.selectbox("Start from a preset", list(PRESETS), None, key="build.preset", on_change=load_preset)
    shortcut = widgets.choice("Shortcuts", SHORTCUTS, "build.shortcut", labels=SHORTCUT_LABELS)
    block = widgets.choice("Block", BLOCKS, "build.block")
    count = st.number_input("Stages", 1, 8, key="build.stages")
    with st.container(key="narrow-stages"):  # three fields side by side on a phone too
        stages = tuple(stage_fields(index) for index in range(count))
    left, right = st.columns(2, wrap=False)
    size = left.number_input("Image size (pixels)", 8, 1024, key="build.image_size")
    classes = right.number_input("Classes", 2, 100_000, key="build.classes")
    with st.expander("Stem, norm and input"):
        stem = widgets.choice("Stem", STEMS, "build.stem", "7x7 has stride 2 and a max-pool after it.")
        left, right = st.columns(2, wrap=False)
        stem_width = left.number_input("Stem width", 1, MAX_WIDTH, key="build.stem_width")
        channels = right.number_input("Input channels", 1, 64, key="build.in_channels")
        norm = widgets.choice("Norm", NORMS, "build.norm")
        zero_init = st.toggle("Zero-init", key="build.zero_init", help=ZERO_INIT_HELP)
        stride_on = stride_field(block)
    return NetSpec(stages, block, shortcut, stem, stem_width, stride_on, norm, zero_init, channels, classes, size)


def stride_field(block: str) -> str:
    """Where a bottleneck strides; asked only where there is one."""
    if block != "bottleneck":
        return state.widget("build.stride_on", "3x3")
    text = "1x1 is the paper's v1, 3x3 is v1.5, which torchvision builds."
    return widgets.choice("A bottleneck strides on its", ("3x3", "1x1"), "build.stride_on", text)


def show_net(spec: NetSpec) -> None:
    st.subheader(spec.name)
    widgets.figures(spec)
    widgets.diagram(spec, "build.diagram")
    profile, twin = net_profile(spec), net_profile(plain_twin(spec))
    view = widgets.choice("View", ("Stages", "Layers", "Costs by stage"), "build.view")
    note = f"for one image of {spec.in_channels} x {spec.image_size} x {spec.image_size}, counted on the net itself."
    if view == "Costs by stage":
        figure = plots.cost_by_stage(profile.stages(), twin.stages(), (spec.name, plain_twin(spec).name), spec.plain)
        widgets.chart(
            figure,
            f"Compare where the parameters sit (left) with where the work is done (right), {note}",
            "build.costs",
        )
        return
    table = profile.stages() if view == "Stages" else profile.layers()
    if view == "Stages" and not spec.plain:
        table = table.assign(twin_params=twin.stages().params, twin_macs=twin.stages().macs)
    st.dataframe(table, hide_index=True, column_config=columns(plain_twin(spec).name), key=f"build.table.{view}")
    st.caption(f"Compare where the map is large with where the parameters and the MACs are, {note}")
    st.download_button("Download this table", table.to_csv(index=False), f"{spec.name} {view.lower()}.csv", "text/csv")


def columns(twin: str) -> dict:
    number = st.column_config.NumberColumn
    return {
        "stage": "stage",
        "layers": number("layers", help="Convolutions and linear layers, projections included."),
        "out_shape": st.column_config.TextColumn("output", help="Channels x height x width."),
        "params": number("params", format="localized"),
        "macs": number("MACs", format="localized"),
        "activations": number("activations", format="localized", help="Elements of all layers' outputs."),
        "twin_params": number(f"params of {twin}", format="localized"),
        "twin_macs": number(f"MACs of {twin}", format="localized"),
    }


st.title("Build")
current = state.net()
if state.widget("build.shown") != current or state.widget("build.block") is None:
    fill_form(current)
form, result = st.columns([1, 2.2], gap="large")
with form:
    try:
        current = edited()
        if current != state.widget("build.shown"):
            state.set_net(current)
            state.set_widgets({"build.shown": current})
    except SpecError as error:
        st.error(f"{error} The net beside is the last one that can be built.", icon=":material/rule:")
with result:
    show_net(current)
    st.download_button("Download this net as JSON", to_json(current), f"{current.name}.json", "application/json")
    st.caption(
        f"This page's address opens this very net. Its code for `python -m resnet train --net`: `{to_code(current)}`"
    )
