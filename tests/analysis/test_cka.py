"""CKA against the brute-force estimator, its invariances, and nets of which the answer is known."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from resnet.analysis.cka import centred_kernel, cka
from resnet.analysis.contract import last
from resnet.nets.model import build
from resnet.nets.spec import plain_twin
from tests.support.unchanged import SMALL, images


def features(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(x: Tensor, y: Tensor) -> float:
    return float((centred_kernel(x) * centred_kernel(y)).sum())


def brute_force(x: Tensor, y: Tensor) -> float:
    """The unbiased estimator as a U-statistic: the mean over all ordered quadruples of different images."""
    k, m = (x @ x.T).numpy(), (y @ y.T).numpy()
    quads = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(len(k)), 4)]
    return float(np.mean(quads))


def formula(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, eq. 5, as in Nguyen 2021."""
    n = len(x)
    k, m = (a @ a.T * (1 - torch.eye(n)) for a in (x, y))
    one = torch.ones(n, dtype=torch.float64)
    total = (
        (k @ m).trace() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    )
    return float(total) / (n * (n - 3))


def square(table: pd.DataFrame) -> np.ndarray:
    return table.pivot(index="row", columns="column", values="cka").to_numpy()


@pytest.mark.parametrize("n", [4, 7])
def test_products_of_centred_kernels_are_the_unbiased_hsic(n: int) -> None:
    x, y = features(n, 3, 0), features(n, 5, 1) + 10
    assert hsic(x, y) == pytest.approx(brute_force(x, y), rel=1e-9)
    assert hsic(x, y) == pytest.approx(formula(x, y), rel=1e-9)


def test_unlike_features_have_an_hsic_of_0_on_average() -> None:
    """Which the biased estimator misses: it grows with the width over the number of images."""
    values = [hsic(features(8, 40, 2 * k), features(8, 40, 2 * k + 1)) for k in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert hsic(features(8, 40, 0), features(8, 40, 0)) > 3 * np.std(values)


def linear(weight: Tensor) -> nn.Sequential:
    """A net of one layer without bias, and one that gives its input back."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = weight
    return nn.Sequential(layer, nn.Identity())


def between(first: nn.Module, second: nn.Module, x: Tensor, batch: int = 64) -> float:
    return float(last(cka(first, second, x, (["0"], ["0"]), batch)).cka.item())


def test_a_rotation_and_a_scale_change_nothing_and_another_map_does() -> None:
    x, same = features(30, 6, 0), linear(torch.eye(6, dtype=torch.float64))
    turn = torch.linalg.qr(features(6, 6, 1))[0]
    assert between(same, linear(turn), x) == pytest.approx(1, abs=1e-12)
    assert between(same, linear(0.01 * turn), x) == pytest.approx(1, abs=1e-12)
    assert between(same, linear(torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 1]).double())), x) < 0.9


def test_batches_are_averaged_before_they_are_divided() -> None:
    x, first, second = features(20, 6, 0), linear(features(4, 6, 1)), linear(features(5, 6, 2))
    with torch.no_grad():
        pairs = [(first(part), second(part)) for part in x.split(10)]
    means = [
        np.mean([formula(*pair) for pair in kind])
        for kind in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    ]
    assert between(first, second, x, batch=10) == pytest.approx(means[0] / np.sqrt(means[1] * means[2]), rel=1e-9)
    assert [step.share for step in cka(first, second, x, (["0"], ["0"]), 6)] == [
        pytest.approx(k / 3) for k in (1, 2, 3)
    ]


def test_a_net_with_itself() -> None:
    model = build(SMALL)
    table = last(cka(model, model, images(12), batch=6))
    matrix = square(table)
    assert list(dict.fromkeys(table.row)) == ["act", "layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    assert (matrix <= 1 + 1e-6).all()


def test_twins_agree_at_the_stem_alone() -> None:
    table = last(cka(build(SMALL), build(plain_twin(SMALL)), images(12)))
    matrix = table.set_index(["row", "column"]).cka
    assert matrix["act", "act"] == pytest.approx(1, abs=1e-6)
    assert matrix["layer2.1", "layer2.1"] < 0.999


def test_a_block_that_is_cut_is_its_input() -> None:
    model = build(SMALL)
    model.get_submodule("layer1.1").mode = "cut"  # type: ignore[assignment]
    table = last(cka(model, model, images(8))).set_index(["row", "column"]).cka
    assert table["layer1.0", "layer1.1"] == pytest.approx(1, abs=1e-6)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Received 3\. Choose 4 or more"):
        last(cka(build(SMALL), build(SMALL), images(3)))
