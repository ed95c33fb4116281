"""Figures of gradients that agree or shatter: cosines between mini-batches, gradients along a line."""

from collections.abc import Iterable, Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.theme import NEUTRAL, colors, framed

NOISE = {"white noise": "dot", "brown noise": "dash"}
BINS = 40  # of the histogram, from -1 to 1


def cosine_maps(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """A heat map for each net of the cosines between its mini-batches, all on the scale from -1 to 1.

    tables: the net's name -> row, column, cosine.
    """
    figure = make_subplots(1, len(tables), subplot_titles=list(tables), horizontal_spacing=0.08)
    for place, table in enumerate(tables.values(), 1):
        heat = go.Heatmap(x=table.column, y=table.row, z=table.cosine, coloraxis="coloraxis", hovertemplate=_PAIR)
        figure.add_trace(heat, 1, place)
    figure.update_xaxes(title="mini-batch").update_yaxes(autorange="reversed").update_yaxes(title="mini-batch", col=1)
    bar = {"title": "cosine", "thickness": 10}
    return framed(figure, 360, coloraxis={"colorscale": "RdBu_r", "cmin": -1, "cmax": 1, "colorbar": bar})


_PAIR = "mini-batches %{y} and %{x}: %{z:.3f}<extra></extra>"


def cosine_histogram(tables: Mapping[str, pd.DataFrame], plain: Mapping[str, bool]) -> go.Figure:
    """How often which cosine stands between two different mini-batches, a histogram for each net; tables as above."""
    figure, shades = go.Figure(), _colors(tables, plain)
    for name, table in tables.items():
        pairs = table.cosine[table.row < table.column].to_numpy()
        bins = {"start": -1, "end": 1 + 2 / BINS, "size": 2 / BINS}
        figure.add_histogram(x=pairs, xbins=bins, name=name, marker_color=shades[name], opacity=0.7)
    figure.update_xaxes(title="cosine between two mini-batches", range=[-1, 1]).update_yaxes(title="pairs")
    return framed(figure, 300, barmode="overlay")


def line_gradient(tables: Mapping[str, pd.DataFrame], plain: Mapping[str, bool], x: str) -> go.Figure:
    """The gradient along a line for each net, one below the other.

    tables: the net's name -> kind, x, value, noise among them; plain: the same of every net; x: the axis's name.
    """
    shades = _colors(tables, plain)
    figure = make_subplots(
        len(tables), 1, shared_xaxes=True, subplot_titles=list(tables), vertical_spacing=0.36 / len(tables)
    )
    for place, (name, table) in enumerate(tables.items(), 1):
        rows = table[table.kind == "gradient"]
        line = {"width": 1, "color": shades[name]}
        curve = go.Scatter(x=rows.x, y=rows.value, mode="lines", line=line, name=name, showlegend=False)
        figure.add_trace(curve, place, 1)
    figure.update_yaxes(range=[-1.05, 1.05], tickvals=[-1, 0, 1]).update_xaxes(title=x, row=len(tables))
    figure.update_yaxes(title="gradient / its largest", row=(len(tables) + 1) // 2)
    return framed(figure, 60 + 130 * len(tables))


def autocorrelations(tables: Mapping[str, pd.DataFrame], plain: Mapping[str, bool]) -> go.Figure:
    """The autocorrelation of those gradients against the lag, a line for each net, noise dashed; tables as above."""
    figure, shades = go.Figure(), _colors(tables, plain)
    for name, table in tables.items():
        rows = table[table.kind == "autocorrelation"]
        line = {"width": 2, "color": shades[name], "dash": NOISE.get(name, "solid")}
        figure.add_scatter(x=rows.x, y=rows.value, mode="lines+markers", line=line, name=name)
    figure.update_xaxes(title="lag (points)", dtick=1).update_yaxes(title="autocorrelation", range=[-0.5, 1.05])
    return framed(figure, 360, hovermode="x unified")


def _colors(names: Iterable[str], plain: Mapping[str, bool]) -> dict[str, str]:
    """Of each net; noise is grey."""
    nets = [name for name in names if name not in NOISE]
    return dict.fromkeys(NOISE, NEUTRAL) | dict(zip(nets, colors([plain[name] for name in nets]), strict=True))
