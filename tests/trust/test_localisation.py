"""Maps held against the objects' masks: closed forms, a brute-force oracle, and planted rankings."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resnet.data.shapes import draw
from resnet.trust.checks import judge
from resnet.trust.contract import Case
from resnet.trust.localisation import mass, near, pointing, top

MEASURES = {"pointing": lambda maps, objects: pointing(maps, objects, 0), "mass": mass, "top": top}


@pytest.fixture(scope="module")
def objects() -> Tensor:
    """The masks of 60 drawn shapes."""
    return torch.from_numpy(draw(60, seed=5)[2])


@pytest.mark.parametrize("name", MEASURES)
def test_the_mask_itself_scores_1_and_a_constant_map_the_objects_share(name: str, objects: Tensor) -> None:
    measure, area = MEASURES[name], objects.float().mean((1, 2))
    torch.testing.assert_close(measure(objects.float(), objects), torch.ones(60))
    torch.testing.assert_close(measure(torch.full(objects.shape, 0.3), objects), area)
    assert measure((~objects).float(), objects).max() == 0


def test_what_is_negative_is_no_evidence(objects: Tensor) -> None:
    maps = torch.where(objects, 1.0, -5.0)
    assert mass(maps, objects).min() == 1
    assert mass(-objects.float(), objects).max() == 0
    assert mass(torch.zeros(objects.shape), objects).max() == 0


def distance(mask: np.ndarray, y: int, x: int) -> float:
    return min(float(np.hypot(y - j, x - i)) for j, i in zip(*np.nonzero(mask), strict=True))


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_pointing_is_what_a_loop_over_all_pixels_finds(radius: int, objects: Tensor) -> None:
    maps = torch.rand(60, 32, 32, generator=torch.Generator().manual_seed(radius))
    for map_, mask, found in zip(maps.numpy(), objects.numpy(), pointing(maps, objects, radius), strict=True):
        y, x = np.unravel_index(map_.argmax(), map_.shape)
        assert float(found) == (distance(mask, int(y), int(x)) <= radius)


def test_near_an_object_is_a_disk_around_a_pixel() -> None:
    point = torch.zeros(1, 9, 9, dtype=torch.bool)
    point[0, 4, 4] = True
    found = near(point, 2)[0]
    for y, x in itertools.product(range(9), range(9)):
        assert found[y, x] == ((y - 4) ** 2 + (x - 4) ** 2 <= 4)


def test_top_takes_as_many_pixels_as_the_object_has_and_shares_ties() -> None:
    objects = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.bool)
    assert top(torch.tensor([[[3.0, 1], [2, 0]]]), objects).tolist() == [0.5]  # 3 and 2
    assert top(torch.tensor([[[3.0, 1], [1, 1]]]), objects).tolist() == [pytest.approx((1 + 1 / 3) / 2)]


@pytest.mark.parametrize("name", MEASURES)
def test_maps_made_worse_by_known_amounts_come_out_in_that_order(name: str, objects: Tensor) -> None:
    """Planted ranking (arXiv 2410.02970): a share of the pixels is noise instead of the mask."""
    noise, where = (torch.rand(60, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    best = objects.float() * (1 + noise)
    values = [
        float(MEASURES[name](torch.where(where < share, 2 * noise, best), objects).mean())
        for share in (0.0, 0.05, 0.2, 0.5, 1.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1)
    assert values[-1] == pytest.approx(float(objects.float().mean()), abs=0.15)


def test_a_finding_tells_the_objects_map_from_random_ones(objects: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2))
    images, target = torch.rand(60, 1, 32, 32), torch.zeros(60, dtype=torch.int64)
    for name in MEASURES:
        found = judge(name, net, Case(images, target, "saliency", maps=objects.float(), objects=objects))
        assert (found.value, found.verdict) == (pytest.approx(1), "good")
        assert found.random is not None
        assert found.random.high < 0.5
        assert len(found.each) == 60
        away = judge(name, net, Case(images, target, "saliency", maps=(~objects).float(), objects=objects))
        assert away.verdict == "unclear", "the net may use the background"
        unknown = judge(name, net, Case(images, target, "saliency", maps=objects.float()))
        assert np.isnan(unknown.value)
