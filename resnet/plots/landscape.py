"""Figures of the loss around a net's weights, all nets on one logarithmic scale of colours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.theme import color, framed, shades

SCALE = "Viridis"
LEVELS = 20  # of a contour chart, over all nets' losses


def loss_lines(frame: pd.DataFrame) -> go.Figure:
    """Loss on a log axis along a line through each net's weights. frame: net, plain, a, loss."""
    figure, own = go.Figure(), shades(frame)
    for net, rows in frame.sort_values("a").groupby("net", sort=False):
        figure.add_scatter(
            x=rows.a.to_numpy(),
            y=rows.loss.to_numpy(),
            mode="lines+markers",
            name=str(net),
            line_color=own[str(net)],
            hovertemplate="a = %{x:.3g}: %{y:.3g} nats<extra>" + str(net) + "</extra>",
        )
    figure.update_xaxes(title="a (1: as far as the weights are long)")
    return framed(figure.update_yaxes(title="loss (nats)", type="log"), 380)


def loss_contours(frame: pd.DataFrame) -> go.Figure:
    """Contours of log10 loss, the nets side by side at the same levels. frame: net, a, b, loss, whole grids or not."""
    grids = dict(_grids(frame))
    figure = make_subplots(rows=1, cols=len(grids), subplot_titles=[*grids], shared_yaxes=True)
    for column, grid in enumerate(grids.values(), 1):
        figure.add_trace(_contour(grid, *_ends(frame)), row=1, col=column)
        figure.update_xaxes(title="a", row=1, col=column)
    figure.update_yaxes(title="b", col=1)
    return framed(figure, 420).update_layout(margin_t=48)


def loss_surfaces(frame: pd.DataFrame) -> go.Figure:
    """log10 loss as surfaces that turn, the nets side by side on one scale. frame: net, a, b, loss."""
    grids, (low, high) = dict(_grids(frame)), _ends(frame)
    kinds = [[{"type": "scene"}] * len(grids)]
    figure = make_subplots(rows=1, cols=len(grids), specs=kinds, subplot_titles=[*grids])
    for column, grid in enumerate(grids.values(), 1):
        trace = go.Surface(
            cmin=low,
            cmax=high,
            **_losses(grid),
        )
        figure.add_trace(trace, row=1, col=column)
    titles = {"xaxis_title": "a", "yaxis_title": "b", "zaxis_title": "log10 loss"}
    figure.update_scenes(**titles, zaxis_range=[low, high], aspectmode="cube")
    return framed(figure, 520).update_layout(margin_t=48)


def path_in_plane(frame: pd.DataFrame, path: pd.DataFrame, explained: tuple[float, float], plain: bool) -> go.Figure:
    """The epochs of a training over the contours of log10 loss in the plane of its principal directions.

    frame: a, b, loss; path: epoch, a, b; explained: each direction's share of the variance, 0 to 1.
    """
    [(_, grid)] = _grids(frame.assign(net=""))
    figure = go.Figure(_contour(grid, *_ends(frame)))
    figure.add_scatter(
        x=path.a.to_numpy(),
        y=path.b.to_numpy(),
        text=path.epoch.to_numpy(),
        mode="lines+markers",
        line_color=color(plain),
        marker={"size": 7, "line": {"width": 1, "color": "white"}},
        hovertemplate="after epoch %{text}<extra></extra>",
        showlegend=False,
    )
    for update, share in zip((figure.update_xaxes, figure.update_yaxes), explained, strict=True):
        update(title=f"{100 * share:.1f} % of the variance")
    return framed(figure, 460)


def _grids(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each net's log10 loss by b (rows) and a (columns), NaN where it is not known yet."""
    for net, rows in frame.assign(loss=np.log10(frame.loss)).groupby("net", sort=False):
        yield str(net), rows.pivot(index="b", columns="a", values="loss")


def _ends(frame: pd.DataFrame) -> tuple[float, float]:
    """The least and the largest log10 of the finite losses."""
    finite = frame.loss[np.isfinite(frame.loss) & (frame.loss > 0)]
    return float(np.log10(finite.min())), float(np.log10(finite.max()))


def _contour(grid: pd.DataFrame, low: float, high: float) -> go.Contour:
    return go.Contour(
        zmin=low,
        zmax=high,
        contours={"start": low, "end": high, "size": max(high - low, 1e-6) / LEVELS},
        **_losses(grid),
    )


def _losses(grid: pd.DataFrame) -> dict[str, Any]:
    """What contours and surfaces of a grid have in common."""
    return {
        "x": grid.columns, "y": grid.index, "z": grid.to_numpy(), "customdata": 10 ** grid.to_numpy(),
        "colorscale": SCALE, "colorbar": {"title": "log10 loss"}, "connectgaps": True,
        "hovertemplate": "a %{x:.3g}, b %{y:.3g}: %{customdata:.3g} nats<extra></extra>",
    }  # fmt: skip
