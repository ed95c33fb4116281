"""Figures of runs that stand still: curves with a marker, heat-strips, confusion matrices, accuracy by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from resnet.plots.theme import NEUTRAL, framed

FAINT = 0.25  # opacity of what comes after the marker
MARKED = 40  # points up to which each has its own mark
NUMBERED = 12  # classes up to which a confusion matrix has its counts in the cells
SHARE_TICKS = (0, 1, 5, 20, 50, 100)  # % of a confusion matrix's colour bar


@dataclass(frozen=True)
class Line:
    """One series of a chart; `legend` False shares the legend's entry of the line with the same name."""

    name: str
    color: str
    x: np.ndarray
    y: np.ndarray
    dash: str = "solid"
    points: bool = False
    legend: bool = True
    width: float = 2


@dataclass(frozen=True)
class Level:
    """A horizontal line with its words, which stand in the legend."""

    value: float
    text: str
    color: str = NEUTRAL


def line_chart(
    lines: Sequence[Line], x: str, y: str, at: float | None = None, levels: Sequence[Level] = (), log: bool = False
) -> go.Figure:
    """Lines with titled axes; where `at` is given, a marker stands there and what lies beyond it is faint."""
    figure = go.Figure()
    for line in lines:
        if at is not None and (line.x > at).any():
            figure.add_trace(_trace(line, line.x, line.y, opacity=FAINT, showlegend=False, hoverinfo="skip"))
            before = line.x <= at
            figure.add_trace(_trace(line, line.x[before], line.y[before], showlegend=line.legend))
        else:
            figure.add_trace(_trace(line, line.x, line.y, showlegend=line.legend))
    for level in levels:
        style = {"color": level.color, "width": 1.5, "dash": "dashdot"}
        figure.add_hline(y=level.value, line=style, name=level.text, showlegend=True)
    if at is not None:
        figure.add_vline(x=at, line={"color": NEUTRAL, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(title=x, rangemode="tozero").update_yaxes(title=y)
    if log:
        figure.update_yaxes(type="log", exponentformat="power")
    return framed(figure, 340, hovermode="closest")


def _trace(line: Line, x: np.ndarray, y: np.ndarray, **options: Any) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        name=line.name,
        legendgroup=line.name,
        mode="lines+markers" if line.points and len(line.x) <= MARKED else "lines",
        line={"color": line.color, "width": line.width, "dash": line.dash},
        marker={"symbol": "diamond", "size": 7},
        hovertemplate=None if "hoverinfo" in options else f"%{{x:,}}: %{{y:.4g}}<extra>{line.name}</extra>",
        **options,
    )


def strip_chart(
    log10: np.ndarray, borders: np.ndarray, layers: Sequence[str], limits: tuple[int, int], at: float | None = None
) -> go.Figure:
    """A heat-strip, layer (down) x step (right), on the colour scale of `limits` (decades).

    log10: (layers, bins); borders: (bins + 1,) in steps from 0.
    """
    low, high = limits
    ticks = list(range(low, high + 1))
    numbered = [f"{number}  {name}" for number, name in enumerate(layers, 1)]
    heat = go.Heatmap(
        z=log10,
        x=borders,
        y=np.arange(1, len(layers) + 1),
        zmin=low,
        zmax=high,
        colorscale="Viridis",
        customdata=10**log10,
        text=np.repeat(np.array(numbered)[:, None], log10.shape[1], axis=1),
        hovertemplate="%{text}<br>about step %{x:,.0f}: %{customdata:.2g}<extra></extra>",
        colorbar={"thickness": 10, "tickvals": ticks, "ticktext": [f"10<sup>{tick}</sup>" for tick in ticks], "len": 1},
    )
    figure = go.Figure(heat)
    if at is not None:
        figure.add_vline(x=at, line={"color": "white", "width": 3})
        figure.add_vline(x=at, line={"color": "black", "width": 1.5, "dash": "dot"})
    figure.update_xaxes(title="step").update_yaxes(title="layer (1 = input)", autorange="reversed")
    return framed(figure, 320)


def confusion_chart(matrix: np.ndarray, names: Sequence[str]) -> go.Figure:
    """Counts (C, C) by true class (down) and predicted class (right), coloured by the share of the true class.

    The colour goes with the square root of the share, so that a few per cent of errors can be seen.
    """
    images = matrix.sum(axis=1, keepdims=True)
    share = 100 * matrix / np.maximum(images, 1)
    ticks = {"tickvals": np.sqrt(SHARE_TICKS), "ticktext": [f"{tick} %" for tick in SHARE_TICKS]}
    heat = go.Heatmap(
        z=np.sqrt(share),
        x=list(names),
        y=list(names),
        zmin=0,
        zmax=10,
        colorscale="Blues",
        text=matrix.astype(str),
        customdata=share,
        texttemplate="%{text}" if len(names) <= NUMBERED else "",
        hovertemplate="true %{y}, predicted %{x}:<br>%{text} images, %{customdata:.1f} % of the row<extra></extra>",
        colorbar={"thickness": 10, "len": 1} | ticks,
    )
    figure = go.Figure(heat)
    figure.update_xaxes(title="predicted class", type="category", tickangle=-45, constrain="domain")
    figure.update_yaxes(title="true class", type="category", autorange="reversed")
    return framed(figure, 420).update_layout(margin_t=8)


def class_chart(names: Sequence[str], shares: dict[str, np.ndarray], hues: Sequence[str]) -> go.Figure:
    """Accuracy by class in 0..1, a bar for each net; classes from the top down in the order given."""
    figure = go.Figure()
    for number, ((net, values), hue) in enumerate(zip(shares.items(), hues, strict=True)):
        figure.add_bar(
            x=100 * values,
            y=list(names),
            orientation="h",
            name=net,
            marker={"color": hue, "pattern": {"shape": "" if number == 0 else "/", "fillmode": "overlay"}},
            texttemplate="%{x:.1f}",
            hovertemplate=f"%{{y}}: %{{x:.1f}} %<extra>{net}</extra>",
        )
    figure.update_xaxes(title="accuracy on the class's test images (%)", range=[0, 100])
    figure.update_yaxes(type="category", autorange="reversed")
    return framed(figure, 90 + (12 + 16 * len(shares)) * len(names), barmode="group")
