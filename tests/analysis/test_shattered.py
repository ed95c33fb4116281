"""Gradients along a line against finite differences, autocorrelations against closed forms, the paper's nets."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from resnet.analysis.contract import last
from resnet.analysis.shattered import (
    AUTOCORRELATION,
    GRADIENT,
    autocorrelation,
    fully_connected,
    line_gradients,
    on_a_grid,
    shattered,
)
from resnet.nets.model import build
from resnet.nets.spec import plain_twin
from tests.support.unchanged import SMALL, images


def lag_1(table: pd.DataFrame) -> dict[str, float]:
    rows = table[(table.kind == AUTOCORRELATION) & (table.x == 1)]
    return dict(zip(rows.net, rows.value, strict=True))


def test_gradients_are_those_of_finite_differences() -> None:
    """Of the sum over the batch, since a point moves the batch's statistics too."""
    net, step = fully_connected(3, 1.0).double(), 1e-6
    gradients = line_gradients(net, torch.tensor([-2.0]), torch.tensor([2.0]), 9)
    x = torch.linspace(-2, 2, 9).double()[:, None]
    with torch.no_grad():
        moved = [
            [net.train()(x + side * step * torch.eye(9)[i][:, None].double()).sum() for side in (1, -1)]
            for i in range(9)
        ]
    slopes = [4 * float(up - down) / (2 * step) for up, down in moved]  # x = -2 + 4 t
    np.testing.assert_allclose(gradients, slopes, rtol=1e-4)


def test_a_line_between_images_is_straight() -> None:
    """The gradient of a linear net is the same everywhere: w . (end - start)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    start, end = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    gradients = line_gradients(net, start, end, 5, output=2)
    expected = float(net.get_parameter("1.weight")[2].detach() @ (end - start).flatten())
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)


def test_autocorrelations_in_closed_form() -> None:
    wave = np.sin(2 * np.pi * np.arange(4000) / 8)
    np.testing.assert_allclose(autocorrelation(wave), np.cos(2 * np.pi * np.arange(16) / 8), atol=0.005)
    assert autocorrelation(np.array([1.0, 2.0, 4.0])).tolist() == pytest.approx([1, (4 * 1 - 1 * 5) / 42, -4 * 5 / 42])
    noise = np.random.default_rng(0).standard_normal(100_000)
    np.testing.assert_allclose(autocorrelation(noise)[1:], 0, atol=0.015)


def test_a_table_of_any_net() -> None:
    table = last(shattered(build(SMALL), images(6), torch.arange(6)))
    assert list(table.columns) == ["kind", "x", "value"]
    curve, lags = (table[table.kind == kind] for kind in (GRADIENT, AUTOCORRELATION))
    np.testing.assert_allclose(curve.x, np.linspace(0, 1, 6))
    assert curve.value.abs().max() == 1
    assert lags.x.tolist() == [*range(6)]
    np.testing.assert_allclose(lags.value, autocorrelation(curve.value.to_numpy()), atol=1e-6)
    with pytest.raises(ValueError, match=r"Received 2\. Choose 3 images"):
        last(shattered(build(SMALL), images(2), torch.arange(2)))


def test_the_papers_nets_shatter_with_depth_and_shortcuts_mend_it() -> None:
    steps = list(on_a_grid((2, 24), (24,), seeds=range(3)))
    assert [step.share for step in steps] == [pytest.approx(k / 3) for k in (1, 2, 3)]
    table = steps[-1].table
    found = lag_1(table)
    assert list(found) == ["white noise", "brown noise", "plain, 2 layers", "plain, 24 layers", "residual, 24 blocks"]
    assert abs(found["white noise"]) < 0.1
    assert found["brown noise"] > 0.95
    assert found["plain, 2 layers"] > 0.85
    assert abs(found["plain, 24 layers"]) < 0.2
    assert found["residual, 24 blocks"] > 0.6
    assert table.groupby("net", sort=False).plain.first().tolist()[2:] == [True, True, False]
    pd.testing.assert_frame_equal(last(on_a_grid((2, 24), (24,), seeds=range(3))), table)


def test_a_block_is_its_input_and_beta_times_its_branch() -> None:
    net, x = fully_connected(1, 0.1), torch.linspace(-2, 2, 8)[:, None]
    entered = net[0](x)
    torch.testing.assert_close(net[1](entered), entered + 0.1 * fully_connected(1)[1](entered))


def test_real_nets_shatter_too() -> None:
    """Eight layers are enough to see which is which."""
    line = images(64)
    residual, plain = (last(shattered(build(s), line, torch.zeros(64).long())) for s in (SMALL, plain_twin(SMALL)))
    first = [table.value[(table.kind == AUTOCORRELATION) & (table.x == 1)].item() for table in (residual, plain)]
    assert first[0] > first[1]
