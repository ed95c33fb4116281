"""Figures of the analyses."""

import pandas as pd
import pytest

from resnet.plots.analysis import gradient_depth
from resnet.plots.theme import PLAIN, RESIDUAL

NETS = (("ResNet-8", False), ("ResNet-20", False), ("plain-20", True))


def test_the_theory_starts_from_the_plain_nets_last_norm() -> None:
    rows = [("plain-8", True, 1, 9.0), ("plain-8", True, 3, 2.0), ("ResNet-8", False, 3, 5.0)]
    frame = pd.DataFrame(rows, columns=["net", "plain", "depth", "norm"]).assign(name="a")
    *_, theory = gradient_depth(frame, {}, "norm", theory=1.5).data
    assert list(theory.y) == pytest.approx([2 * 1.5**2, 2])
    assert len(gradient_depth(frame[~frame.plain], {}, "norm", theory=1.5).data) == 1, "no plain net, no theory"


def test_two_residual_nets_can_be_told_apart() -> None:
    rows = [(net, plain, depth, 2.0) for net, plain in NETS for depth in (1, 3)]
    frame = pd.DataFrame(rows, columns=["net", "plain", "depth", "norm"]).assign(name="a")
    colours = [line.line.color for line in gradient_depth(frame, {}, "norm").data]
    assert len(set(colours)) == 3
    pair = gradient_depth(frame[frame.net != "ResNet-8"], {}, "norm").data
    assert [line.line.color for line in pair] == [RESIDUAL, PLAIN], "a pair has the colours that it has everywhere"
