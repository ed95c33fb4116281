"""Small maps lie in a mosaic on one scale around 0, each with its channel's number; bars stand at their layers."""

import numpy as np
import pandas as pd
import pytest

from resnet.plots.microscope import mosaics, pointed, update_ratios

X = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
MAPS = {"x": X, "F(x)": -2 * X[:, :2, :2]}
CHANNELS = {"x": [1, 4, 6], "F(x)": [0, 2, 3]}


def test_mosaics_show_every_channel_on_one_scale_around_0() -> None:
    figure = mosaics(MAPS, CHANNELS, {"x": 12.345, "F(x)": 0.5}, "value")
    assert [note.text for note in figure.layout.annotations] == ["x<br>12.3", "F(x)<br>0.5"]
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-max(59, 92), max(59, 92))
    x, branch = figure.data
    assert x.coloraxis == branch.coloraxis == "coloraxis"
    assert x.z.shape == (4 + 1 + 4, 5 + 1 + 5)
    assert np.array_equal(x.z[:4, :5], X[0])
    assert np.array_equal(x.z[:4, 6:], X[1])
    assert np.array_equal(x.z[5:, :5], X[2])
    assert np.isnan(x.z[5:, 6:]).all(), "three maps leave a tile empty"
    assert np.isnan(x.z[4]).all()


def test_a_cell_knows_its_channel_and_its_place() -> None:
    x = mosaics(MAPS, CHANNELS, {"x": 1, "F(x)": 1}, "value").data[0]
    assert x.customdata[0, 0].tolist() == [1, 0, 0]
    assert x.customdata[2, 8].tolist() == [4, 2, 2]
    assert x.customdata[8, 4].tolist() == [6, 4, 3]


def test_the_box_on_the_picture_is_that_of_the_cell_under_the_pointer() -> None:
    boxes = {name: np.arange(4 * each[0].size).reshape(*each[0].shape, 4) for name, each in MAPS.items()}
    table, chart = pointed(np.zeros((6, 8, 3), np.uint8), {name: each[0] for name, each in MAPS.items()}, boxes)
    assert table[["left", "top", "right", "bottom"]].to_numpy().tolist()[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert table.cell.is_unique
    assert table.shade.abs().groupby(table["map"]).max().tolist() == [1, 1]
    picture, cells = chart["hconcat"]
    [param] = cells["layer"][0]["params"]
    box = picture["layer"][1]
    assert box["transform"] == [{"filter": {"param": param["name"], "empty": False}}]
    drawn = [box["encoding"][name]["field"] for name in ("x", "y", "x2", "y2")]
    assert drawn == ["left", "top", "right", "bottom"]
    assert [box["encoding"][name]["scale"]["domain"] for name in "xy"] == [[0, 8], [0, 6]]


def test_maps_of_nothing_but_0_can_be_drawn() -> None:
    axis = mosaics({"x": np.zeros((1, 2, 2))}, {"x": [0]}, {"x": 0.0}, "value").layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)


def test_a_bar_for_each_layer() -> None:
    frame = pd.DataFrame({"name": ["conv1", "fc"], "weight": [2.0, 1.0], "update": [0.02, 0.0], "ratio": [0.01, 0.0]})
    [bars] = update_ratios(frame, plain=True).data
    assert list(bars.x) == ["conv1", "fc"]
    assert bars.y[0] == pytest.approx(0.01)
    assert np.isnan(bars.y[1])
    assert bars.customdata[0].tolist() == [0.02, 2.0]
