"""Augmentations: what a step receives, by the definitions of their papers, and that twins receive the same."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from resnet.data.dataset import Dataset, normalise
from resnet.errors import Refused
from resnet.nets.model import build, memory_format
from resnet.nets.spec import NetSpec, plain_twin
from resnet.seeds import Stream, seed_of
from resnet.train.augment import OF_NUMBERS, OF_PAIRS, OF_PIXELS, Augment
from resnet.train.feeds import Resident
from resnet.train.recipes import AUGMENTATIONS, Recipe
from resnet.train.state import State
from resnet.train.step import Step
from tests.support.tiny import TINY, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=40, batch=8, seed=3, precision="fp32", augment=False)
STEPS = 40
WAYS: dict[str, dict[str, Any]] = {name: {name: 1} for name in AUGMENTATIONS}
WAYS["all"] = dict.fromkeys(AUGMENTATIONS, 1)
NONE: dict[str, Any] = dict.fromkeys(AUGMENTATIONS, 0)


@pytest.fixture(scope="module")
def bright() -> Dataset:
    """26 training images of 8 pixels, none with a pixel of the mean colour."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (26, 3, 8, 8), generator=draw, dtype=torch.uint8)
    return Dataset("bright", images, torch.arange(26) % 3, images[:4], torch.arange(4) % 3, ("a", "b", "c"))


class Spy(nn.Module):
    """Keeps what a net receives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.model(x)


def batches(data: Dataset, recipe: Recipe, net: NetSpec = TINY) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels of each step as the loss gets them, and the hash."""
    state = state_of(build(net, recipe.seed), recipe)
    step = Step(state, Resident(data, recipe, torch.device("cpu"), memory_format(state.model)), recipe)
    step.net, found = Spy(state.model), list[Tensor]()
    gradients = step._gradients

    def spied(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found.append(labels.clone())
        return gradients(x, labels)

    step._gradients = spied  # type: ignore[method-assign]
    for number, (inputs, crc) in enumerate(step.feed.inputs(0, STEPS)):
        step(inputs, 1e-4, number)
        yield step.net.seen[-1], found[-1], crc


def pairs(data: Dataset, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Images and labels of each step without and with the augmentations of the recipe."""
    without = dataclasses.replace(recipe, **NONE)
    for (x, labels, _), (mixed, shares, _) in zip(batches(data, without), batches(data, recipe), strict=True):
        yield x, labels, mixed, shares


def test_every_augmentation_has_a_transform() -> None:
    assert {*OF_PIXELS, *OF_NUMBERS, *OF_PAIRS} == {*AUGMENTATIONS}


@pytest.mark.parametrize("way", WAYS)
def test_twins_and_second_runs_receive_the_same_and_another_seed_does_not(bright: Dataset, way: str) -> None:
    recipe = dataclasses.replace(RECIPE, **WAYS[way])
    dropping = dataclasses.replace(TINY, stochastic_depth=0.5)  # draws more from the step's numbers, after the images
    torch.manual_seed(5)
    first, second = list(batches(bright, recipe, dropping)), list(batches(bright, recipe, plain_twin(TINY)))
    for (x, labels, crc), (other, others, same) in zip(first, second, strict=True):
        assert torch.equal(x, other)
        assert torch.equal(labels, others)
        assert crc == same
    anew = list(batches(bright, dataclasses.replace(recipe, seed=4)))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, anew, strict=True))
    plain = list(batches(bright, RECIPE))
    assert not {crc for *_, crc in first} & {crc for *_, crc in [*anew, *plain]}, "the hash tells them apart"
    assert sum(torch.equal(a[0], b[0]) for a, b in zip(first, plain, strict=True)) < STEPS / 4, "it does something"


def test_mixup_takes_of_images_and_labels_the_same_shares(bright: Dataset) -> None:
    found = []
    for x, labels, mixed, shares in pairs(bright, dataclasses.replace(RECIPE, mixup=0.2)):
        one = nn.functional.one_hot(labels, 3).float()
        before, former = x.roll(1, 0), one.roll(1, 0)
        share = ((mixed - before) * (x - before)).sum() / (x - before).square().sum()
        torch.testing.assert_close(mixed, share * x + (1 - share) * before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shares, share * one + (1 - share) * former, rtol=1e-4, atol=1e-4)
        found.append(share.item())
    beta = torch.distributions.Beta(0.2, 0.2).sample((20_000,))
    assert torch.tensor(found).sub(0.5).abs().mean() == pytest.approx(beta.sub(0.5).abs().mean().item(), abs=0.1)


def test_cutmix_takes_a_rectangle_of_another_image_and_its_area_of_the_label(bright: Dataset) -> None:
    areas = []
    for x, labels, mixed, shares in pairs(bright, dataclasses.replace(RECIPE, cutmix=1.0)):
        other = (mixed != x).any(1)  # (N, 8, 8)
        assert torch.equal(other[0], other.any(0)), "the same rectangle in all"
        rows, columns = other[0].any(1), other[0].any(0)
        area = int(other[0].sum())
        assert area == int(rows.sum()) * int(columns.sum())
        assert torch.equal(mixed, torch.where(other[:, None], x.roll(1, 0), x))
        one = nn.functional.one_hot(labels, 3).float()
        torch.testing.assert_close(shares, (1 - area / 64) * one + area / 64 * one.roll(1, 0), rtol=1e-5, atol=1e-6)
        areas.append(area)
    assert len(set(areas)) > 8


def test_mixup_and_cutmix_together_are_one_of_them_each_step(bright: Dataset) -> None:
    kinds = []
    for x, _, mixed, _ in pairs(bright, dataclasses.replace(RECIPE, mixup=1.0, cutmix=1.0)):
        kept = (mixed == x) | (mixed == x.roll(1, 0))
        kinds.append(bool(kept.all()))
    assert 8 < sum(kinds) < 32


def test_erasing_gives_rectangles_of_some_images_the_mean_colour(bright: Dataset) -> None:
    erased, images = 0, 0
    for x, labels, found, same in pairs(bright, dataclasses.replace(RECIPE, erasing=0.4)):
        assert torch.equal(labels, same)
        gone = (found != x).any(1)
        assert (found.permute(0, 2, 3, 1)[gone] == 0).all()
        for image in gone[gone.flatten(1).any(1)]:
            assert int(image.sum()) == int(image.any(1).sum()) * int(image.any(0).sum()) <= 0.5 * 64
            erased += 1
        images += len(x)
    assert 0.28 < erased / images < 0.52, "of 320 images 0.4, give or take four deviations"


def test_randaugment_changes_each_image_by_itself_before_anything_else(bright: Dataset) -> None:
    recipe, transform = dataclasses.replace(RECIPE, randaugment=2), v2.RandAugment(2)
    plain = dataclasses.replace(RECIPE, randaugment=0)
    for step, ((x, _, _), (found, *_)) in enumerate(zip(batches(bright, plain), batches(bright, recipe), strict=True)):
        pixels = (x * 255 * bright.std[:, None, None] + 255 * bright.mean[:, None, None]).round().to(torch.uint8)
        torch.manual_seed(seed_of(recipe.seed, Stream.STEP, step, 0))
        expected = normalise(torch.stack([transform(image) for image in pixels]), bright.mean, bright.std)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tests_see_images_as_they_are(bright: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, **WAYS["all"])
    feeds = [Resident(bright, each, torch.device("cpu"), torch.contiguous_format) for each in (RECIPE, recipe)]
    assert all(torch.equal(a, b) for a, b in zip(*(feed.tests() for feed in feeds), strict=True))


def test_the_accuracy_of_a_mixed_batch_counts_the_class_with_the_larger_share(bright: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, mixup=0.2)
    state = state_of(build(TINY, recipe.seed), recipe)
    step = Step(state, Resident(bright, recipe, torch.device("cpu"), memory_format(state.model)), recipe)
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    step._gradients = lambda *_: (torch.tensor(1.0), logits)  # type: ignore[method-assign]
    step.feed.prepare = lambda *_: (torch.zeros(2, 3, 8, 8), shares)  # type: ignore[method-assign]
    for weight in state.model.parameters():
        weight.grad = torch.zeros_like(weight)
    assert step.run(())[2].item() == 0.5


def test_randaugment_refuses_other_than_grey_and_coloured_images() -> None:
    Augment(dataclasses.replace(RECIPE, randaugment=1), 1, 3)
    with pytest.raises(Refused, match=r"RandAugment changes grey and coloured images\. Received 2 channels"):
        Augment(dataclasses.replace(RECIPE, randaugment=1), 2, 3)
    Augment(dataclasses.replace(RECIPE, mixup=1), 2, 3)


@pytest.mark.parametrize("field", ["mixup", "cutmix"])
def test_an_alpha_that_pytorch_cannot_draw_from_is_refused(field: str) -> None:
    with pytest.raises(Refused, match=f"{field} must be 0, or 0.01 or more"):
        Recipe(**{field: 0.001})  # type: ignore[arg-type]


def test_what_a_step_draws_leaves_the_callers_generator(bright: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(batches(bright, dataclasses.replace(RECIPE, **WAYS["all"])))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_needs_no_stages_of_a_net_that_freezes_none() -> None:
    assert State(nn.Linear(2, 2), RECIPE).frozen == []
