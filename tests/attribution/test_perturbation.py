"""Occlusion and RISE against brute force and captum."""

import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor, nn

from resnet.attribution import perturbation
from resnet.attribution.contract import Request
from resnet.attribution.methods import METHODS, explain
from tests.attribution.nets import net, photos


def logit(model: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(image[None].double())[0, target])


@pytest.mark.parametrize("kind", ["basic", "torchvision"])
class TestOcclusion:
    OPTIONS = {
        "window": 0.25,
        "stride": 0.2,
    }  # 8 x 10 and 6 x 8 pixels of 32 x 40: the last windows reach over the edge

    def test_is_the_mean_drop_of_the_windows_over_a_pixel(self, kind: str) -> None:
        model, [image] = net(kind), photos(1, (32, 40))
        lost, seen = torch.zeros(32, 40).double(), torch.zeros(32, 40).double()
        for top in range(0, 32, 6):
            for left in range(0, 40, 8):
                if top < 32 - 8 + 6 and left < 40 - 10 + 8:  # not past the first window that reaches the edge
                    hidden = image.clone()
                    hidden[:, top : top + 8, left : left + 10] = 0
                    lost[top : top + 8, left : left + 10] += logit(model, image, 3) - logit(model, hidden, 3)
                    seen[top : top + 8, left : left + 10] += 1
        assert seen.min() > 0
        found = explain("occlusion", model, image[None], 3, options=self.OPTIONS)
        torch.testing.assert_close(found[0], (lost / seen).float())

    def test_captum(self, kind: str) -> None:
        model, x, target = net(kind), photos(2, (32, 40)).double(), torch.tensor([1, 2])
        wanted = Occlusion(model).attribute(x, (3, 8, 10), (3, 6, 8), target=target)[:, 0].float()
        torch.testing.assert_close(explain("occlusion", model, x, target, options=self.OPTIONS), wanted)


def test_occlusion_of_a_clip_hides_in_time_too() -> None:
    class Frame(nn.Module):  # the logit is the mean of frame 2
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0, 2].mean((1, 2))[:, None]

    found = explain("occlusion", Frame(), torch.ones(1, 1, 4, 8, 8), 0, options={"window": 0.25, "stride": 0.25})
    torch.testing.assert_close(found[0, 2], torch.full((8, 8), 1 / 16))
    assert found[0, [0, 1, 3]].count_nonzero() == 0


def request(images: Tensor, **options: float) -> Request:
    return Request(images, torch.zeros(len(images), dtype=torch.long), "", {**METHODS["rise"].options, **options})


class TestRise:
    def test_is_the_mean_where_the_pixel_is_seen_above_the_mean(self) -> None:
        model, images = net("torchvision"), photos(2, (20, 24))
        asked = request(images, masks=9, cells=4)
        masks = perturbation._masks(*perturbation._grids(asked, 9), images).double()
        for image, target in zip(images, (1, 2), strict=True):
            logits = torch.tensor([logit(model, image * mask, target) for mask in masks]).double()
            wanted = torch.einsum("k,khw->hw", logits, masks) / masks.sum(0) - logits.mean()
            found = explain("rise", model, image[None], target, options={"masks": 9, "cells": 4})
            torch.testing.assert_close(found[0], wanted.float(), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("size", [(20, 24), (6, 20, 24)])
    def test_masks_are_grids_at_random_offsets(self, size: tuple[int, ...]) -> None:
        images = photos(1, size)
        grids, offsets = perturbation._grids(request(images, cells=4), 500)
        masks = perturbation._masks(grids, offsets, images)
        assert masks.shape == (500, *size)
        assert masks.min() >= 0
        assert masks.max() <= 1
        assert abs(masks.mean() - 0.5) < 0.02
        assert (masks.mean(0) - 0.5).abs().max() < 0.15  # no place is seen more than others
        steps = masks.diff(dim=-1).abs().max()
        assert 0 < steps <= 1 / 6 + 1e-6  # linear between cells of 6 pixels

    def test_finds_the_only_pixels_that_count(self) -> None:
        class Corner(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[:, :, :8, :8].mean((1, 2, 3))[:, None]

        found = explain("rise", Corner(), torch.ones(1, 3, 32, 32), 0, options={"masks": 2000})[0]
        assert found[:8, :8].mean() > 5 * found[16:, 16:].abs().mean()


def test_random_depends_on_the_picture_and_is_uniform() -> None:
    images = photos(2, (64, 64))
    maps = explain("random", net(), images, 1)
    assert not torch.allclose(*maps)
    assert torch.equal(explain("random", net("plain"), images, 5), maps)
    assert maps.min() >= 0
    assert maps.max() < 1
    assert abs(maps.mean() - 0.5) < 0.02
    images[0, 0, 0, 0] += 1
    changed = explain("random", net(), images, 1)
    assert not torch.allclose(changed[0], maps[0])
    assert torch.equal(changed[1], maps[1])
