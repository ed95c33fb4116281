"""Figures of one block: its tensors as small maps side by side, and what a step changes in each layer."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.attribution import SIGNED
from resnet.plots.theme import color, framed

ACROSS = 2  # maps in a row of a mosaic


def mosaics(
    maps: Mapping[str, np.ndarray], channels: Mapping[str, Sequence[int]], norms: Mapping[str, float], quantity: str
) -> go.Figure:
    """Tensors side by side in the order of `maps`, each a mosaic of its channels' maps (M, h, w) with its L2 norm.

    All are on one scale, symmetric around 0. channels: the maps' numbers in the net; quantity: what the scale shows.
    """
    titles = [f"{name}<br>norm {norms[name]:.3g}" for name in maps]
    figure = make_subplots(rows=1, cols=len(maps), subplot_titles=titles, horizontal_spacing=0.03)
    high = max((float(np.nanmax(np.abs(each), initial=0)) for each in maps.values()), default=0) or 1.0
    for column, (name, each) in enumerate(maps.items(), 1):
        hover = (
            f"channel %{{customdata[0]}}, x %{{customdata[1]}}, y %{{customdata[2]}}: %{{z:.3g}}<extra>{name}</extra>"
        )
        heat = go.Heatmap(
            z=_tiled(each), customdata=_places(each, channels[name]), coloraxis="coloraxis", hovertemplate=hover
        )
        figure.add_trace(heat, 1, column)
        figure.update_xaxes(visible=False, constrain="domain", row=1, col=column)
        axis = figure.data[-1].xaxis or "x"
        figure.update_yaxes(
            visible=False, autorange="reversed", constrain="domain", scaleanchor=axis, row=1, col=column
        )
    bar = {"title": {"text": quantity, "side": "right"}, "thickness": 10, "exponentformat": "power", "nticks": 5}
    scale = {"colorscale": SIGNED, "cmin": -high, "cmax": high, "colorbar": bar}
    return framed(figure, 380, coloraxis=scale, plot_bgcolor="rgba(0,0,0,0)").update_layout(margin_t=48)


def _tiled(maps: np.ndarray) -> np.ndarray:
    """Values (M, ...) in rows of `ACROSS` tiles of h x w with a cell of nothing between them."""
    count, height, width = maps.shape
    rows = -(-count // ACROSS)
    tiles = np.full((rows * ACROSS, height + 1, width + 1), np.nan, np.float32)
    tiles[:count, :height, :width] = maps
    grid = tiles.reshape(rows, ACROSS, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), ACROSS * (width + 1))[:-1, :-1]


def _places(maps: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """The channel, column and row of each cell of the mosaic."""
    channel, row, column = np.indices(maps.shape)
    return np.stack([_tiled(np.asarray(each)) for each in (np.asarray(channels)[channel], column, row)], axis=-1)


def update_ratios(frame: pd.DataFrame, plain: bool) -> go.Figure:
    """What a step changes of each weight layer, ||update|| / ||W||, as bars on a log axis: name, weight, update, ratio.

    Bars of 0 have no logarithm and stay empty.
    """
    bars = go.Bar(
        x=frame.name,
        y=frame.ratio.where(frame.ratio > 0),
        marker_color=color(plain),
        customdata=frame[["update", "weight"]],
        hovertemplate="%{x}: %{y:.3g}<br>update %{customdata[0]:.3g}, weight %{customdata[1]:.3g}<extra></extra>",
    )
    figure = go.Figure(bars).update_xaxes(title="weight layer, from the input", type="category", showticklabels=False)
    figure.update_yaxes(title="||update|| / ||W||", type="log", exponentformat="power")
    return framed(figure, 300)
