"""The in-domain single deletion score, on a net whose every drop is known."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from resnet.trust.checks import judge
from resnet.trust.contract import Case
from resnet.trust.single import patch_sums

SIZE = 8  # 16 patches of 2 x 2 pixels


class Weighted(nn.Module):
    """Two logits, each a weighted sum of the pixels: what a pixel adds is known, and blanking takes just that away."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,khw->nk", x, self.weight)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def case_of(images: Tensor, maps: Tensor, **more: object) -> Case:
    target = torch.zeros(len(images), dtype=torch.int64)
    return dataclasses.replace(Case(images, target, "grad-cam", maps=maps), **more)  # type: ignore[arg-type]


def contributions(net: Weighted, images: Tensor) -> Tensor:
    return (images[:, 0] * net.weight[0]).detach()


def test_what_every_pixel_adds_is_ranked_perfectly_and_its_negative_the_other_way_round(images: Tensor) -> None:
    net = Weighted()
    own = contributions(net, images)
    assert judge("single", net, case_of(images, own)).value == pytest.approx(1)
    assert judge("single", net, case_of(images, -own)).value == pytest.approx(-1)
    assert judge("single", net, case_of(images, torch.ones_like(own))).value == 0, "a constant map has no order"


def test_of_a_difference_it_is_the_difference_that_drops(images: Tensor) -> None:
    net = Weighted()
    difference = (images[:, 0] * (net.weight[0] - net.weight[1])).detach()
    assert judge("single", net, case_of(images, difference, against=1)).value == pytest.approx(1)
    assert judge("single", net, case_of(images, difference)).value < 0.9


def test_a_patch_gets_the_blank_colour(images: Tensor) -> None:
    net = Weighted()
    lost = ((images[:, 0] - 3) * net.weight[0]).detach()
    assert judge("single", net, case_of(images, lost, blank=(3.0,))).value == pytest.approx(1)


def test_maps_made_worse_by_known_amounts_come_out_in_that_order(images: Tensor) -> None:
    """Planted ranking (arXiv 2410.02970): so many of the pixels have changed places."""
    net, draw, values = Weighted(), torch.Generator().manual_seed(2), []
    own = contributions(net, images).flatten(1)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        worse = own.clone()
        for row in worse:
            moved = torch.randperm(SIZE**2, generator=draw)[: round(share * SIZE**2)]
            row[moved] = row[moved[torch.randperm(len(moved), generator=draw)]]
        found = judge("single", net, case_of(images, worse.view(-1, SIZE, SIZE)))
        values.append(found.value)
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.8
    assert found.random is not None
    assert abs(values[-1]) < 0.15, "all moved is random"


def test_the_sums_are_those_of_the_patches() -> None:
    maps = torch.arange(2 * 64, dtype=torch.float32).view(2, 8, 8)
    expected = [[maps[n, r : r + 2, c : c + 2].sum() for r in range(0, 8, 2) for c in range(0, 8, 2)] for n in (0, 1)]
    assert patch_sums(maps).tolist() == torch.tensor(expected).tolist()
    assert patch_sums(torch.ones(1, 8, 8, 8)).tolist() == [[8.0] * 64]


def test_only_a_net_that_saw_blanked_patches_is_compared(images: Tensor) -> None:
    net = Weighted()
    assert "Not comparable" in judge("single", net, case_of(images, contributions(net, images))).sentence
    seen = judge("single", net, case_of(images, contributions(net, images), masked=True))
    assert "Not comparable" not in seen.sentence
