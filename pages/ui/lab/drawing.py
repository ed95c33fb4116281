"""One attribution map on the page, with its numbers and what they mean."""

import numpy as np
import streamlit as st

from pages.ui import widgets
from pages.ui.lab.scene import Scene
from resnet.attribution.methods import METHODS
from resnet.plots import attribution as plots
from resnet.plots.attribution import Box, Look
from resnet.work.explaining import Query


def draw(
    scene: Scene,
    index: int,
    query: Query,
    values: np.ndarray,
    look: Look,
    key: str,
    boxes: tuple[Box, ...] = (),
    width: int = 340,
) -> None:
    """The map of that net over its picture, and below it its range."""
    method = METHODS[query.method]
    pixels = query.picture.batch()[0]
    own = None if np.array_equal(pixels, scene.picked.views[index].pixels) else pixels
    photo, window = scene.ground(index, own)
    figure = plots.overlay(photo, values, window, look, method.signed, boxes, width)
    at = f" at {query.layer}" if query.layer else ""
    reach = f"From {values.min():.3g} to {values.max():.3g}."
    widgets.chart(figure, f"{method.title}{at}, for {scene.asked(index)}. {reach}", key)
    if sentence := nothing_to_see(values, query.method):
        st.info(sentence)


def nothing_to_see(values: np.ndarray, method: str) -> str:
    """Why a map shows nothing, "" where it shows something."""
    if not values.any():
        return f"This map is 0 everywhere. {METHODS[method].blank}"
    if np.ptp(values) == 0:
        return "This map has the same value everywhere: it prefers no place to another."
    return ""


def how_to_read(scene: Scene, maps: list[np.ndarray], look: Look) -> None:
    """The method's own words, the scale and the source."""
    method = METHODS[scene.setting.method]
    low = -look.high if method.signed else 0
    shared = "All maps share one colour scale" if len(maps) > 1 else "The colour scale runs"
    text = f"{method.reading} {shared}, from {low:.3g} to {look.high:.3g}. Source: {method.source}."
    st.caption(text)
