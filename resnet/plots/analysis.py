"""Figures of the analyses."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from resnet.plots.theme import NEUTRAL, framed, shades


def gradient_depth(
    frame: pd.DataFrame, borders: dict[str, float], quantity: str, theory: float | None = None
) -> go.Figure:
    """Gradient norm against depth on a log axis, a line per net.

    frame: net, plain, name, depth, norm; borders: stage -> depth of its first layer; quantity: the y axis's name;
    theory: by which factor per layer a plain net's norms grow towards the input, drawn from the first one's last norm.
    """
    figure, own = go.Figure(), shades(frame)
    for net, rows in frame.groupby("net", sort=False):
        plain = bool(rows.plain.iloc[0])
        figure.add_scatter(
            x=rows.depth.to_numpy(),
            y=rows.norm.to_numpy(),
            mode="lines+markers",
            name=str(net),
            line={"color": own[str(net)], "width": 2},
            marker={"size": 5, "symbol": "square" if plain else "circle"},
            text=rows.name.to_numpy(),
            hovertemplate="%{text}<br>depth %{x}: %{y:.3g}<extra>" + str(net) + "</extra>",
        )
    drawn = frame[frame.plain.astype(bool) & (frame.norm > 0)] if theory else frame[:0]
    if theory and len(drawn):
        rows = drawn[drawn.net == drawn.net.iloc[0]]
        figure.add_scatter(
            x=rows.depth.to_numpy(),
            y=rows.norm.iloc[-1] * theory ** (rows.depth.iloc[-1] - rows.depth.to_numpy()),
            mode="lines",
            name=f"theory for plain nets with batch norm: \u00d7 {theory:.3f} per layer",
            line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
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
    return framed(figure, 420)
