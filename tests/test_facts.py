"""What shortcuts do, shown on real CIFAR-10 by the very workers that the app starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from resnet import runs
from resnet.recipes import Recipe
from resnet.runs import Run
from resnet.spec import cifar, plain_twin

pytestmark = pytest.mark.slow


def race(depth: int, recipe: Recipe, train_images: int, size: int = 32) -> tuple[Run, Run]:
    """A residual net and its plain twin, trained side by side to the end with half the cores each."""
    net = replace(cifar(depth), image_size=size)
    residual, plain = runs.start_race([net, plain_twin(net)], "cifar10", vars(recipe), train_images)
    *_, statuses = runs.wait([residual, plain])
    assert [status.state for status in statuses] == ["finished", "finished"], statuses
    return residual, plain


def test_300_steps_bring_resnet20_below_a_loss_of_1_6(cifar10: Path) -> None:
    residual, plain = race(20, Recipe(epochs=1), train_images=300 * 128)
    losses = [run.steps()["loss"] for run in (residual, plain)]
    assert [len(loss) for loss in losses] == [300, 300]
    end = [float(loss[-20:].mean()) for loss in losses]
    print(f"mean training loss of the last 20 of 300 steps: ResNet-20 {end[0]:.3f}, plain-20 {end[1]:.3f}")
    assert end[0] < 1.6
    assert end[0] < end[1]


def test_a_minute_of_training_shows_the_degradation_at_56_layers(cifar10: Path) -> None:
    """10,000 images at 16 x 16 for 3 epochs; reference for this race on original pixels: 48 % and 20 %."""
    residual, plain = race(56, Recipe(epochs=3, augment=False), train_images=10_000, size=16)
    best, worst = (100 * run.epochs().test_accuracy.iloc[-1] for run in (residual, plain))
    print(f"test accuracy after 3 epochs: ResNet-56 {best:.1f} %, plain-56 {worst:.1f} %")
    assert best > 38
    assert worst < 25
