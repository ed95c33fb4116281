"""What all figures share: residual is blue and plain orange everywhere, titled axes, one frame."""

from typing import Any

import plotly.graph_objects as go

RESIDUAL, PLAIN = "#2563eb", "#ea7a17"
NEUTRAL = "#8791a1"


def color(plain: bool) -> str:
    return PLAIN if plain else RESIDUAL


def framed(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The figure with the margins and the legend that all figures have; height in pixels."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0, "title": None}
    return figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": 36, "b": 8}, legend=legend, **layout)
