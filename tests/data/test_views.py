"""Pictures as nets see them, against torchvision's own transforms; and boxes and maps carried to the photo and back."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, EfficientNet_B2_Weights, ResNet50_Weights, WeightsEnum
from torchvision.transforms import functional

from resnet.data.photos import picture_view
from resnet.data.views import RESAMPLING, Box, Frame, see
from resnet.errors import Refused

WEIGHTS = [  # crop 224 of 256 and of 232, bicubic, 288 of 288
    ResNet50_Weights.IMAGENET1K_V1,
    ResNet50_Weights.IMAGENET1K_V2,
    EfficientNet_B0_Weights.IMAGENET1K_V1,
    EfficientNet_B2_Weights.IMAGENET1K_V1,
]
SIZES = ((300, 451), (640, 427), (64, 64), (17, 900), (225, 224), (9, 8))


def noise(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_crop_is_torchvisions_bit_for_bit(weights: WeightsEnum, size: tuple[int, int]) -> None:
    theirs = weights.transforms()
    [crop], [resize] = theirs.crop_size, theirs.resize_size
    view = see(noise(size), Frame(crop, 3, resize / crop, theirs.interpolation.value))
    found = functional.normalize(torch.from_numpy(view.pixels) / 255, theirs.mean, theirs.std)
    assert torch.equal(found, theirs(noise(size)))


@pytest.mark.parametrize(("size", "resize"), [*itertools.product(SIZES, (1.0, 256 / 224))])
@pytest.mark.parametrize("mode", ["crop", "squeeze"])
def test_the_box_is_what_the_pixels_show(mode: str, size: tuple[int, int], resize: float) -> None:
    """Of a photo whose brightness says the place, the net's pixels say the place that the box gives them."""
    width, height = size
    across, down = ((np.arange(n) + 0.5) * 250 / n for n in size)
    photo = Image.fromarray(np.stack(np.broadcast_arrays(across, down[:, None], 0.0), -1).round().astype(np.uint8))
    view = see(photo, Frame(32, 3, resize), mode)
    assert view.whole == size
    for column in (4, 16, 27):  # away from the edges, where the filter is cut off
        place = view.to_picture(Box(column, column, column + 1, column + 1))
        x, y = (place.left + place.right) / 2, (place.top + place.bottom) / 2
        red, green, _ = view.pixels[:, column, column]
        assert red == pytest.approx(x * 250 / width, abs=250 / width / 2 + 1)
        assert green == pytest.approx(y * 250 / height, abs=250 / height / 2 + 1)


def test_squeezed_it_is_all_of_the_picture() -> None:
    view = see(noise((300, 451)), Frame(64, 3, 1.2), "squeeze")
    assert view.box == (0, 0, 300, 451)
    assert np.array_equal(view.pixels, np.asarray(noise((300, 451)).resize((64, 64), 2)).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["crop", "squeeze"])
def test_boxes_go_to_the_picture_and_back(mode: str) -> None:
    view = see(noise((300, 451)), Frame(64, 3, 1.2), mode)
    assert view.to_picture(Box(0, 0, 64, 64)) == pytest.approx(view.box)
    box = Box(3, 10.5, 40, 64)
    assert view.to_net(view.to_picture(box)) == pytest.approx(box)
    assert view.to_picture(box) != pytest.approx(box)


def test_grey_and_many_bands() -> None:
    red = see(Image.new("RGB", (50, 40), (255, 0, 0)), Frame(28, 1))
    assert red.pixels.shape == (1, 28, 28)
    assert np.unique(red.pixels).tolist() == [76]  # 0.299 x 255
    bands = np.random.default_rng(0).integers(0, 256, (32, 20, 8), np.uint8)
    view = picture_view(bands, Frame(10, 8))
    assert view.pixels.shape == (8, 10, 10)
    for band, seen in zip(np.moveaxis(bands, -1, 0), view.pixels, strict=True):
        assert np.array_equal(seen, see(Image.fromarray(band), Frame(10, 1)).pixels[0])
    assert view.box == (0, 6, 20, 26)


@pytest.mark.parametrize(
    ("frame", "mode", "words"),
    [(Frame(8, 4), "crop", "channels.*Received 4"), (Frame(0), "crop", "4,096"), (Frame(8), "fit", "crop.*squeeze")],
)
def test_what_cannot_be_seen_is_refused(frame: Frame, mode: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        see(noise((20, 20)), frame, mode)


def test_every_way_to_resample_is_torchvisions_name_for_it() -> None:
    assert set(RESAMPLING) == {functional.InterpolationMode.BILINEAR.value, functional.InterpolationMode.BICUBIC.value}
