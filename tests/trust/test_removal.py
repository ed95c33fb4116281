"""Deletion, insertion and ROAD against loops over one picture at a time, and on a net that is a sum of its pixels."""

import dataclasses
import math
from itertools import pairwise

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from resnet.trust.checks import judge
from resnet.trust.contract import Case
from resnet.trust.removal import STEPS, cell_ranks, removed, score

BLANK = (0.3, -0.2)


class Sum(nn.Module):
    """Logits: the sum of the pixels times a weight each, and 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(2, size, size, generator=draws).double() / size)

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * self.weight).flatten(1).sum(1)
        return torch.stack([logits, torch.zeros_like(logits)], 1)


def case(size: int = 8, n: int = 3) -> Case:
    """With the true attributions: what each pixel adds to the logit against the blank picture."""
    images = torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(2)).double() + 1
    weight = Sum(size).weight.detach()
    maps = ((images - torch.tensor(BLANK).double().view(2, 1, 1)) * weight).sum(1)
    return Case(images, torch.zeros(n, dtype=torch.long), "saliency", maps=maps, blank=BLANK)


def areas(model: nn.Module, given: Case, insert: bool) -> list[float]:
    """By loops: one picture, one step, one pixel at a time."""
    found = []
    for image, pixels in zip(given.images, given.maps, strict=True):
        count = pixels.numel()
        order = sorted(range(count), key=lambda i: -float(pixels.flatten()[i]))
        heights = []
        for step in range(STEPS + 1):
            taken = order[: round(step / STEPS * count)]
            seen = image.clone().flatten(1)
            for i in range(count):
                if (i in taken) != insert:
                    seen[:, i] = torch.tensor(BLANK)
            logits = model(seen.view(1, *image.shape))[0].tolist()
            heights.append(1 / (1 + math.exp(logits[1] - logits[0])))
        found.append(sum((a + b) / 2 for a, b in pairwise(heights)) / STEPS)
    return found


@pytest.mark.parametrize("check", ["deletion", "insertion"])
def test_the_area_is_the_loops(check: str) -> None:
    model, given = Sum(8), case()
    finding = judge(check, model, given)
    assert finding.each == pytest.approx(areas(model, given, insert=check == "insertion"), abs=1e-6)
    assert finding.value == pytest.approx(sum(finding.each) / 3)


@pytest.mark.parametrize("check", ["deletion", "insertion", "road"])
def test_the_true_order_beats_random_ones_and_its_reverse_does_not(check: str) -> None:
    given = case(16, 4)
    good = judge(check, Sum(16), given)
    bad = judge(check, Sum(16), dataclasses.replace(given, maps=-given.maps))
    assert (good.verdict, bad.verdict) == ("good", "bad")
    assert good.random == bad.random
    assert good.random is not None
    assert good.random.low < good.random.mean < good.random.high


@pytest.mark.parametrize("check", ["deletion", "insertion", "road"])
def test_curves_begin_and_end_with_the_whole_and_the_blank_picture(check: str) -> None:
    model, given = Sum(8), case()
    frame = judge(check, model, given).curves
    assert frame is not None
    blank_pictures = given.blanked().expand_as(given.images)
    with torch.no_grad():
        whole, blank = (float(score(model, x, given.target, None).mean()) for x in (given.images, blank_pictures))
    ends = [blank, whole] if check == "insertion" else [whole, blank]
    for column in ("map", "random", "low", "high"):
        assert frame[column].iloc[[0, -1]].tolist() == pytest.approx(
            ends, abs=0.02 if check == "road" else 1e-6
        )  # ROAD adds noise
    assert frame.iloc[:, 0].tolist() == pytest.approx([step / STEPS for step in range(STEPS + 1)])


@pytest.mark.parametrize("check", ["deletion", "insertion", "road"])
def test_a_constant_map_counts_as_a_random_one(check: str) -> None:
    given = case(12, 4)
    maps = torch.stack([torch.zeros(12, 12), torch.full((12, 12), 2.0)] * 2)
    findings = [judge(check, Sum(12), dataclasses.replace(given, maps=maps, seed=seed)) for seed in range(3)]
    values, random = [f.value for f in findings], [f.random.mean for f in findings if f.random]
    gap = judge(check, Sum(12), given).value - random[0]
    assert abs(sum(values) - sum(random)) / 3 < 0.15 * abs(gap)
    assert len(set(values)) == 3


def test_cells_are_squares_of_pixels_on_large_pictures() -> None:
    maps = torch.randn(2, 70, 66, generator=torch.Generator().manual_seed(3))
    ranks = cell_ranks(maps, 0)
    assert ranks.shape == (2, 24, 22)  # of 3 x 3 pixels, the last row of 1
    places = [(3 * r, 3 * c) for r in range(24) for c in range(22)]
    means = torch.stack([maps[:, r : r + 3, c : c + 3].mean((1, 2)) for r, c in places], 1)
    torch.testing.assert_close(means.argsort(1, descending=True).argsort(1), ranks.flatten(1))
    gone = removed(ranks, 0.5, maps.shape[1:])
    assert gone.shape == maps.shape
    for r, c in [(0, 0), (10, 7), (23, 21)]:
        block = gone[0, 3 * r : 3 * r + 3, 3 * c : 3 * c + 3]
        assert bool(block.all()) == bool(block.any()) == bool(ranks[0, r, c] < 264)


def test_volumes_are_blanked_by_voxels() -> None:
    maps = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(3))
    gone = removed(cell_ranks(maps, 0), 0.25, maps.shape[1:])
    assert set(maps[gone].tolist()) == set(maps.flatten().topk(30).values.tolist())


def test_the_score_is_the_probability_among_all_or_two_classes() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 4.0]])
    target = torch.tensor([1, 0])
    among_all = score(nn.Identity(), logits, target, None)
    assert among_all.tolist() == pytest.approx([math.exp(3) / sum(map(math.exp, (1, 3, 2))),
                                                1 / sum(map(math.exp, (0, -1, 4)))])  # fmt: skip
    of_two = score(nn.Identity(), logits, target, 2)
    assert of_two.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(4))])


@pytest.mark.parametrize("check", ["deletion", "insertion", "road"])
def test_random_curves_are_computed_once_for_all_methods_on_the_same_pictures(check: str) -> None:
    passes = []

    class Counted(Sum):
        def forward(self, x: Tensor) -> Tensor:
            passes.append(len(x))
            return super().forward(x)

    net, first = Counted(8), case()
    judge(check, net, first)
    alone = sum(passes)
    other = dataclasses.replace(first, maps=first.maps.flip(2))
    passes.clear()
    shared = judge(check, net, other)
    assert sum(passes) * 6 == alone
    expected = judge(check, net, dataclasses.replace(other, shared={}))
    assert (shared.value, shared.sentence, shared.each) == (expected.value, expected.sentence, expected.each)
    assert shared.curves is not None
    assert expected.curves is not None
    pd.testing.assert_frame_equal(shared.curves, expected.curves)


@pytest.mark.parametrize("check", ["deletion", "insertion", "road"])
def test_a_net_that_hardly_answers_to_the_picture_tells_no_maps_apart(check: str) -> None:
    faint, given = Sum(16), case(16, 4)
    with torch.no_grad():
        faint.weight.div_(50)  # the true order is the same, and still beats random ones
    finding = judge(check, faint, given)
    assert finding.random is not None
    assert not finding.random.low <= finding.value <= finding.random.high
    assert finding.verdict == "unclear"
    assert "too little to tell maps apart" in finding.sentence


@pytest.mark.parametrize("check", ["deletion", "insertion"])
def test_pictures_that_disagree_decide_nothing(check: str) -> None:
    given = case(16, 4)
    maps = given.maps * torch.tensor([1.0, 1.0, 1.0, -1.0]).view(4, 1, 1)  # three right, one reversed
    finding = judge(check, Sum(16), dataclasses.replace(given, maps=maps))
    assert finding.verdict == "unclear"
