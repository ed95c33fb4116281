"""Figures: plotly for what stands still, Vega-Lite specifications for what is redrawn while a run goes on.

Residual is blue and plain orange everywhere.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

RESIDUAL, PLAIN = "#2563eb", "#ea7a17"
NEUTRAL = "#8791a1"
HOLLOW = 100  # plotly's symbol n without its filling is n + 100
_ARCS: dict[str, dict[str, Any]] = {  # how each kind of shortcut is drawn: line, marker at the apex
    "identity": {"line": {"color": RESIDUAL, "width": 2}, "symbol": None},
    "zero-pad (option A)": {"line": {"color": "#0891b2", "width": 2, "dash": "dot"}, "symbol": "circle-open"},
    "projection (option B, C)": {"line": {"color": "#7c3aed", "width": 3}, "symbol": "diamond"},
    "average pool, projection (D)": {"line": {"color": "#be185d", "width": 3, "dash": "dash"}, "symbol": "square"},
}


def color(plain: bool) -> str:
    return PLAIN if plain else RESIDUAL


def _base(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0, "title": None}
    return figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": 36, "b": 8}, legend=legend, **layout)


def net_diagram(blocks: pd.DataFrame, plain: bool) -> go.Figure:
    """The net from left to right, a box per block as tall as its feature map, shortcuts as arcs over their blocks.

    blocks: name, stage, out_shape, params, macs, side (pixels, 1 for the head), shortcut ("" for none), kernels,
    times (how many equal blocks the box stands for). A box's point index is its row.
    """
    x = np.arange(len(blocks)) + blocks.stage.ne(blocks.stage.shift()).cumsum().to_numpy() * 0.7
    side = blocks.side.to_numpy(float)
    tall = 0.3 + 1.2 * np.sqrt(side / side.max())
    body = blocks.stage.str.startswith("stage")
    hover = [_box_text(row) for row in blocks.to_dict("records")]
    boxes = go.Bar(
        x=x,
        y=tall,
        base=-tall / 2,
        width=0.72,
        marker={"color": [color(plain) if is_block else NEUTRAL for is_block in body], "line": {"width": 0}},
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
            _add_arcs(figure, kind, style, x[chosen], tall[chosen])
    figure.update_xaxes(visible=False, fixedrange=True).update_yaxes(visible=False, range=[-1.7, 1.45], fixedrange=True)
    for stage, at in pd.Series(x).groupby(blocks.stage.to_numpy(), sort=False):
        last = blocks[blocks.stage == stage].iloc[-1]
        text = f"{stage}<br>{last.out_shape}"
        figure.add_annotation(x=at.mean(), y=-0.85, yanchor="top", text=text, showarrow=False, font={"size": 11})
    return _base(figure, 250, hovermode="closest", bargap=0)


def _box_text(row: dict[Any, Any]) -> str:
    """What hovering over a box tells."""
    lines = [f"<b>{row['name']}</b>" + (f" and {row['times'] - 1} more like it, each:" if row["times"] > 1 else "")]
    lines += [f"convolutions {row['kernels']}"] if row["kernels"] else []
    lines += [f"output {row['out_shape']}", f"{row['params']:,} params", f"{row['macs']:,} MACs"]
    return "<br>".join(lines + ([f"shortcut: {row['shortcut']}"] if row["shortcut"] else []))


def _add_arcs(figure: go.Figure, kind: str, style: dict[str, Any], x: np.ndarray, tall: np.ndarray) -> None:
    """One trace of half ellipses from before each box to after it, and one of marks at their tops."""
    t = np.linspace(0, np.pi, 13)
    top = tall / 2 + 0.35
    xs = np.c_[x[:, None] - 0.5 * np.cos(t), np.full(len(x), np.nan)].ravel()
    ys = np.c_[top[:, None] * np.sin(t) ** 0.7, np.full(len(x), np.nan)].ravel()
    line = style["line"]
    figure.add_scatter(x=xs, y=ys, mode="lines", line=line, name=kind, hoverinfo="skip", legendgroup=kind)
    if style["symbol"]:
        marker = {"symbol": style["symbol"], "size": 9, "color": line["color"], "line": {"width": 2}}
        figure.add_scatter(
            x=x, y=top, mode="markers", marker=marker, name=kind, legendgroup=kind, showlegend=False, hoverinfo="skip"
        )


def cost_by_stage(stages: pd.DataFrame, twin: pd.DataFrame, names: tuple[str, str], plain: bool) -> go.Figure:
    """Params and MACs by stage, the net beside its twin.

    stages, twin: stage, params, macs; names: the net's and its twin's.
    """
    titles = ("Parameters", "MACs for one image")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    for frame, name, orange in [(stages, names[0], plain), (twin, names[1], True)][: 1 if plain else 2]:
        for column, quantity in enumerate(["params", "macs"], 1):
            figure.add_bar(
                x=frame.stage,
                y=frame[quantity],
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker_color=color(orange),
                hovertemplate="%{x}: %{y:,}<extra>" + name + "</extra>",
                row=1,
                col=column,
            )
    figure = _base(figure, 300, barmode="group")
    return figure.update_layout(margin_t=64, legend_y=1.12)


def ledger(frame: pd.DataFrame, unit: str) -> go.Figure:
    """What makes up a count, a bar per kind of layer on a log axis, the exact number beside it.

    frame: op, count (exact ints; bars of 0 have no length).
    """
    counts = frame["count"].fillna(0).astype("int64")
    bars = go.Bar(
        x=np.where(counts > 0, counts, np.nan),
        y=frame.op.to_numpy(),
        orientation="h",
        marker_color=RESIDUAL,
        text=[f"{value:,}" for value in counts],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text} " + unit + "<extra></extra>",
    )
    high = np.log10(max(10, counts.max()))
    figure = go.Figure(bars).update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(title=f"{unit} (log axis)", type="log", range=[0, high * 1.25], exponentformat="power")
    return _base(figure, 90 + 32 * len(frame)).update_layout(margin_t=8)


def waterfall(steps: pd.DataFrame, names: tuple[str, str], totals: tuple[int, int], quantity: str) -> go.Figure:
    """From the first net's total to the second's: a bar per step, which sum to the exact difference.

    steps: label, delta (exact ints).
    """
    labels = [names[0], *steps.label, names[1]]
    values = [totals[0], *steps.delta, totals[1]]
    texts = [f"{totals[0]:,}", *(f"{delta:+,}" for delta in steps.delta), f"{totals[1]:,}"]
    bars = go.Waterfall(
        x=labels,
        y=values,
        measure=["absolute", *["relative"] * len(steps), "total"],
        text=texts,
        textposition="outside",
        cliponaxis=False,
        increasing={"marker": {"color": "#be185d"}},
        decreasing={"marker": {"color": "#0891b2"}},
        totals={"marker": {"color": NEUTRAL}},
        connector={"line": {"color": NEUTRAL, "width": 1}},
        hovertemplate="%{x}: %{text}<extra></extra>",
    )
    figure = go.Figure(bars).update_yaxes(title=quantity).update_xaxes(type="category")
    return _base(figure, 400).update_layout(showlegend=False)


def cost_scatter(frame: pd.DataFrame, x: str, x_title: str, y_title: str) -> go.Figure:
    """Published accuracy against a cost on a log axis, a mark per result, hollow where it has a note.

    frame: net, value, source, note ("" where the accuracy is that of the very net whose cost it is) and column `x`.
    """
    figure = go.Figure()
    for index, (net, rows) in enumerate(frame.groupby("net", sort=False)):
        figure.add_scatter(
            x=rows[x].to_numpy(),
            y=rows["value"].to_numpy(),
            mode="markers",
            name=str(net),
            marker={"size": 11, "symbol": index % 8 + np.where(rows.note == "", 0, HOLLOW), "line": {"width": 1}},
            text=[f"{row.source}<br>{row.note}".removesuffix("<br>") for row in rows.itertuples()],
            hovertemplate=f"<b>{net}</b><br>%{{y}}<br>%{{x:.4s}}<br>%{{text}}<extra></extra>",
        )
    figure.update_xaxes(title=x_title, type="log", exponentformat="SI").update_yaxes(title=y_title)
    return _base(figure, 420).update_layout(margin_t=64)


def gradient_depth(frame: pd.DataFrame, borders: dict[str, float], quantity: str) -> go.Figure:
    """Gradient norm against depth on a log axis, a line per net.

    frame: net, plain, name, depth, norm; borders: stage -> depth of its first layer; quantity: the y axis's name.
    """
    figure = go.Figure()
    for net, rows in frame.groupby("net", sort=False):
        plain = bool(rows.plain.iloc[0])
        figure.add_scatter(
            x=rows.depth.to_numpy(),
            y=rows.norm.to_numpy(),
            mode="lines+markers",
            name=str(net),
            line={"color": color(plain), "width": 2},
            marker={"size": 5, "symbol": "square" if plain else "circle"},
            text=rows.name.to_numpy(),
            hovertemplate="%{text}<br>depth %{x}: %{y:.3g}<extra>" + str(net) + "</extra>",
        )
    for stage, depth in list(borders.items())[1:]:  # the first one begins at the axis
        figure.add_vline(x=depth - 0.5, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=depth, y=1, yref="paper", text=stage, showarrow=False, xanchor="left", font={"size": 11, "color": NEUTRAL}
        )
    figure.update_xaxes(title="depth (weight layers from the input)")
    positive = frame.norm[frame.norm > 0]
    decades = np.log10(positive.max() / positive.min()) if len(positive) else 0
    figure.update_yaxes(title=quantity, type="log", exponentformat="power", dtick="D2" if decades < 3 else 1)
    return _base(figure, 420)


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
    return _base(figure, 330).update_layout(margin_t=8)


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
    return _base(figure, 60 + 32 * len(names)).update_layout(margin_t=8)


_STEP = {
    "field": "step",
    "type": "quantitative",
    "title": "step",
    "axis": {"format": ",d", "tickMinStep": 1, "grid": False},
}


def _net_color(colors: dict[str, str]) -> dict[str, Any]:
    scale = {"domain": list(colors), "range": list(colors.values())}
    return {"field": "net", "type": "nominal", "scale": scale, "legend": {"orient": "top", "title": None}}


def _curve(field: str, title: str, colors: dict[str, str]) -> dict[str, Any]:
    """A line per net against the step; frame: step, net and the field."""
    return {
        "mark": {"type": "line", "interpolate": "linear", "strokeWidth": 2},
        "height": 320,
        "encoding": {
            "x": _STEP,
            "y": {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}},
            "color": _net_color(colors),
            "tooltip": [{"field": "net"}, {"field": "step"}, {"field": field, "format": ".4g"}],
        },
    }


_TEST_POINTS = {
    "transform": [{"filter": "isValid(datum.test_accuracy)"}],
    "mark": {"type": "point", "filled": True, "size": 90, "shape": "diamond", "opacity": 1},
    "encoding": {
        "y": {"field": "test_accuracy", "type": "quantitative"},
        "tooltip": [{"field": "net"}, {"field": "step"}, {"field": "test_accuracy", "format": ".2f"}],
    },
}


def loss_chart(colors: dict[str, str]) -> dict[str, Any]:
    """Training loss of the nets in `colors`; frame: step, net, loss."""
    return _curve("loss", "training loss (running average)", colors)


def accuracy_chart(colors: dict[str, str]) -> dict[str, Any]:
    """Accuracy of training batches as lines and of the test set as diamonds; frame: step, net, and both in %."""
    line = _curve("accuracy", "accuracy (%)", colors)
    return {
        "height": 320,
        "encoding": {name: line["encoding"][name] for name in ("x", "color")},
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.accuracy)"}],
                "mark": line["mark"],
                "encoding": {name: line["encoding"][name] for name in ("y", "tooltip")},
            },
            _TEST_POINTS,
        ],
    }


def heat_chart(low: int, high: int, title: str) -> dict[str, Any]:
    """A heat-strip, depth x step, of log10 values on the colour scale low..high (decades).

    frame: step, step_end, depth, norm, log10.
    """
    scale = {"scheme": "viridis", "domain": [low, high], "clamp": True}
    value = {"field": "log10", "type": "quantitative", "scale": scale}
    legend = {"type": "gradient", "orient": "top", "direction": "horizontal", "gradientLength": 160}
    return {
        "usermeta": {"embedOptions": {"renderer": "canvas"}},  # thousands of cells are too many for SVG
        "mark": {"type": "rect", "strokeWidth": 1},
        "height": 330,
        "encoding": {
            "x": _STEP | {"scale": {"nice": False}},
            "x2": {"field": "step_end"},
            "y": {
                "field": "depth",
                "type": "ordinal",
                "title": "layer (1 = input)",
                "axis": {"labelOverlap": "greedy", "ticks": False, "grid": False},
            },
            "fill": value | {"title": title, "legend": legend},
            "stroke": value | {"legend": None},  # closes the seams between the cells
            "tooltip": [
                {"field": "depth", "title": "layer"},
                {"field": "step_end", "title": "to step"},
                {"field": "norm", "format": ".3g", "title": "mean"},
            ],
        },
    }
