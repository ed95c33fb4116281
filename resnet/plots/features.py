"""Figures of features: grids of small maps and kernels, layers that are alike, receptive fields."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.theme import NEUTRAL, framed

ACROSS = 8  # small maps in a row


def map_grid(maps: np.ndarray, channels: Sequence[int]) -> go.Figure:
    """Feature maps (k, h, w) side by side, each with its channel's number, all on one scale that starts at 0.

    Where there are negative values the scale is diverging and centred at 0.
    """
    high, signed = float(np.abs(maps).max()) or 1.0, bool((maps < 0).any())
    figure = make_subplots(*_shape(len(maps)), subplot_titles=[str(channel) for channel in channels], **_TIGHT)
    for place, values in enumerate(maps):
        hover = f"channel {channels[place]}, x %{{x}}, y %{{y}}: %{{z:.3g}}<extra></extra>"
        figure.add_trace(go.Heatmap(z=values, coloraxis="coloraxis", hovertemplate=hover), *_cell(place))
    colours = {"colorscale": "RdBu_r" if signed else "Viridis", "cmin": -high if signed else 0, "cmax": high}
    return _pictures(figure, len(maps), coloraxis=colours | {"colorbar": {"thickness": 10}})


def kernel_grid(kernels: np.ndarray) -> go.Figure:
    """Kernels (n, C, kh, kw) from 0 to 1 side by side: in colour where C is 3, else their mean over C in grey."""
    figure = make_subplots(*_shape(len(kernels)), **_TIGHT)
    for place, kernel in enumerate(kernels):
        shown = kernel if len(kernel) == 3 else np.repeat(kernel.mean(0, keepdims=True), 3, 0)
        pixels = np.rint(255 * shown.transpose(1, 2, 0)).astype(np.uint8)  # (kh, kw, 3)
        figure.add_trace(go.Image(z=pixels, name=f"kernel {place}"), *_cell(place))
    return _pictures(figure, len(kernels))


_TIGHT = {"horizontal_spacing": 0.01, "vertical_spacing": 0.04}


def _shape(count: int) -> tuple[int, int]:
    return -(-count // ACROSS), min(count, ACROSS)


def _cell(place: int) -> tuple[int, int]:
    return place // ACROSS + 1, place % ACROSS + 1


def _pictures(figure: go.Figure, count: int, **layout: object) -> go.Figure:
    """Square pixels, the first row on top, no axes."""
    figure.update_xaxes(visible=False, constrain="domain")
    for place in range(count):
        row, column = _cell(place)
        anchor = next(figure.select_xaxes(row=row, col=column)).plotly_name.replace("axis", "")
        figure.update_yaxes(visible=False, autorange="reversed", scaleanchor=anchor, row=row, col=column)
    return framed(figure, 40 + 110 * _shape(count)[0], **layout)


def cka_map(table: pd.DataFrame, down: str, right: str) -> go.Figure:
    """How alike layers are, the input on top and left, from 0 to 1; table: row, column, cka; the nets' names."""
    rows, columns = list(dict.fromkeys(table.row)), list(dict.fromkeys(table.column))
    values = table.cka.to_numpy().reshape(len(rows), len(columns))
    heat = go.Heatmap(
        z=values,
        x=columns,
        y=rows,
        zmin=0,
        zmax=1,
        colorscale="Magma",
        colorbar={"title": "CKA", "thickness": 10},
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
    )
    figure = go.Figure(heat).update_xaxes(title=right, type="category")
    return framed(figure.update_yaxes(title=down, type="category", autorange="reversed"), 460)


def field_maps(table: pd.DataFrame, sizes: pd.DataFrame) -> go.Figure:
    """The effective receptive field of each stage, on one scale from 0 to 1, and the box of the theoretical one.

    table: stage, y, x (pixels), gradient; sizes: stage, effective, theoretical (pixels).
    """
    titles = [f"{r.stage}: {r.effective:.0f} of {r.theoretical:.0f} pixels" for r in sizes.itertuples()]
    figure = make_subplots(1, len(sizes), subplot_titles=titles, horizontal_spacing=0.02)
    for place, stage in enumerate(sizes.stage, 1):
        field = table[table.stage == stage]
        hover = "x %{x}, y %{y}: %{z:.3g} of the largest<extra></extra>"
        heat = go.Heatmap(x=field.x, y=field.y, z=field.gradient, coloraxis="coloraxis", hovertemplate=hover)
        figure.add_trace(heat, 1, place)
        reached = field[field.gradient > 0]
        if len(reached):
            low, high = reached[["x", "y"]].min() - 0.5, reached[["x", "y"]].max() + 0.5
            box = {"x0": low.x, "x1": high.x, "y0": low.y, "y1": high.y}
            figure.add_shape(type="rect", line={"color": NEUTRAL, "width": 2}, row=1, col=place, **box)
        anchor = f"x{place if place > 1 else ''}"
        figure.update_yaxes(autorange="reversed", scaleanchor=anchor, constrain="domain", row=1, col=place)
    figure.update_xaxes(constrain="domain", title="pixels").update_annotations(font_size=12)
    colours = {"colorscale": "Viridis", "cmin": 0, "cmax": 1, "colorbar": {"title": "gradient", "thickness": 10}}
    return framed(figure, 320, coloraxis=colours)
