"""Maps lie where they belong: over the part of the photo that the net sees, on one scale, the sign in the colour."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from resnet.plots.attribution import Look, before_and_after, brushable, overlay, picture, probabilities, whole

GREY = np.full((60, 100, 3), 128, np.uint8)
LOOK = Look("Plasma", 1.0, 2.0)
WINDOW = (20.0, 0.0, 80.0, 60.0)


def one_bright(row: int, column: int, size: int = 6, value: float = 2.0) -> np.ndarray:
    values = np.zeros((size, size), np.float32)
    values[row, column] = value
    return values


def test_cells_lie_on_their_part_of_the_photo() -> None:
    heat = overlay(GREY, one_bright(0, 5), WINDOW, LOOK).data[0]
    x, y = heat.x0 + heat.dx * np.arange(6), heat.y0 + heat.dy * np.arange(6)
    assert x.tolist() == [25, 35, 45, 55, 65, 75]
    assert y.tolist() == [5, 15, 25, 35, 45, 55]
    assert (heat.zmin, heat.zmax, heat.opacity) == (0, 2, 1)


def test_a_squeezed_map_covers_the_whole_photo() -> None:
    heat = overlay(GREY, one_bright(0, 0), whole(GREY), LOOK).data[0]
    assert (heat.dx, heat.dy) == (pytest.approx(100 / 6), 10)
    assert heat.x0 - heat.dx / 2 == 0


def test_signed_maps_are_centred_at_0() -> None:
    heat = overlay(GREY, one_bright(0, 0), WINDOW, LOOK, signed=True).data[0]
    assert (heat.zmin, heat.zmax) == (-2, 2)


def test_the_window_and_the_boxes_are_outlined() -> None:
    shapes = overlay(GREY, None, WINDOW, LOOK, boxes=[(1, 2, 3, 4)]).layout.shapes
    assert [(s.x0, s.y0, s.x1, s.y1) for s in shapes] == [WINDOW, (1, 2, 3, 4)]
    assert not overlay(GREY, None, whole(GREY), LOOK).layout.shapes, "all of it needs no outline"


def test_the_photo_fills_the_axes_from_the_top() -> None:
    layout = overlay(GREY, None, WINDOW, LOOK).layout
    assert (tuple(layout.xaxis.range), tuple(layout.yaxis.range)) == ((0, 100), (60, 0))
    [image] = layout.images
    assert (image.x, image.y, image.sizex, image.sizey) == (0, 0, 100, 60)


def encoded(photo: np.ndarray) -> Image.Image:
    [image] = overlay(photo, None, whole(photo), LOOK).layout.images
    return Image.open(io.BytesIO(base64.b64decode(image.source.split(",")[1])))


def test_small_pictures_stay_crisp_and_large_ones_small() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    found = np.asarray(encoded(photo).convert("RGB"))
    assert found.shape == (304, 304, 3)
    assert np.array_equal(found[19::38, 19::38], photo)
    assert max(encoded(np.zeros((3000, 2000, 3), np.uint8)).size) == 2 * 340


def test_a_file_has_the_photos_own_pixels_and_the_map_in_its_window() -> None:
    drawn = np.asarray(picture(GREY, np.full((6, 6), 2.0), WINDOW, LOOK))
    assert drawn.shape == GREY.shape
    assert (drawn[:, :20] == 128).all()
    assert (drawn[:, 80:] == 128).all()
    yellow = np.array([240, 249, 33])  # Plasma's last colour
    assert (np.abs(drawn[:, 20:80].astype(int) - yellow) <= 1).all()


def test_opacity_mixes_photo_and_colour() -> None:
    drawn = np.asarray(picture(GREY, np.full((6, 6), 2.0), WINDOW, LOOK._replace(opacity=0.5)))
    assert np.abs(drawn[30, 50].astype(int) - (np.array([240, 249, 33]) + 128) / 2).max() <= 1


def test_signed_files_are_red_for_and_blue_against() -> None:
    values = np.concatenate([np.full((6, 3), 2.0), np.full((6, 3), -2.0)], axis=1)
    drawn = np.asarray(picture(GREY, values, WINDOW, LOOK, signed=True)).astype(int)
    assert drawn[30, 22, 0] > drawn[30, 22, 2] + 50
    assert drawn[30, 77, 2] > drawn[30, 77, 0] + 50


@pytest.mark.parametrize("window", [(0.0, 0.0, 100.0, 60.0), (33.4, 10.2, 61.7, 38.5), (99.6, 0.0, 100.0, 0.4)])
def test_any_window_can_be_drawn(window: tuple[float, float, float, float]) -> None:
    assert picture(GREY, one_bright(1, 1), window, LOOK).size == (100, 60)


def test_a_rectangle_can_be_drawn_anywhere_on_a_photo() -> None:
    figure = brushable(overlay(GREY, None, WINDOW, LOOK), GREY)
    assert figure.layout.dragmode == "select"
    assert (max(figure.data[-1].x), max(figure.data[-1].y)) == (100, 60)


def test_the_likeliest_class_is_on_top_and_the_right_one_marked() -> None:
    bars = probabilities(["cat", "dog"], np.array([0.7, 0.2]), False, ("dog",)).data[0]
    assert list(bars.y) == ["dog ✓", "cat"]
    assert list(bars.x) == pytest.approx([20, 70])


def test_before_and_after_stand_in_the_same_order() -> None:
    figure = before_and_after(["cat", "dog"], np.array([0.7, 0.2]), np.array([0.1, 0.6]), False)
    found = {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in figure.data}
    assert found == {"before": pytest.approx({"cat": 70, "dog": 20}), "after": pytest.approx({"cat": 10, "dog": 60})}
