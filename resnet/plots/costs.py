"""What nets cost: by stage, by kind of layer, against each other, against published accuracy."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.theme import NEUTRAL, RESIDUAL, color, framed

HOLLOW = 100  # plotly's symbol n without its filling is n + 100


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
    figure = framed(figure, 300, barmode="group")
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
    return framed(figure, 90 + 32 * len(frame)).update_layout(margin_t=8)


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
    return framed(figure, 400).update_layout(showlegend=False)


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
    return framed(figure, 420).update_layout(margin_t=64)
