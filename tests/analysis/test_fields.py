"""Effective receptive fields against closed forms, the profiler's theoretical ones, and brute force."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.contract import last
from resnet.analysis.fields import field_sizes, receptive_fields
from resnet.costs.profiler import profile
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec
from tests.support.unchanged import SMALL, images

LABELS = torch.zeros(4).long()


def maps(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        str(s): f.pivot(index="y", columns="x", values="gradient").to_numpy()
        for s, f in table.groupby("stage", sort=False)
    }


def test_averaging_kernels_give_the_binomial_of_their_convolutions() -> None:
    """Luo 2016, 2.2: uniform kernels, no activation. The field of L 3x3 means is the L-fold convolution of a box."""
    convs = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(4)]
    for conv in convs:
        nn.init.constant_(conv.weight, 1 / 9)
    field = maps(last(receptive_fields(nn.Sequential(*convs), torch.zeros(1, 1, 15, 15), LABELS[:1])))["3"]
    line = np.ones(1)
    for _ in range(4):
        line = np.convolve(line, np.ones(3))
    expected = np.zeros((15, 15))
    expected[3:12, 3:12] = np.outer(line, line) / line.max() ** 2
    np.testing.assert_allclose(field, expected, atol=1e-6)


def test_sizes_count_what_is_above_two_deviations() -> None:
    y, x = np.indices((61, 61))
    gradient = np.exp(-((y - 30) ** 2 + (x - 30) ** 2) / (2 * 6.0**2))
    gradient[:, :3] = 0
    table = pd.DataFrame({"stage": "s", "y": y.ravel(), "x": x.ravel(), "gradient": gradient.ravel()})
    sizes = field_sizes(table).iloc[0]
    area = np.pi * 2 * 6.0**2 * np.log(1 / 0.0455)  # of the disc where a Gaussian of deviation 6 is above 4.55 %
    assert sizes.effective == pytest.approx(area**0.5, rel=0.01)
    assert sizes.theoretical == pytest.approx((61 * 58) ** 0.5)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_box_is_the_one_that_kernels_and_strides_give(block: str) -> None:
    spec = replace(SMALL, image_size=40, block=block, shortcut="B")
    noise = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    sizes = field_sizes(last(receptive_fields(build(spec), noise, LABELS)))
    expected = profile(spec).stages().set_index("stage").receptive_field
    assert [f"{side:g} x {side:g}" for side in sizes.theoretical] == [expected[stage] for stage in sizes.stage]
    assert sizes.effective.is_monotonic_increasing
    assert (sizes.effective < sizes.theoretical).iloc[1:].all()


def test_gradients_are_those_of_one_image_at_a_time() -> None:
    model, total = build(SMALL).eval(), torch.zeros(16, 16)
    for image in images():
        x = image[None].requires_grad_()
        model.features(x)["stage1"][0, :, 8, 8].sum().backward()
        assert x.grad is not None
        total += x.grad.abs().mean((0, 1))
    np.testing.assert_allclose(
        maps(last(receptive_fields(build(SMALL), images(), LABELS)))["stage1"], total / total.max(), atol=1e-6
    )


def test_the_mean_gets_finer_by_batches() -> None:
    steps = list(receptive_fields(build(SMALL), images(20), torch.zeros(20).long()))
    assert [step.share for step in steps] == [pytest.approx(k / 3) for k in (1, 2, 3)]
    assert not steps[0].table.gradient.equals(steps[-1].table.gradient)


def test_clips_are_refused() -> None:
    spec = NetSpec((StageSpec(1, 8),), "basic", stem="3x3", stem_width=8, classes=4, image_size=8, frames=4)
    assert "clips" in ANALYSES["receptive"].reason(build(spec))
    assert ANALYSES["receptive"].reason(build(SMALL)) == ""
    with pytest.raises(ValueError, match="Receptive fields are of images"):
        last(receptive_fields(build(spec), torch.randn(2, 3, 4, 8, 8), LABELS[:2]))
    with pytest.raises(ValueError, match="whose output is maps"):
        last(receptive_fields(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(2, 3, 2, 2), LABELS[:2]))
