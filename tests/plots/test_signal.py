"""Each net is a line in its colour, in the panel of its quantity, in an order that can be read."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from resnet.plots.signal import forward_variance, gradient_ways, layer_responses, lengths_of_paths
from resnet.plots.theme import PLAIN, RESIDUAL

NAN = float("nan")


def nets(residual: dict, plain: dict) -> pd.DataFrame:
    frames = [
        pd.DataFrame(residual).assign(net="ResNet", plain=False),
        pd.DataFrame(plain).assign(net="plain", plain=True),
    ]
    return pd.concat(frames, ignore_index=True)


def lines(figure: go.Figure, panel: str) -> dict[tuple[str, str], list[float]]:
    """The y values by name and dash of the lines in the panel with that x axis."""
    return {(line.name, line.line.dash): list(line.y) for line in figure.data if line.xaxis == panel}


BLOCKS = {"name": ["a", "b", "c"], "block": [1, 2, 3]}
SIGNAL = nets(
    BLOCKS | {"output": [1.0, 2.0, 3.0], "share": [0.9, 0.4, 0.3], "theory": [1, 0.5, 1 / 3]},
    BLOCKS | {"output": [1.0, 1.0, 1.1], "share": [NAN] * 3, "theory": [NAN] * 3},
)
TRAVEL = nets(
    BLOCKS | {"shortcut": [3.0, 2.0, 1.0], "branch": [6.0, 3.0, 1.0], "cosine": [0.0, 0.1, NAN]},
    {"name": [], "block": [], "shortcut": [], "branch": [], "cosine": []},
)
RESPONSES = nets(
    {"name": ["a", "b", "c"], "layer": [1, 2, 3], "std": [0.5, 0.9, 0.7], "rank": [3, 1, 2]},
    {"name": ["a", "b"], "layer": [1, 2], "std": [0.4, 0.3], "rank": [1, 2]},
)
PATHS = nets(
    {"length": [0, 1, 2], "paths": [1.0, 2.0, 1.0], "gradient": [0.5, 0.1, 0.02], "total": [0.5, 0.2, 0.02]},
    {"length": [], "paths": [], "gradient": [], "total": []},
)


def test_shares_stand_beside_one_over_l() -> None:
    figure = forward_variance(SIGNAL)
    assert lines(figure, "x") == {("ResNet", "solid"): [1, 2, 3], ("plain", "solid"): [1, 1, 1.1]}
    assert lines(figure, "x2") == {("ResNet", "solid"): [0.9, 0.4, 0.3], ("1/l", "dash"): [1, 0.5, 1 / 3]}
    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", "log")


def test_responses_stand_in_running_order_and_sorted() -> None:
    figure = layer_responses(RESPONSES)
    assert lines(figure, "x") == {("ResNet", "solid"): [0.5, 0.9, 0.7], ("plain", "solid"): [0.4, 0.3]}
    assert lines(figure, "x2") == {("ResNet", "solid"): [0.9, 0.7, 0.5], ("plain", "solid"): [0.4, 0.3]}


def test_both_ways_share_an_axis_and_the_cosine_has_its_own() -> None:
    figure = gradient_ways(TRAVEL)
    assert lines(figure, "x") == {("ResNet", "solid"): [3, 2, 1], ("ResNet", "dash"): [6, 3, 1]}
    assert lines(figure, "x2") == {("ResNet", "solid"): [0, 0.1]}


def test_paths_have_a_panel_for_each_quantity() -> None:
    figure = lengths_of_paths(PATHS)
    found = [lines(figure, panel)["ResNet", "solid"] for panel in ("x", "x2", "x3")]
    assert found == [[1, 2, 1], [0.5, 0.1, 0.02], [0.5, 0.2, 0.02]]


@pytest.mark.parametrize(
    ("draw", "frame"),
    [(forward_variance, SIGNAL), (layer_responses, RESPONSES), (gradient_ways, TRAVEL), (lengths_of_paths, PATHS)],
)
def test_every_net_has_its_colour_and_is_once_in_the_legend(draw: object, frame: pd.DataFrame) -> None:
    figure = draw(frame)  # type: ignore[operator]
    drawn = [line for line in figure.data if line.name != "1/l"]
    assert {line.name: line.line.color for line in drawn}.items() <= {"ResNet": RESIDUAL, "plain": PLAIN}.items()
    shown = [line.name for line in figure.data if line.showlegend]
    assert len(shown) == len(set(shown)) > 0
    axes = [axis for axis in figure.layout if axis.startswith("xaxis")]
    assert all(figure.layout[axis].title.text for axis in axes)
    assert np.isfinite(figure.layout.height)
