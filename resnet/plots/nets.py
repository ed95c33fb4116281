"""The diagram of a net: a box per block, shortcuts as arcs."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from resnet.plots.theme import NEUTRAL, RESIDUAL, color, framed

BROKEN = "#dc2626"
_PROJECTION = {"line": {"color": "#7c3aed", "width": 3}, "symbol": "diamond"}
_VARIANT = {"line": {"color": "#0f9d76", "width": 2, "dash": "dashdot"}}
_ARCS: dict[str, dict[str, Any]] = {  # by shortcut, how it is called and drawn: line, marker at the apex
    "identity": {"title": "identity", "line": {"color": RESIDUAL, "width": 2}, "symbol": None},
    "A": {
        "title": "zero-pad (option A)", "line": {"color": "#0891b2", "width": 2, "dash": "dot"}, "symbol": "circle-open"
    },
    "B": {"title": "projection (option B)", **_PROJECTION},
    "C": {"title": "projection (option C)", **_PROJECTION},
    "D": {
        "title": "average pool, projection (D)", "line": {"color": "#be185d", "width": 3, "dash": "dash"},
        "symbol": "square",
    },
    "scaled": {"title": "x / 2", "symbol": "line-ew-open", **_VARIANT},
    "exclusive": {"title": "exclusive gate", "symbol": "cross-open", **_VARIANT},
    "gated": {"title": "shortcut-only gate", "symbol": "x-open", **_VARIANT},
    "dropout": {"title": "dropout", "symbol": "asterisk-open", **_VARIANT},
}  # fmt: skip


def net_diagram(blocks: pd.DataFrame, plain: bool, broken: Collection[str] = ()) -> go.Figure:
    """The net from left to right, a box per block as tall as its feature map, shortcuts as arcs over their blocks.

    blocks: name, stage, out_shape, params, macs, side (pixels, 1 for the head), shortcut (a key of _ARCS, or "" for
    none), kernels, times (how many equal blocks the box stands for). A box's point index is its row. The `broken` ones,
    by name, are red.
    """
    x = np.arange(len(blocks)) + blocks.stage.ne(blocks.stage.shift()).cumsum().to_numpy() * 0.7
    side = blocks.side.to_numpy(float)
    tall = 0.3 + 1.2 * np.sqrt(side / side.max())
    body = blocks.stage.str.startswith("stage")
    shades = [color(plain) if is_block else NEUTRAL for is_block in body]
    shades = [BROKEN if name in broken else shade for name, shade in zip(blocks.name, shades, strict=True)]
    hover = [_box_text(row) for row in blocks.to_dict("records")]
    boxes = go.Bar(
        x=x,
        y=tall,
        base=-tall / 2,
        width=0.72,
        marker={"color": shades, "line": {"width": 0}},
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
        unselected={"marker": {"opacity": 0.5}},
    )
    flow = go.Scatter(
        x=[x[0] - 0.8, x[-1] + 0.8],
        y=[0, 0],
        mode="lines",
        line={"color": NEUTRAL, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    figure = go.Figure([flow, boxes])
    for place, times in zip(x, blocks.times, strict=True):
        if times > 1:
            text = f"<b>x {times}</b>"
            figure.add_annotation(x=place, y=0, text=text, showarrow=False, font={"color": "white", "size": 11})
    for kind, style in _ARCS.items():
        chosen = np.flatnonzero(blocks.shortcut == kind)
        if len(chosen):
            _add_arcs(figure, style, x[chosen], tall[chosen])
    figure.update_xaxes(visible=False, fixedrange=True).update_yaxes(visible=False, range=[-1.7, 1.45], fixedrange=True)
    for stage, at in pd.Series(x).groupby(blocks.stage.to_numpy(), sort=False):
        last = blocks[blocks.stage == stage].iloc[-1]
        text = f"{stage}<br>{last.out_shape}"
        figure.add_annotation(x=at.mean(), y=-0.85, yanchor="top", text=text, showarrow=False, font={"size": 11})
    return framed(figure, 250, hovermode="closest", bargap=0)


def _box_text(row: dict[Any, Any]) -> str:
    """The text of a box's tooltip."""
    lines = [f"<b>{row['name']}</b>" + (f" and {row['times'] - 1} more like it, each:" if row["times"] > 1 else "")]
    lines += [f"convolutions {row['kernels']}"] if row["kernels"] else []
    lines += [f"output {row['out_shape']}", f"{row['params']:,} params", f"{row['macs']:,} MACs"]
    lines += [f"shortcut: {_ARCS[row['shortcut']]['title']}"] if row["shortcut"] else []
    return "<br>".join(lines)


def _add_arcs(figure: go.Figure, style: dict[str, Any], x: np.ndarray, tall: np.ndarray) -> None:
    """One trace of half ellipses from before each box to after it, and one of marks at their tops."""
    t = np.linspace(0, np.pi, 13)
    top = tall / 2 + 0.35
    xs = np.c_[x[:, None] - 0.5 * np.cos(t), np.full(len(x), np.nan)].ravel()
    ys = np.c_[top[:, None] * np.sin(t) ** 0.7, np.full(len(x), np.nan)].ravel()
    title, line = style["title"], style["line"]
    figure.add_scatter(x=xs, y=ys, mode="lines", line=line, name=title, hoverinfo="skip", legendgroup=title)
    if style["symbol"]:
        marker = {"symbol": style["symbol"], "size": 9, "color": line["color"], "line": {"width": 2}}
        figure.add_scatter(
            x=x, y=top, mode="markers", marker=marker, name=title, legendgroup=title, showlegend=False, hoverinfo="skip"
        )
