"""The views of the Saliency page: each asks for maps and draws them."""

from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

from pages.ui import widgets, work
from pages.ui.cached import method_reasons
from pages.ui.lab import downloads, trust
from pages.ui.lab.brush import cover
from pages.ui.lab.drawing import draw, how_to_read
from pages.ui.lab.lapse import lapse
from pages.ui.lab.scene import ON_PHOTO, Scene
from pages.ui.lab.sheet import sheet
from resnet.attribution.contract import FAMILIES
from resnet.attribution.methods import METHODS
from resnet.data.views import Box
from resnet.errors import Refused
from resnet.plots import attribution as plots
from resnet.work.explaining import Maps, Query

COLUMNS = 3


def side_by_side(scene: Scene) -> None:
    """One method, every net."""
    queries = tuple(scene.query(index) for index in range(len(scene.shown)))
    maps = work.result(Maps(queries), "Draw the maps", lambda so_far: _nets(scene, queries, so_far))
    if maps is None:
        return
    _nets(scene, queries, maps)
    how_to_read(scene, maps, scene.look(maps))
    downloads.offer(scene, queries, maps)
    trust.cards(scene, queries)


def _nets(scene: Scene, queries: Sequence[Query], maps: list[np.ndarray]) -> None:
    """The maps that are known so far, and what the nets say."""
    look, columns = scene.look(maps), st.columns(max(2, len(queries)))
    for index, (net, values) in enumerate(zip(scene.shown, maps, strict=False)):
        with columns[index]:
            st.subheader(net.title)
            _verdict(scene, index)
            draw(scene, index, queries[index], values, look, f"lab.map.{index}")
            st.markdown(" ".join(trust.standing(scene, index, queries[index].method)))
            _answer(scene, index)


def _verdict(scene: Scene, index: int) -> None:
    """Whether the net is right, where that is known."""
    names, picked = scene.shown[index].class_names, scene.picked
    [likeliest] = scene.answers[index].top(1)
    right = picked.right(names[likeliest], names)
    if right:
        st.markdown(f":green-badge[:material/check: “{names[likeliest]}” is right]")
    elif right is False:
        known = " or ".join(f"“{name}”" for name in picked.truth if name in names)
        st.markdown(f":red-badge[:material/close: “{names[likeliest]}” is wrong: this is {known}]")


def _answer(scene: Scene, index: int) -> None:
    """The likeliest classes."""
    net, answer = scene.shown[index], scene.answers[index]
    top = answer.top()
    names = [net.class_names[each] for each in top]
    figure = plots.probabilities(names, answer.probabilities[top], net.model.plain, scene.picked.truth)
    widgets.chart(figure, f"Top predictions, {net.trained}.", f"lab.top.{index}")


def all_methods(scene: Scene) -> None:
    """Every method that applies to the first net; the random map among them."""
    reasons = method_reasons(scene.shown[0].model)
    st.caption(
        f"All methods for {scene.shown[0].title}, each on its own scale: their units differ, so compare places, not "
        f"strengths. A method that looks no better than the random map tells nothing."
    )
    for family, title in FAMILIES.items():
        names = [name for name, method in METHODS.items() if method.family == family and not reasons[name]]
        if not names:
            continue
        st.subheader(title[:1].upper() + title[1:])
        columns = st.columns(COLUMNS)
        for number, name in enumerate(names):
            with columns[number % COLUMNS], widgets.show_errors(Refused):
                _one_method(scene, name)
    if left := {METHODS[name].title: reason for name, reason in reasons.items() if reason}:
        st.subheader("Not for this net")
        st.markdown("\n".join(f"- **{title}**: {reason}" for title, reason in left.items()))


def _one_method(scene: Scene, name: str) -> None:
    badge, why = trust.standing(scene, 0, name)
    st.markdown(f"**{METHODS[name].title}** {badge}", help=f"{METHODS[name].reading} {why}")
    query = scene.query(0, name)

    def show(maps: list[np.ndarray]) -> None:
        draw(scene, 0, query, maps[0], scene.look(maps), f"lab.method.{name}", width=220)

    maps = work.result(Maps((query,)), METHODS[name].title, show)
    if maps is not None:
        show(maps)


def sweep(scene: Scene) -> None:
    """The map of every stage of the first net, and what its brightest value can see."""
    net, method = scene.shown[0], METHODS[scene.setting.method]
    if not method.needs_layer:
        st.info(f"{method.title} explains the whole net at once. Choose a class activation map to go layer by layer.")
        return
    stages = [label for label in net.model.layers() if label.startswith("stage")]
    queries = tuple(scene.query(0, layer=label) for label in stages)
    maps = work.result(Maps(queries), "Draw all stages")
    if maps is None:
        return
    st.caption(
        "The green box is the receptive field of the brightest value: the pixels it can depend on. Each stage has its "
        "own scale, because gradients differ in size from layer to layer."
    )
    columns = st.columns(min(len(stages), 4))
    for number, (label, query, values) in enumerate(zip(stages, queries, maps, strict=True)):
        with columns[number % len(columns)]:
            st.markdown(f"**{label}**")
            boxes = tuple(_fields(scene, query.layer, values))
            draw(scene, 0, query, values, scene.look([values]), f"lab.sweep.{label}", boxes, width=240)


def _fields(scene: Scene, layer: str, values: np.ndarray) -> list[Box]:
    """The receptive field of the layer's value at the brightest pixel, in what the map is drawn over."""
    rows = scene.shown[0].model.profile.rows
    row = [row for row in rows if row.name == layer or row.name.startswith(f"{layer}.")][-1]
    brightest = np.unravel_index(np.argmax(np.abs(values)), values.shape)
    place = [at * side // full for at, side, full in zip(brightest, row.out_shape[1:], values.shape, strict=True)]
    if len(row.stride) != 2 or not values.any():
        return []
    (top, bottom), (left, right) = row.window([int(at) for at in place])
    view, side = scene.picked.views[0], values.shape[0]
    seen = Box(max(0, left), max(0, top), min(side, right + 1), min(side, bottom + 1))
    return [view.to_picture(seen) if scene.setting.ground == ON_PHOTO else seen]


VIEWS: dict[str, tuple[str, Callable[[Scene], None]]] = {
    "nets": ("Nets side by side", side_by_side),
    "methods": ("All methods", all_methods),
    "layers": ("Layer by layer", sweep),
    "epochs": ("Epoch by epoch", lapse),
    "photos": ("Many photos", sheet),
    "league": ("League table", trust.league),
    "cover": ("Cover a part", cover),
}
