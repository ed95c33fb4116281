"""Cosines on one scale, curves in their colours."""

import numpy as np
import pandas as pd

from resnet.plots.batches import autocorrelations, cosine_histogram, cosine_maps, line_gradient
from resnet.plots.theme import NEUTRAL, PLAIN, RESIDUAL

NETS = {"ResNet-8": False, "plain-8": True}


def cosines(off: float) -> pd.DataFrame:
    return pd.DataFrame({"row": [0, 0, 1, 1], "column": [0, 1, 0, 1], "cosine": [1, off, off, 1]})


def curve(lag_1: float) -> pd.DataFrame:
    kinds = ["gradient"] * 3 + ["autocorrelation"] * 2
    return pd.DataFrame({"kind": kinds, "x": [-2.0, 0, 2, 0, 1], "value": [0.5, -1, 1, 1, lag_1]})


def test_heat_maps_share_a_scale() -> None:
    figure = cosine_maps({"ResNet-8": cosines(0.7), "plain-8": cosines(-0.1)})
    assert [trace.coloraxis for trace in figure.data] == ["coloraxis", "coloraxis"]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert list(figure.data[1].z) == [1, -0.1, -0.1, 1]
    assert [title.text for title in figure.layout.annotations] == list(NETS)


def test_a_histogram_counts_every_pair_once() -> None:
    bars = cosine_histogram({"ResNet-8": cosines(0.7), "plain-8": cosines(-0.1)}, NETS).data
    assert [list(bar.x) for bar in bars] == [[0.7], [-0.1]]
    assert [bar.marker.color for bar in bars] == [RESIDUAL, PLAIN]


def test_curves_and_their_autocorrelations() -> None:
    tables = {"white noise": curve(0), "ResNet-8": curve(0.7), "plain-8": curve(0.1)}
    lines = line_gradient(tables, NETS, "x")
    assert [list(line.y) for line in lines.data] == [[0.5, -1, 1]] * 3
    assert lines.layout.xaxis3.title.text == "x"
    lags = autocorrelations(tables, NETS).data
    assert [line.name for line in lags] == list(tables)
    assert [line.y[1] for line in lags] == [0, 0.7, 0.1]
    assert [line.line.color for line in lags] == [NEUTRAL, RESIDUAL, PLAIN]
    assert [line.line.dash for line in lags] == ["dot", "solid", "solid"]
    np.testing.assert_array_equal(lags[0].x, [0, 1])
