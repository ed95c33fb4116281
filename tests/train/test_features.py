"""A training of the last layer alone, whose features are computed once, against one that computes them at each step."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resnet.data.dataset import Dataset
from resnet.nets.model import build, memory_format
from resnet.nets.spec import NetSpec
from resnet.train.feeds import Features, Resident, feed_of
from resnet.train.loop import EpochTested, StepsTaken, fit
from resnet.train.recipes import AUGMENTATIONS, Recipe
from resnet.train.state import State
from tests.support.tiny import TINY, same, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=2, batch=8, seed=3, precision="fp32", augment=False, frozen=3, ema=0.5)
DEVICE = torch.device("cpu")
SWITCHES: dict[str, Any] = {"augment": True, "mask": True, "flip_test": True, "frozen": 2}
SWITCHES |= dict.fromkeys(AUGMENTATIONS, 1)


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """26 training images, 3 batches of 8 and a rest; 10 test images."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (26, 3, 8, 8), generator=draw, dtype=torch.uint8)
    return Dataset("noise", images, torch.arange(26) % 3, images[:10], torch.arange(10) % 3, ("a", "b", "c"))


def state_for(recipe: Recipe, net: NetSpec = TINY) -> State:
    return state_of(build(net, recipe.seed), recipe)


def ordinary(state: State, data: Dataset, recipe: Recipe) -> Resident:
    return Resident(data, recipe, DEVICE, memory_format(state.model))


def test_it_trains_as_if_the_body_ran_at_each_step(noise: Dataset) -> None:
    found: list[tuple[list[np.ndarray], list[EpochTested], dict[str, Tensor]]] = []
    for make in (ordinary, lambda state, data, recipe: feed_of(data, recipe, DEVICE, state.model)):
        state = state_for(RECIPE)
        events = list(fit(state, make(state, noise, RECIPE), RECIPE))
        rows = [event.rows for event in events if isinstance(event, StepsTaken)]
        found.append((rows, [event for event in events if isinstance(event, EpochTested)], state.tensors()))
    (slow, tests, tensors), (quick, tested, expected) = found
    for name in ("loss", "accuracy", "norms", "updates", "lr"):
        np.testing.assert_allclose(
            np.concatenate(quick)[name], np.concatenate(slow)[name], rtol=2e-3, atol=1e-6, err_msg=name
        )
    assert np.array_equal(np.concatenate(quick)["batch"], np.concatenate(slow)["batch"]), "the same hashes"
    assert [each.result.accuracy for each in tests] == [each.result.accuracy for each in tested]
    assert all(torch.allclose(tensors[name], expected[name], rtol=1e-4, atol=1e-5) for name in tensors)


def test_the_body_sees_each_image_once(noise: Dataset) -> None:
    state, seen = state_for(RECIPE), []
    state.model.get_submodule("conv1").register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    list(fit(state, feed_of(noise, RECIPE, DEVICE, state.model), RECIPE))
    assert sum(seen) == 26 + 10


def test_a_resume_is_exact(noise: Dataset) -> None:
    whole = state_for(RECIPE)
    list(fit(whole, feed_of(noise, RECIPE, DEVICE, whole.model), RECIPE))
    first = state_for(RECIPE)
    for event in fit(first, feed_of(noise, RECIPE, DEVICE, first.model), RECIPE):
        if isinstance(event, StepsTaken) and first.step == 4:
            break
    again = state_of(build(TINY, 99), RECIPE)
    again.load(first.tensors(), 4)
    list(fit(again, feed_of(noise, RECIPE, DEVICE, again.model), RECIPE))
    assert same(again.tensors(), whole.tensors())


@pytest.mark.parametrize("field", SWITCHES)
def test_features_are_kept_only_where_no_pass_changes_them(noise: Dataset, field: str) -> None:
    assert type(feed_of(noise, RECIPE, DEVICE, state_for(RECIPE).model)) is Features
    recipe = dataclasses.replace(RECIPE, **{field: SWITCHES[field]})
    assert type(feed_of(noise, recipe, DEVICE, state_for(recipe).model)) is Resident


def test_a_head_with_a_norm_is_trained_at_each_step(noise: Dataset) -> None:
    net = dataclasses.replace(TINY, block="preact-basic")
    assert type(feed_of(noise, RECIPE, DEVICE, state_for(RECIPE, net).model)) is Resident
