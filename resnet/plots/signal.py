"""Figures of where the signal and the gradient go, with a line per net.

Each table has the columns net and plain, beside those of its analysis.
"""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from resnet.plots.theme import NEUTRAL, paneled, shades

BLOCK = "block, from the input"
LOG = {"type": "log", "exponentformat": "power"}


def forward_variance(frame: pd.DataFrame) -> go.Figure:
    """Variance of each block's output, and branch / shortcut beside 1/l (dashed), against the block.

    frame: net, plain, name, block, output, share, theory.
    """
    figure = make_subplots(1, 2, subplot_titles=["block output", "branch / shortcut"])
    _lines(figure, frame, "block", "output", 1)
    _lines(figure, frame, "block", "share", 2)
    counted = frame.dropna(subset="theory")
    for number, (_, rows) in enumerate(counted.groupby("net", sort=False)):
        line = {"color": NEUTRAL, "width": 1, "dash": "dash"}
        x, y, shown = rows.block.to_numpy(), rows.theory.to_numpy(), number == 0
        figure.add_scatter(x=x, y=y, mode="lines", line=line, name="1/l", showlegend=shown, row=1, col=2)
    figure.update_xaxes(title=BLOCK)
    figure.update_yaxes(title="variance", col=1, **LOG)
    figure.update_yaxes(title="ratio of variances", col=2, **LOG)
    return paneled(figure, 420)


def layer_responses(frame: pd.DataFrame) -> go.Figure:
    """Standard deviation of each layer's response, in running order and from the largest to the smallest.

    frame: net, plain, name, layer, std, rank.
    """
    figure = make_subplots(1, 2, subplot_titles=["in running order", "sorted"], shared_yaxes=True)
    _lines(figure, frame, "layer", "std", 1)
    _lines(figure, frame.sort_values("rank"), "rank", "std", 2)
    figure.update_xaxes(title="convolution, from the input", col=1)
    figure.update_xaxes(title="rank", col=2)
    figure.update_yaxes(title="standard deviation", rangemode="tozero", col=1)
    return paneled(figure, 420)


def gradient_ways(frame: pd.DataFrame) -> go.Figure:
    """Norm of the gradient through each block's shortcut and branch (dashed), and their cosine, against the block.

    frame: net, plain, name, block, shortcut, branch, cosine.
    """
    figure = make_subplots(1, 2, subplot_titles=["solid: shortcut", "shortcut and branch"])
    _lines(figure, frame, "block", "shortcut", 1)
    _lines(figure, frame, "block", "branch", 1, dash="dash")
    _lines(figure, frame, "block", "cosine", 2)
    figure.update_xaxes(title=BLOCK)
    figure.update_yaxes(title="L2 norm (dashed: branch)", col=1, **LOG)
    figure.update_yaxes(title="cosine", range=[-1.05, 1.05], col=2)
    return paneled(figure, 420)


def lengths_of_paths(frame: pd.DataFrame) -> go.Figure:
    """Number of paths, mean gradient of one, and the product of both, against the length.

    frame: net, plain, length, paths, gradient, total.
    """
    panels = {"paths": "paths", "gradient": "gradient of one", "total": "product"}
    figure = make_subplots(1, 3, subplot_titles=list(panels.values()))
    for column, quantity in enumerate(panels, 1):
        _lines(figure, frame, "length", quantity, column)
    figure.update_xaxes(title="branches on the path")
    figure.update_yaxes(title="L2 norm", col=2, **LOG)
    figure.update_yaxes(exponentformat="power")
    return paneled(figure, 380)


def _lines(figure: go.Figure, frame: pd.DataFrame, x: str, y: str, column: int, dash: str = "solid") -> None:
    """A line per net that has such values, in the panel of that column; the legend has each net once."""
    own = shades(frame)
    for net, rows in frame.dropna(subset=y).groupby("net", sort=False):
        plain = bool(rows.plain.iloc[0])
        figure.add_scatter(
            x=rows[x].to_numpy(),
            y=rows[y].to_numpy(),
            mode="lines+markers",
            name=str(net),
            legendgroup=str(net),
            showlegend=column == 1 and dash == "solid",
            line={"color": own[str(net)], "width": 2, "dash": dash},
            marker={"size": 5, "symbol": "square" if plain else "circle"},
            text=rows["name"].to_numpy() if "name" in rows else "",
            hovertemplate=f"{x} %{{x}} %{{text}}<br>{y} %{{y:.3g}}<extra>{net}</extra>",
            row=1,
            col=column,
        )
