"""Small maps on one scale, kernels in colour, layers in order, a box around the field."""

import numpy as np
import pandas as pd

from resnet.plots.features import cka_map, field_maps, kernel_grid, map_grid


def test_maps_share_a_scale_that_has_a_sign_where_they_do() -> None:
    maps = np.zeros((10, 4, 4))
    maps[0, 1, 2], maps[9, 3, 3] = 5, 2
    figure = map_grid(maps, [*range(20, 30)])
    assert [title.text for title in figure.layout.annotations] == [str(n) for n in range(20, 30)]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 5)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert figure.data[9].z[3][3] == 2
    assert (figure.data[9].xaxis, figure.layout.yaxis10.scaleanchor) == ("x10", "x10")
    maps[0, 0, 0] = -7
    assert (
        map_grid(maps, [*range(10)]).layout.coloraxis.cmin,
        map_grid(0 * maps, [*range(10)]).layout.coloraxis.cmax,
    ) == (-7, 1)


def test_kernels_are_pictures() -> None:
    kernels = np.full((9, 3, 5, 5), 0.5)
    kernels[8, 0] = 1.0
    images = kernel_grid(kernels).data
    assert len(images) == 9
    assert list(images[8].z[0][0]) == [255, 128, 128]
    assert list(kernel_grid(kernels[:, :1]).data[8].z[0][0]) == [255] * 3


def test_layers_stand_in_running_order() -> None:
    table = pd.DataFrame({"row": ["b", "b", "a", "a"], "column": ["z", "c"] * 2, "cka": [0.1, 0.2, 0.3, 0.4]})
    figure = cka_map(table, "ResNet-8", "plain-8")
    [heat] = figure.data
    assert (list(heat.y), list(heat.x)) == (["b", "a"], ["z", "c"])
    assert [list(row) for row in heat.z] == [[0.1, 0.2], [0.3, 0.4]]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("ResNet-8", "plain-8")


def test_the_box_goes_around_all_pixels_with_a_gradient() -> None:
    y, x = np.indices((6, 8))
    gradient = np.where((y >= 2) & (y <= 4) & (x >= 1) & (x <= 5), 0.01, 0.0)
    gradient[3, 3] = 1.0
    table = pd.DataFrame({"stage": "stage1", "y": y.ravel(), "x": x.ravel(), "gradient": gradient.ravel()})
    sizes = pd.DataFrame({"stage": ["stage1"], "effective": [1.0], "theoretical": [15**0.5]})
    figure = field_maps(table, sizes)
    [box] = figure.layout.shapes
    assert (box.x0, box.x1, box.y0, box.y1) == (0.5, 5.5, 1.5, 4.5)
    assert figure.layout.annotations[0].text == "stage1: 1 of 4 pixels"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
