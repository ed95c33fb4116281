"""Noise that is the same each time."""

import torch

from resnet.analysis.batches import noise_batch
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
