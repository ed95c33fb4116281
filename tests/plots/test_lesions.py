"""Bars stand at their blocks in the colours of their nets, and curves pass through the means."""

import pandas as pd
import pytest

from resnet.plots.lesions import error_curve, lesion_bars
from resnet.plots.theme import PLAIN, RESIDUAL

ROWS = [
    ("ResNet-8", False, "", "both", 0.9),
    ("ResNet-8", False, "layer1.0", "cut", 0.8),
    ("ResNet-8", False, "layer1.10", "cut", 0.7),
    ("ResNet-8", False, "layer2.0", "branch", 0.1),
    ("plain-8", True, "", "both", 0.6),
    ("plain-8", True, "layer1.2", "cut", 0.2),
]


def test_a_series_of_bars_for_each_net_and_mode() -> None:
    figure = lesion_bars(pd.DataFrame(ROWS, columns=["net", "plain", "block", "mode", "accuracy"]))
    bars = {bar.name: bar for bar in figure.data if bar.type == "bar"}
    assert [*bars] == ["ResNet-8, block cut out", "ResNet-8, branch alone", "plain-8, block cut out"]
    assert [*bars["ResNet-8, block cut out"].y] == [80, 70]
    assert [bar.marker.color for bar in bars.values()] == [RESIDUAL, RESIDUAL, PLAIN]
    assert [*figure.layout.xaxis.categoryarray] == ["layer1.0", "layer1.2", "layer1.10", "layer2.0"]
    assert [(line.y0, line.line.color) for line in figure.layout.shapes] == [(90, RESIDUAL), (60, PLAIN)]


def test_errors_and_their_means() -> None:
    rows = [
        ("ResNet-8", False, 0, 1.0, 0.9),
        ("ResNet-8", False, 1, 0.8, 0.8),
        ("ResNet-8", False, 1, 0.6, 0.6),
        ("plain-8", True, 0, 1.0, 0.5),
    ]
    figure = error_curve(pd.DataFrame(rows, columns=["net", "plain", "swaps", "tau", "accuracy"]), "swaps", "tau", "τ")
    dots, means, _, plain = figure.data
    assert [*dots.x] == [1, 0.8, 0.6]
    assert [*dots.y] == pytest.approx([10, 20, 40])
    assert [*means.x] == pytest.approx([1, 0.7])
    assert [*means.y] == pytest.approx([10, 30])
    assert [*means.error_y.array] == pytest.approx([0, 200**0.5])
    assert (dots.marker.color, means.marker.color, plain.marker.color) == (RESIDUAL, RESIDUAL, PLAIN)
    same = error_curve(pd.DataFrame(rows, columns=["net", "plain", "n", "tau", "accuracy"]), "n", "n", "deleted")
    assert [*same.data[1].x] == [0, 1]
