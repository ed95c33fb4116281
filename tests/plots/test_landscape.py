"""Losses stand at their a and b, on one scale for all nets, and the path over them."""

import numpy as np
import pandas as pd
import pytest

from resnet.plots.landscape import loss_contours, loss_lines, loss_surfaces, path_in_plane
from resnet.plots.theme import PLAIN, RESIDUAL

ROWS = [(a, b, 10.0 ** (a + 2 * b)) for b in (0, 1) for a in (-1, 0, 1)]
GRID = pd.DataFrame(ROWS, columns=["a", "b", "loss"])
NETS = pd.concat([GRID.assign(net="ResNet-8", plain=False), GRID[:-1].assign(net="plain-8", plain=True, loss=1000.0)])
EXPECTED = [[-1, 0, 1], [1, 2, 3]]  # log10 loss: b down, a across


def test_lines_run_from_left_to_right_in_their_colours() -> None:
    residual, plain = loss_lines(NETS[(NETS.b == 0)].sample(frac=1, random_state=0)).data
    by_name = {line.name: line for line in (residual, plain)}
    assert [*by_name["ResNet-8"].x] == [-1, 0, 1]
    assert [*by_name["ResNet-8"].y] == pytest.approx([0.1, 1, 10])
    assert (by_name["ResNet-8"].line.color, by_name["plain-8"].line.color) == (RESIDUAL, PLAIN)


def test_contours_share_their_levels() -> None:
    residual, plain = loss_contours(NETS).data
    np.testing.assert_allclose(residual.z, EXPECTED)
    assert ([*residual.x], [*residual.y]) == ([-1, 0, 1], [0, 1])
    assert np.isnan(plain.z[1][2]), "not measured yet"
    assert (residual.zmin, residual.zmax) == (plain.zmin, plain.zmax) == (-1, 3)
    assert residual.contours == plain.contours


def test_surfaces_share_their_scale() -> None:
    figure = loss_surfaces(NETS)
    residual, plain = figure.data
    np.testing.assert_allclose(residual.z, EXPECTED)
    assert (residual.cmin, residual.cmax) == (plain.cmin, plain.cmax) == (-1, 3)
    assert tuple(figure.layout.scene.zaxis.range) == tuple(figure.layout.scene2.zaxis.range) == (-1, 3)


def test_a_loss_that_overflowed_widens_no_scale() -> None:
    figure = loss_contours(NETS.replace({"loss": {1000.0: np.inf}}))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-1, 2)


def test_a_path_lies_in_its_plane() -> None:
    path = pd.DataFrame({"epoch": [1, 2, 3], "a": [-1, 0.5, 0], "b": [1, 0.5, 0]})
    figure = path_in_plane(GRID, path, (0.8, 0.15), plain=True)
    contour, line = figure.data
    np.testing.assert_allclose(contour.z, EXPECTED)
    assert ([*line.x], [*line.y], [*line.text]) == ([-1, 0.5, 0], [1, 0.5, 0], [1, 2, 3])
    assert line.line.color == PLAIN
    assert "80.0 %" in figure.layout.xaxis.title.text
    assert "15.0 %" in figure.layout.yaxis.title.text
