"""Attribution maps over their images, and what a net answers."""

import numpy as np
import plotly.graph_objects as go

from resnet.plots.theme import color, framed


def overlay(image: np.ndarray, attribution: np.ndarray, high: float, opacity: float, signed: bool) -> go.Figure:
    """An attribution map (H, W) over its image (H, W, 3) uint8; the scale runs to `high`, from 0 or from -high."""
    heat = go.Heatmap(
        z=attribution,
        zmin=-high if signed else 0,
        zmax=high,
        opacity=opacity,
        colorscale="RdBu_r" if signed else "Plasma",
        colorbar={"thickness": 10, "exponentformat": "power", "nticks": 5, "len": 1.0},
        hovertemplate="x %{x}, y %{y}: %{z:.3g}<extra></extra>",
    )
    figure = go.Figure([go.Image(z=image, hoverinfo="skip"), heat])
    figure.update_xaxes(visible=False, constrain="domain").update_yaxes(visible=False, constrain="domain")
    return framed(figure, 330).update_layout(margin_t=8)


def probabilities(names: list[str], values: np.ndarray, plain: bool) -> go.Figure:
    """Top classes as horizontal bars, the likeliest on top; values in 0..1."""
    bars = go.Bar(
        x=100 * values[::-1],
        y=names[::-1],
        orientation="h",
        marker_color=color(plain),
        texttemplate="%{x:.1f} %",
        textposition="auto",
        hoverinfo="skip",
    )
    figure = go.Figure(bars).update_xaxes(title="probability (%)", range=[0, 100]).update_yaxes(type="category")
    return framed(figure, 60 + 32 * len(names)).update_layout(margin_t=8)
