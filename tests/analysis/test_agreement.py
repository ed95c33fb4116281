"""Cosines between mini-batches against torch.autograd one by one, exact cases, and the reference figures."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis import agreement as module
from resnet.analysis.agreement import agreement, mean_cosine
from resnet.analysis.batches import noise_batch
from resnet.analysis.contract import last
from resnet.nets.model import build, weight_layers
from resnet.nets.spec import cifar, plain_twin
from tests.support.unchanged import SMALL


def batch(n: int) -> tuple[Tensor, Tensor]:
    return noise_batch(SMALL, n)


def square(table: pd.DataFrame) -> np.ndarray:
    return table.pivot(index="row", columns="column", values="cosine").to_numpy()


def by_hand(images: Tensor, labels: Tensor) -> np.ndarray:
    """For two images a batch, one net for each, backward() and numpy's inner products."""
    gradients = []
    for x, y in zip(images.split(2), labels.split(2), strict=True):
        model = build(SMALL).double().train()
        F.cross_entropy(model(x.double()), y).backward()
        weights = [model.get_parameter(f"{name}.weight").grad for name in weight_layers(model)]
        gradients.append(np.concatenate([w.numpy().ravel() for w in weights if w is not None]))
    return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in gradients] for a in gradients])


def test_cosines_are_those_of_gradients_taken_one_by_one() -> None:
    images, labels = batch(10)
    table = last(agreement(build(SMALL).double(), images, labels, batches=5))
    assert list(table.columns) == ["row", "column", "cosine"]
    np.testing.assert_allclose(square(table), by_hand(images, labels), atol=1e-9)


def test_equal_batches_agree_and_the_mean_leaves_them_out() -> None:
    images, labels = batch(4)
    table = last(agreement(build(SMALL), images.repeat(3, 1, 1, 1), labels.repeat(3), batches=3))
    np.testing.assert_allclose(table.cosine, 1, atol=1e-5)
    opposed = pd.DataFrame({"row": [0, 0, 1, 1], "column": [0, 1, 0, 1], "cosine": [1.0, -0.5, -0.5, 1.0]})
    assert mean_cosine(opposed) == -0.5


def test_opposite_labels_of_a_linear_net_pull_apart() -> None:
    """With two classes, dL/dW of the same image is equal and opposite for the two labels where both are as likely."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    nn.init.zeros_(net.get_parameter("1.weight"))
    nn.init.zeros_(net.get_parameter("1.bias"))
    image = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    table = last(agreement(net, image.repeat(2, 1, 1, 1), torch.tensor([0, 1]), batches=2))
    np.testing.assert_allclose(square(table), [[1, -1], [-1, 1]], atol=1e-6)


def test_each_step_holds_the_one_before() -> None:
    steps = list(agreement(build(SMALL), *batch(9), batches=4))
    assert [step.share for step in steps] == [0.5, 0.75, 1.0]
    assert [len(step.table) for step in steps] == [4, 9, 16]
    np.testing.assert_allclose(square(steps[-1].table)[:2, :2], square(steps[0].table), atol=1e-6)


def test_a_sketch_keeps_the_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch(16)
    exact = square(last(agreement(build(SMALL), images, labels, batches=4)))
    monkeypatch.setattr(module, "MOST", 1000)  # of 5,000 weights
    assert sum(layer.get_parameter("weight").numel() for layer in weight_layers(build(SMALL)).values()) > 4000
    sketched = square(last(agreement(build(SMALL), images, labels, batches=4)))
    assert not np.array_equal(exact, sketched)
    np.testing.assert_allclose(sketched, exact, atol=4 / 1000**0.5)


def test_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least two mini-batches\. Received 1 images in 16 batches"):
        last(agreement(build(SMALL), *batch(1)))


@pytest.mark.parametrize(("plain", "low", "high"), [(True, -0.05, 0.1), (False, 0.5, 0.8)])
def test_shortcuts_make_batches_agree(plain: bool, low: float, high: float) -> None:
    """Reference figures for 16 batches of 64: plain-20 0.02, ResNet-20 0.66; here 4 batches of 32."""
    spec = plain_twin(cifar(20)) if plain else cifar(20)
    assert low < mean_cosine(last(agreement(build(spec), *noise_batch(spec, 128), batches=4))) < high


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "cosine"), [(True, 0.0), (False, 0.87)])
def test_reference_figures_at_depth_56(plain: bool, cosine: float) -> None:
    """Means over three seeds elsewhere; one seed here, and a residual net's vary by some 0.05 (`analyses --table`)."""
    spec = plain_twin(cifar(56)) if plain else cifar(56)
    found = mean_cosine(last(agreement(build(spec), *noise_batch(spec, 1024))))
    assert found == pytest.approx(cosine, abs=0.03 if plain else 0.1)
