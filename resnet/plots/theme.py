"""What all figures share: residual is blue and plain orange everywhere, titled axes, one frame."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go

RESIDUAL, PLAIN = "#2563eb", "#ea7a17"
NEUTRAL = "#8791a1"
PALETTE = (RESIDUAL, PLAIN, "#0f9d76", "#be185d", "#7c3aed", "#0891b2", "#a16207", "#64748b")


def colors(plain: Sequence[bool]) -> list[str]:
    """One for each net or run, all different up to 8: the first residual one is blue, the first plain one orange."""
    firsts = {color(is_plain): plain.index(is_plain) for is_plain in set(plain)}
    others = cycle(shade for shade in PALETTE if shade not in firsts)
    return [color(each) if firsts[color(each)] == place else next(others) for place, each in enumerate(plain)]


def shades(frame: pd.DataFrame) -> dict[str, str]:
    """The color of each net by its name; frame: net, plain."""
    nets = frame.drop_duplicates("net")
    return dict(zip(nets.net, colors(nets.plain.astype(bool).tolist()), strict=True))


def color(plain: bool) -> str:
    return PLAIN if plain else RESIDUAL


def framed(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The figure with the margins and the legend that all figures have; height in pixels."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0, "title": None}
    return figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": 36, "b": 8}, legend=legend, **layout)


def paneled(figure: go.Figure, height: int) -> go.Figure:
    """A `framed` figure of panels with titles, over which the legend stands; a phone has room for short ones."""
    figure.update_annotations(font_size=12)
    return framed(figure, height).update_layout(margin_t=72, legend_y=1.0 + 28 / (height - 130))
