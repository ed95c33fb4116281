"""Optimisers against their papers' formulas, clipped gradients, frozen stages and a slower body."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.data.dataset import Dataset
from resnet.errors import Refused
from resnet.nets.model import ResNet, build, memory_format
from resnet.runs.weights import weights_of
from resnet.train.feeds import Resident
from resnet.train.loop import EpochTested, StepsTaken, evaluate, fit
from resnet.train.recipes import OPTIMIZERS, Recipe
from resnet.train.state import MAKERS, DivergedError, State
from resnet.train.step import Step
from tests.support.tiny import TINY, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=2, batch=8, seed=3, precision="fp32", augment=False, schedule="constant", lr=0.01)
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """24 training images, 3 batches of 8; 10 test images."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=draw, dtype=torch.uint8)
    return Dataset("noise", images, torch.arange(24) % 3, images[:10], torch.arange(10) % 3, ("a", "b", "c"))


def feed_of(state: State, data: Dataset, recipe: Recipe) -> Resident:
    return Resident(data, recipe, DEVICE, memory_format(state.model))


def trained(data: Dataset, recipe: Recipe) -> tuple[ResNet, list[np.void]]:
    """The net, and the rows of its steps."""
    state, rows = run_of(data, recipe)
    return state.model, rows  # type: ignore[return-value]


def run_of(data: Dataset, recipe: Recipe) -> tuple[State, list[np.void]]:
    state = state_of(build(TINY, recipe.seed), recipe)
    rows = [row for event in fit(state, feed_of(state, data, recipe), recipe) if isinstance(event, StepsTaken)
            for row in event.rows]  # fmt: skip
    return state, rows


def _adamw(weight: Tensor, slope: Tensor, memory: dict[str, Tensor], step: int) -> Tensor:
    """Loshchilov & Hutter (arXiv 1711.05101), algorithm 2."""
    memory["m"] = 0.9 * memory.get("m", torch.zeros_like(slope)) + 0.1 * slope
    memory["v"] = 0.999 * memory.get("v", torch.zeros_like(slope)) + 0.001 * slope**2
    mean, square = memory["m"] / (1 - 0.9**step), memory["v"] / (1 - 0.999**step)
    return weight - 0.01 * (mean / (square.sqrt() + 1e-8) + 0.1 * weight)


def _rmsprop(weight: Tensor, slope: Tensor, memory: dict[str, Tensor], step: int) -> Tensor:
    """Hinton's lecture 6e, with momentum and decay as PyTorch documents them."""
    slope = slope + 0.1 * weight
    memory["v"] = 0.99 * memory.get("v", torch.zeros_like(slope)) + 0.01 * slope**2
    memory["b"] = 0.9 * memory.get("b", torch.zeros_like(slope)) + slope / (memory["v"].sqrt() + 1e-8)
    return weight - 0.01 * memory["b"]


def _sgd(weight: Tensor, slope: Tensor, memory: dict[str, Tensor], step: int) -> Tensor:
    slope = slope + 0.1 * weight
    memory["b"] = 0.9 * memory["b"] + slope if memory else slope
    return weight - 0.01 * (slope + 0.9 * memory["b"])


FORMULAS = {"sgd": _sgd, "adamw": _adamw, "rmsprop": _rmsprop}


def test_every_optimizer_is_made() -> None:
    assert MAKERS.keys() == OPTIMIZERS.keys() == FORMULAS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_formula(noise: Dataset, name: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=name, weight_decay=0.1)
    found, _ = trained(noise, recipe)
    model, memory = build(TINY, 3).train(), dict[str, dict[str, Tensor]]()
    state = State(build(TINY, 3), recipe)
    for step, (inputs, _) in enumerate([*feed_of(state, noise, recipe).inputs(0, 3),
                                        *feed_of(state, noise, recipe).inputs(3, 6)], 1):  # fmt: skip
        x, labels = feed_of(state, noise, recipe).prepare(*inputs)
        names, weights = zip(*model.named_parameters(), strict=True)
        slopes = torch.autograd.grad(F.cross_entropy(model(x), labels), weights)
        for which, weight, slope in zip(names, weights, slopes, strict=True):
            weight.data = FORMULAS[name](weight.data, slope, memory.setdefault(which, {}), step)
    expected = model.state_dict()
    for which, value in found.state_dict().items():
        torch.testing.assert_close(value, expected[which], rtol=5e-3, atol=5e-4, msg=which)


class Breaks(nn.Module):
    """Its logits are no numbers from the third training step on."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.steps = build(TINY), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.net(x) * (torch.nan if self.steps > 2 else 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_divergence_leaves_the_weights_as_they_were(noise: Dataset, name: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=name)
    state, before = state_of(Breaks(), recipe), dict[int, dict[str, Tensor]]()

    def train() -> None:
        for _ in fit(state, feed_of(state, noise, recipe), recipe):
            before[state.step] = {which: weight.detach().clone() for which, weight in state.model.named_parameters()}

    with pytest.raises(DivergedError, match="became nan at step 3"):
        train()
    assert state.step == 2
    assert all(torch.equal(weight, before[2][which]) for which, weight in state.model.named_parameters())


def test_clipped_gradients_have_the_norm_that_is_asked_for(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, clip=0.01, momentum=0.0, weight_decay=0.0, epochs=1)
    state = state_of(build(TINY, 3), recipe)
    step = Step(state, feed_of(state, noise, recipe), recipe)
    before = [weight.detach().clone() for weight in state.model.parameters()]
    (inputs, _) = next(step.feed.inputs(0, 1))
    clipped = step(inputs, 0.5, 0)
    moved = torch.stack([(new - old).norm() for new, old in zip(state.model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    loose = dataclasses.replace(recipe, clip=1000.0)
    other = state_of(build(TINY, 3), loose)
    whole = Step(other, feed_of(other, noise, loose), loose)(inputs, 0.5, 0)
    norms = slice(3, 3 + len(step.layers.weights))
    assert torch.equal(clipped[norms], whole[norms]), "what is recorded is the norm before it is clipped"
    assert norms_of(other, before) == pytest.approx(0.5 * whole_norm(noise, loose), rel=1e-3), "a small norm stays"


def norms_of(state: State, before: list[Tensor]) -> float:
    changes = [new.detach() - old for new, old in zip(state.model.parameters(), before, strict=True)]
    return torch.stack([change.norm() for change in changes]).norm().item()


def whole_norm(data: Dataset, recipe: Recipe) -> float:
    """The L2 norm of the first batch's gradients of all weights."""
    state = state_of(build(TINY, 3), recipe)
    feed = feed_of(state, data, recipe)
    x, labels = feed.prepare(*next(feed.inputs(0, 1))[0])
    slopes = torch.autograd.grad(F.cross_entropy(state.model.train()(x), labels), [*state.model.parameters()])
    return math.sqrt(sum(slope.square().sum().item() for slope in slopes))


@pytest.mark.parametrize("frozen", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_stages_are_bit_equal_at_the_end(noise: Dataset, frozen: int, name: str) -> None:
    recipe = dataclasses.replace(RECIPE, frozen=frozen, optimizer=name, ema=0.5)
    before = build(TINY, 3).state_dict()
    state, rows = run_of(noise, recipe)
    stay = ("conv1", "bn1", "layer1", "layer2")[: frozen + 1]
    for tested in (state.model.state_dict(), weights_of(state.tensors())):
        for which, value in tested.items():
            assert torch.equal(value, before[which]) == which.startswith(stay), which
    layers = len(rows[0]["norms"])
    assert all((row["norms"] == 0).sum() == {1: 1, 2: 3, 3: layers - 1}[frozen] for row in rows)
    assert all((row["updates"] == 0).sum() == (row["norms"] == 0).sum() for row in rows)


def test_a_net_with_fewer_stages_says_so(noise: Dataset) -> None:
    with pytest.raises(Refused, match=r"stem and its 2 stages can be frozen\. Received 4\. Choose 3 or fewer\."):
        State(build(TINY), dataclasses.replace(RECIPE, frozen=4))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_body_gets_its_share_of_the_learning_rate(noise: Dataset, name: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=name, weight_decay=0.0, epochs=1)
    changes = []
    for share in (1.0, 0.25, 0.0):
        changed = dataclasses.replace(recipe, body_lr=share)
        state = state_of(build(TINY, 3), changed)
        step = Step(state, feed_of(state, noise, changed), changed)
        before = {which: weight.detach().clone() for which, weight in state.model.named_parameters()}
        step(next(step.feed.inputs(0, 1))[0], 0.01, 0)
        changes.append({which: weight.detach() - before[which] for which, weight in state.model.named_parameters()})
    for which, whole in changes[0].items():
        share = 1.0 if which.startswith("fc") else 0.25
        torch.testing.assert_close(changes[1][which], share * whole, rtol=1e-3, atol=1e-7, msg=which)
        assert changes[2][which].any() == which.startswith("fc")


def test_cosine_warms_up_over_a_twentieth_and_falls_to_0() -> None:
    rates = [Recipe(schedule="cosine", lr=0.4).lr_at(step, 1000) for step in range(1000)]
    assert rates[24] == pytest.approx(0.4 * 0.0245 / 0.05)
    assert rates.index(max(rates)) in (49, 50)
    assert rates[524] == pytest.approx(0.2, rel=0.01), "half way down half of it"
    assert 0 < rates[-1] < 0.0001


def test_the_first_test_of_given_weights_is_theirs(noise: Dataset) -> None:
    """With nothing to train, a run's test is that of the weights that it began with."""
    recipe = dataclasses.replace(RECIPE, frozen=3, epochs=1, lr=1e-6)
    model = build(TINY, 7)
    state = state_of(model, recipe)
    own = evaluate(model, feed_of(state, noise, recipe))
    tested = [event for event in fit(state, feed_of(state, noise, recipe), recipe) if isinstance(event, EpochTested)]
    assert tested[0].result.accuracy == own.accuracy
    assert tested[0].result.loss == pytest.approx(own.loss, rel=1e-4)
