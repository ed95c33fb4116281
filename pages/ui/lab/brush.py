"""A rectangle of the photo is covered: what the nets say then, and where they look."""

import numpy as np
import streamlit as st

from pages.ui import widgets, work
from pages.ui.lab.drawing import draw
from pages.ui.lab.scene import Scene
from resnet.data.views import Box
from resnet.plots import attribution as plots
from resnet.work.explaining import Answer, Answers, Maps, Picture

LEAST = 2.0  # pixels a side; a click is no rectangle


def cover(scene: Scene) -> None:
    """Draw a rectangle, and compare before and after."""
    box = _box(scene)
    if box is None:
        st.info("Drag a rectangle over the photo. It is covered with the photo's mean colour, and the nets look again.")
        return
    covered = [covered_pixels(view.pixels, view.to_net(box)) for view in scene.picked.views]
    models = tuple(net.model for net in scene.shown)
    answers = work.result(Answers(models, tuple(map(Picture.of, covered))), "Classify the covered photo")
    after = Maps(tuple(scene.query(index, pixels=pixels) for index, pixels in enumerate(covered)))
    before = Maps(tuple(scene.query(index) for index in range(len(scene.shown))))
    if answers is None:
        return
    maps = [found for request in (before, after) if (found := work.result(request, "Draw the maps")) is not None]
    if len(maps) < 2:
        return
    look = scene.look([*maps[0], *maps[1]])
    for index, net in enumerate(scene.shown):
        st.subheader(net.title)
        columns = st.columns(3)
        for column, request, found, key in zip(columns, (before, after), maps, ("before", "after"), strict=False):
            with column:
                st.markdown(f"**{key.capitalize()}**")
                query = request.queries[index]
                draw(scene, index, query, found[index], look, f"lab.cover.{key}.{index}", width=240)
        with columns[2]:
            _answers(scene, index, answers[index])


def _answers(scene: Scene, index: int, after: Answer) -> None:
    """The probabilities of the classes that were likeliest before or are now."""
    before, net = scene.answers[index], scene.shown[index]
    classes = list(dict.fromkeys([*before.top(3), *after.top(3), scene.target(index)]))
    names = [net.class_names[each] for each in classes]
    chart = plots.before_and_after(names, before.probabilities[classes], after.probabilities[classes], net.model.plain)
    target = scene.target(index)
    change = 100 * float(after.probabilities[target] - before.probabilities[target])
    text = f"The probability of “{net.class_names[target]}” changes by {change:+.1f} points when the part is covered."
    widgets.chart(chart, text, f"lab.cover.top.{index}")


def _box(scene: Scene) -> Box | None:
    """The rectangle that was drawn last, within the photo."""
    figure = plots.overlay(scene.photo, None, scene.picked.views[0].box, scene.look([]))
    figure = plots.brushable(figure, scene.photo)
    event = widgets.chart(figure, "Drag a rectangle.", f"lab.cover.{scene.picked.title}", "box")
    drawn = event["selection"]["box"] if event else []
    if not drawn:
        return None
    (left, right), (top, bottom) = (sorted(drawn[-1][axis]) for axis in ("x", "y"))
    high, wide = scene.photo.shape[:2]
    box = Box(max(0.0, left), max(0.0, top), min(float(wide), right), min(float(high), bottom))
    return box if box.right - box.left >= LEAST and box.bottom - box.top >= LEAST else None


def covered_pixels(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The picture (C, S, S) with its mean colour inside the box, every pixel that the box touches."""
    left, top = (max(0, int(np.floor(edge))) for edge in box[:2])
    right, bottom = (max(0, int(np.ceil(edge))) for edge in box[2:])
    out = pixels.copy()
    out[:, top:bottom, left:right] = pixels.mean((1, 2), keepdims=True).round()
    return out
