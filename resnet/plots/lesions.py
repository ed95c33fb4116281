"""Figures of broken nets: what is left of the accuracy, block by block and as more of the net is broken."""

import pandas as pd
import plotly.graph_objects as go

from resnet.plots.theme import framed, shades

TITLES = {"cut": "block cut out", "shortcut": "shortcut alone", "branch": "branch alone"}  # by mode
SHADES = {"cut": "", "shortcut": "/", "branch": "x"}  # patterns of the bars


def lesion_bars(frame: pd.DataFrame) -> go.Figure:
    """A bar for each broken block, net and mode, and a dashed line at the accuracy of each unbroken net.

    frame: net, plain, block, mode, accuracy (0 to 1), as `lesions` has them for each net; "both" is the unbroken one.
    """
    figure, own = go.Figure(), shades(frame)
    whole = frame["mode"] == "both"
    broken = frame[~whole]
    for (net, mode), rows in broken.groupby(["net", "mode"], sort=False):
        figure.add_bar(
            x=rows.block.to_numpy(),
            y=100 * rows.accuracy.to_numpy(),
            name=f"{net}, {TITLES[str(mode)]}",
            marker={"color": own[str(net)], "pattern": {"shape": SHADES[str(mode)]}},
            hovertemplate="%{x}: %{y:.1f} %<extra>" + f"{net}, {TITLES[str(mode)]}" + "</extra>",
        )
    for net, accuracy in frame.loc[whole, ["net", "accuracy"]].itertuples(index=False):
        line = {"color": own[net], "width": 1.5, "dash": "dash"}
        figure.add_hline(y=100 * accuracy, line=line, name=f"{net}, unbroken", showlegend=True)
    order = sorted(broken.block.unique(), key=_place)
    figure.update_xaxes(title="broken block", type="category", categoryorder="array", categoryarray=order)
    figure.update_yaxes(title="accuracy (%)", range=[0, 100])
    return framed(figure, 420, barmode="group")


def error_curve(frame: pd.DataFrame, group: str, x: str, title: str) -> go.Figure:
    """Error against how much is broken: every draw as a dot, and the means of each `group` with standard deviations.

    frame: net, plain, accuracy (0 to 1), and the columns `group` and `x`, which may be the same, as `drops` and
    `shuffles` have them for each net; title: the x axis's.
    """
    figure, own = go.Figure(), shades(frame)
    for net, rows in frame.assign(error=100 * (1 - frame.accuracy)).groupby("net", sort=False):
        means = rows.groupby(group)[[*{x, "error"}]].mean()
        spread = rows.groupby(group).error.std()
        style = {"legendgroup": net, "marker_color": own[str(net)]}
        dots = {"mode": "markers", "opacity": 0.35, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(x=rows[x].to_numpy(), y=rows.error.to_numpy(), **style, **dots)
        figure.add_scatter(
            x=means[x].to_numpy(),
            y=means.error.to_numpy(),
            error_y={"array": spread.fillna(0).to_numpy(), "thickness": 1},
            mode="lines+markers",
            name=str(net),
            hovertemplate="%{x:.3g}: %{y:.1f} %<extra>" + str(net) + "</extra>",
            **style,
        )
    figure.update_xaxes(title=title).update_yaxes(title="error (%)", range=[0, 100])
    return framed(figure, 380)


def _place(block: str) -> list[int]:
    """Stage and position: [2, 10] of "layer2.10"."""
    return [int(number) for number in block.removeprefix("layer").split(".")]
