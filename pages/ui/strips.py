"""Heat-strips of runs beside each other, on one colour scale."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.ui import words
from pages.ui.widgets import columns
from resnet.plots import live as plots
from resnet.runs.curves import Strip, heat, robust_limits
from resnet.runs.store import Run
from resnet.runs.table import distinct_names


def draw(found: Mapping[Run, tuple[Strip, Sequence[str]]], label: str, title: str, rows: str = plots.LAYERS) -> str:
    """Each run's strip with the names of its rows, under `label`; the ends of the scale in words.

    title: of the scale, rows: of the axis down.
    """
    low, high = robust_limits([strip.log10 for strip, _ in found.values()])
    chart = plots.heat_chart(low, high, f"log10 {title}", rows)
    places = columns(len(found))
    for name, (strip, names), place in zip(distinct_names(list(found)), found.values(), places, strict=True):
        with place:
            st.markdown(f"{label.capitalize()} of **{name}**")
            st.vega_lite_chart(heat(strip, names), chart)
    return words.limits(low, high)
