"""Noise that is the same each time, and how many images fit."""

import pytest
import torch

from resnet.analysis.batches import batch_limit, noise_batch
from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.spec import cifar


def test_noise_is_standard_normal_and_the_same_each_time() -> None:
    images, labels = noise_batch(cifar(20), 64)
    assert images.shape == (64, 3, 32, 32)
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02
    assert set(labels.tolist()) == set(range(10))
    again = noise_batch(cifar(20), 64)
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    assert not torch.equal(images, noise_batch(cifar(20), 64, seed=1)[0])


def test_a_batch_fits_into_the_memory() -> None:
    params, activations = 10**7, 10**7
    count = batch_limit(params, activations)
    assert 12 * params + count * 4 * activations <= WORK_BYTES < 12 * params + (count + 1) * 4 * activations
    assert batch_limit(1000, 1000) == 256


def test_two_images_must_fit() -> None:
    assert batch_limit(0, 5 * 10**8) == 2
    with pytest.raises(Refused, match=r"Received 4\.0 GB for two images\. Choose up to 4 GB"):
        batch_limit(1, 5 * 10**8)
