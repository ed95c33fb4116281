"""Block: one residual block on one picture, forward and back, with the numbers of its equation."""

import numpy as np
import streamlit as st

from pages.ui import analysis, state, widgets, work
from pages.ui.cached import net_profile
from pages.ui.lab.nets import Shown
from pages.ui.lab.picture import Picked, linked_picture
from resnet.analysis.analyses import ANALYSES
from resnet.analysis.microscope import BRANCH, SHORTCUT, SUM, THROUGH_BRANCH, THROUGH_SHORTCUT, Microscope, View, X, Y
from resnet.costs.profiler import Profile
from resnet.costs.recorder import Row
from resnet.errors import Refused
from resnet.plots import microscope as plots
from resnet.plots.nets import net_diagram
from resnet.work.analysing import Inspected
from resnet.work.explaining import Picture

FORWARD, BACK, LAYERS, STEP = "Forward", "Back", "Layer by layer", "One step"
VIEWS = (FORWARD, BACK, LAYERS, STEP)
LIKELIEST = "the likeliest"


def block_field(shown: list[Shown]) -> str:
    """The block that is looked at: a click in the first net's diagram, or the menu."""
    spec = shown[0].model.described
    boxes = net_profile(spec).blocks()
    names = boxes.name[boxes.stage.str.startswith("stage")].tolist()
    text = f"{spec.name}: click a block to look into it. An arc is a shortcut."
    clicked = widgets.clicked(net_diagram(boxes, spec.plain), text, f"block.diagram.{shown[0].id}", boxes.name)
    if clicked in names and clicked != state.result("block.clicked"):
        state.set_widgets({"block": clicked})
    state.set_result("block.clicked", clicked)
    if state.widget("block") not in (None, *names):
        state.set_widgets({"block": names[len(names) // 2]})
    return st.selectbox("Block", names, index=len(names) // 2, **widgets.linked("block"))


def equation(seen: View, back: bool) -> str:
    """The addition with the norms of the moment."""
    meeting = seen.backward if back else seen.forward
    if not meeting.shortcut:
        name = r"\partial L / \partial x" if back else "y"
        return rf"$\lVert {name} \rVert = {meeting.total:.3g}$, all of it through the branch $F$: there is no shortcut."
    parts = (
        (r"\partial L / \partial x", "through the shortcut", "through the branch")
        if back
        else ("F(x) + x", "the shortcut", r"the branch F(x)")
    )
    whole, shortcut, branch = parts
    return (
        rf"$\lVert {whole} \rVert = {meeting.total:.3g}$: {shortcut} {meeting.shortcut:.3g}, {branch} "
        f"{meeting.branch:.3g}, the cosine between them {meeting.cosine:.2f}. The branch has **{meeting.share:.0%}** "
        "of the squared norm."
    )


def forward(net: Shown, found: Microscope, pixels: np.ndarray, key: str) -> None:
    _mosaics(found.before, [X, BRANCH, SHORTCUT, SUM, Y], False, "value", key)


def back(net: Shown, found: Microscope, pixels: np.ndarray, key: str) -> None:
    names = [Y, BRANCH, THROUGH_BRANCH, THROUGH_SHORTCUT, X]
    _mosaics(found.before, names, True, "dL/d(value)", key)


def layers(net: Shown, found: Microscope, pixels: np.ndarray, key: str) -> None:
    names = [name for name in found.before.layers.name if name not in (SHORTCUT, SUM)]
    _mosaics(found.before, names, False, "value", f"{key}.layers")
    _fields(net_profile(net.model.described), found, pixels, names)
    widgets.table(found.before.layers, {})


def _fields(profile: Profile, found: Microscope, pixels: np.ndarray, names: list[str]) -> None:
    """The strongest channel of each tensor, and of each cell the part of the picture that it can depend on."""
    places = {name: _row(profile, found, name) for name in names}
    if any(len(row.stride) != 2 for row in places.values()):
        return  # clips and volumes
    maps = {name: max(found.before.maps[name], key=lambda each: float(np.square(each).sum())) for name in names}
    boxes = {name: _boxes(places[name], values.shape, pixels.shape[1:]) for name, values in maps.items()}
    table, chart = plots.pointed(widgets.rgb(pixels), maps, boxes)
    st.vega_lite_chart(table, chart, width="content")
    st.caption(
        "Point at a cell: the green box is its receptive field, the pixels that it can depend on. Each map is the "
        "tensor's strongest channel on its own scale. How does the box grow from x to y?"
    )


def _row(profile: Profile, found: Microscope, name: str) -> Row:
    """The layer whose output is a tensor of the block."""
    rows = profile.rows
    own = [number for number, row in enumerate(rows) if row.block == found.block]
    if name == X:
        return rows[own[0] - 1]
    if name == Y:
        return rows[own[-1]]
    if name == BRANCH:
        return [rows[number] for number in own if rows[number].role == "branch"][-1]
    return next(row for row in rows if row.name == f"{found.block}.{name}")


def _boxes(row: Row, shape: tuple[int, ...], sides: tuple[int, ...]) -> np.ndarray:
    """(h, w, 4): left, top, right, bottom of each cell's receptive field, within the picture.

    A cell of a map that was averaged down has the fields of all that it averages.
    """
    edges = []
    for side, (cells, full, pixels) in enumerate(zip(shape, row.out_shape[1:], sides, strict=True)):
        at = np.arange(cells)
        first, last = at * full // cells, -(-(at + 1) * full // cells) - 1
        start = [row.window([place] * 2)[side][0] for place in first.tolist()]
        stop = [row.window([place] * 2)[side][1] + 1 for place in last.tolist()]
        edges.append((np.clip(start, 0, pixels), np.clip(stop, 0, pixels)))
    (top, bottom), (left, right) = edges
    down, across = np.indices(shape)
    return np.stack([left[across], top[down], right[across], bottom[down]], axis=-1)


def step(net: Shown, found: Microscope, pixels: np.ndarray, key: str) -> None:
    """Before and after one step of SGD; undoing it is looking at `before` again."""
    before, after = found.before, found.after
    stepped = st.toggle("Take the step", key=f"block.step.{key}", help="Switch it off to undo the step.")
    seen = after if stepped else before
    change = f"{after.loss - before.loss:+.3g}" if stepped else None
    st.metric("Loss on this picture", f"{seen.loss:.4g}", change, delta_color="inverse", border=True)
    _mosaics(seen, [X, BRANCH, SUM, Y], False, "value", f"{key}.step")
    text = (
        f"One step of SGD with learning rate {found.lr:g} on this picture: how far each layer's weights move, as a "
        "part of their own norm. Look at the first layers of both nets."
    )
    widgets.chart(plots.update_ratios(found.step, not found.shortcut), text, f"{key}.ratios")
    with st.expander("The numbers"):
        widgets.table(found.step, {})


def _mosaics(seen: View, names: list[str], backward: bool, quantity: str, key: str) -> None:
    maps = seen.gradients if backward else seen.maps
    there = [name for name in names if name in maps]
    column = "gradient" if backward else "norm"
    norms = dict(zip(seen.layers["name"], seen.layers[column], strict=True))
    norms |= {THROUGH_BRANCH: seen.backward.branch, THROUGH_SHORTCUT: seen.backward.shortcut}
    channels = {name: seen.channels.get(name, seen.channels[X]) for name in there}
    figure = plots.mosaics({name: maps[name] for name in there}, channels, norms, quantity)
    widgets.chart(figure, equation(seen, backward), f"{key}.{quantity}")


SHOW = {FORWARD: forward, BACK: back, LAYERS: layers, STEP: step}


def show(shown: list[Shown], picked: Picked) -> None:
    block = block_field(shown)
    columns = st.columns([2, 1, 1])
    with columns[0]:
        view = st.segmented_control("View", VIEWS, default=FORWARD, required=True, wrap=True, **widgets.linked("view"))
    names = shown[0].class_names
    label = columns[1].selectbox("Class in the loss", [LIKELIEST, *names], **widgets.linked("class"))
    lr = columns[2].number_input("Learning rate", 1e-5, 10.0, 0.1, format="%g", **widgets.linked("lr"))
    asked: list[tuple[Shown, Inspected, np.ndarray]] = []
    for net, seen in zip(shown, picked.views, strict=True):
        if block in {row.block for row in net_profile(net.model.described).rows}:
            known = net.class_names.index(label) if label in net.class_names else -1
            request = Inspected(net.model, Picture.of(seen.pixels), block, known, float(lr))
            asked.append((net, request, seen.pixels))
        else:
            st.info(f"{net.title} has no block {block}.")
    if work.ready([request for _, request, _ in asked], "Look into the block"):
        for number, (net, request, pixels) in enumerate(asked):
            if found := work.result(request):
                st.markdown(f"**{net.title}**, {block}, {net.trained}" + (f". {found.note}" if found.note else ""))
                SHOW[view or FORWARD](net, found, pixels, f"block.{number}.{view}")


controls, result = st.columns([1, 2.6], gap="large")
picked = None
with controls, widgets.show_errors(Refused):
    above = st.container()
    seed = analysis.seed_field()
    with above:
        shown = [net for net in analysis.nets(seed) if net.model.spec]
    if shown:
        picked = linked_picture(shown)
with result, widgets.show_errors(Refused):
    analysis.explained(ANALYSES["block"])
    if picked:
        show(shown, picked)
    else:
        st.info("Choose one of this program's nets.")
