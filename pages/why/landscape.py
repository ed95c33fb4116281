"""Landscape: the loss around the weights of trained nets, along a line and over a plane."""

from collections.abc import Iterator, Mapping

import pandas as pd
import streamlit as st

from pages.ui import analysis, widgets
from pages.ui.analysis import Drawn
from resnet.plots import landscape as plots

POINTS = {"line": (9, 17, 33), "surface": (5, 9, 17, 31)}


def along(frame: pd.DataFrame) -> Iterator[Drawn]:
    centre = frame[frame.a == 0]
    said = "; ".join(f"{row.loss:.3g} in {row.net}" for row in centre.itertuples())
    text = "Loss along a random direction, each filter as long as the net's own: the same direction for twins."
    yield Drawn(plots.loss_lines(frame), f"{text} In the middle, the net's own: {said}.")


def over(frame: pd.DataFrame) -> Iterator[Drawn]:
    text = "Logarithm of the loss over two random directions, at the same levels for all nets. Finer as it goes."
    yield Drawn(plots.loss_contours(frame), text)
    yield Drawn(plots.loss_surfaces(frame), "The same as surfaces, which turn when they are dragged.")


def fields(key: str) -> Mapping[str, object]:
    points = st.select_slider("Points a side", POINTS[key], POINTS[key][1], key=f"landscape.points.{key}")
    span = st.select_slider("Distance", (0.25, 0.5, 1.0), 1.0, **widgets.linked("span"))
    return {"points": points, "span": span}


analysis.page({"line": along, "surface": over}, fields, trained=True)
