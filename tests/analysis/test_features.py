"""Activations, kernels and neighbours against what the net computes by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from resnet.analysis.features import activations, kernels, neighbours, pooled
from resnet.nets.model import build
from tests.support.unchanged import SMALL, images, leaves_model_as_found


def test_the_strongest_channels_come_first() -> None:
    model = build(SMALL)
    channels, maps = activations(model, images()[0], "layer2", 5)
    with torch.no_grad():
        whole = model.eval().features(images()[:1])["stage2"][0].numpy()  # (12, 8, 8)
    norms = (whole.astype(float) ** 2).sum((1, 2))
    assert channels.tolist() == np.argsort(-norms)[:5].tolist()
    np.testing.assert_allclose(maps, whole[channels], rtol=1e-5, atol=1e-6)
    assert len(activations(model, images()[0], "layer1", 99)[0]) == 8
    with pytest.raises(ValueError, match="is no maps"):
        activations(model, images()[0], "fc")


def test_kernels_are_on_one_scale_around_half() -> None:
    model = build(SMALL)
    found, weight = kernels(model), model.get_parameter("conv1.weight").detach().numpy()
    assert found.shape == (8, 3, 3, 3)
    assert (found.min(), found.max()) in [(pytest.approx(0), found.max()), (found.min(), pytest.approx(1))]
    np.testing.assert_allclose((found - 0.5) * 2 * np.abs(weight).max(), weight, atol=1e-6)
    nn.init.zeros_(model.get_parameter("conv1.weight"))
    assert (kernels(model) == 0.5).all()
    with pytest.raises(ValueError, match="first layer is none"):
        kernels(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_pooled_features_are_means_over_places() -> None:
    model = build(SMALL)
    with torch.no_grad():
        named = model.eval().features(images())
    torch.testing.assert_close(pooled(model, images(), "layer1"), named["stage1"].mean((2, 3)))
    torch.testing.assert_close(pooled(model, images(), "layer2"), named["pre_logits"])


def test_the_nearest_neighbour_of_a_picture_is_itself() -> None:
    features = pooled(build(SMALL), images(12), "layer2")
    table = neighbours(features[7], features, 3)
    assert list(table.columns) == ["index", "cosine"]
    assert table["index"].iloc[0] == 7
    assert table.cosine.iloc[0] == pytest.approx(1, abs=1e-6)
    assert table.cosine.is_monotonic_decreasing
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    assert table["index"].tolist() == np.argsort(-(unit @ unit[7]))[:3].tolist()


@pytest.mark.parametrize(
    "call", [lambda m: activations(m, images()[0], "layer2"), lambda m: pooled(m, images(), "layer2")]
)
def test_the_net_stays_as_it_was(call) -> None:
    leaves_model_as_found(call, backward=False)
