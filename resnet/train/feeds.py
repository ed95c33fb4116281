"""The batches of a training, each a function of (seed, step): what a step reads and how it becomes images."""

import zlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from resnet.data.dataset import Dataset, crop, draw_crops, normalise
from resnet.seeds import Stream, generator
from resnet.train import distributed
from resnet.train.recipes import Recipe

TEST_BATCH = 500
PLANNED = 64  # steps whose draws go to the device at once


class Feed(Protocol):
    """Where `fit` takes its images from; `train_images` and `test_images` are counts."""

    per_epoch: int
    test_labels: Tensor  # (N,), on the CPU

    def inputs(self, first: int, last: int) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        """For the steps from `first` to `last` of one epoch what `prepare` takes, and a CRC-32 of the whole batch."""

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) and labels (N,) on the device, which nothing waits for."""

    def tests(self) -> Iterator[Tensor]:
        """The test images in their order, by batches, on the device; batch i is read for process i mod size alone."""


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches only; the images left over differ from epoch to epoch."""
    return max(1, images // batch)


class Pixels(Protocol):
    """What a data set tells of its pixels in 0..1: by channel (C,), by pixel (C, S, S)."""

    @property
    def channels(self) -> int: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def std(self) -> Tensor: ...
    @property
    def mean_image(self) -> Tensor: ...


def moments(data: Pixels, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The mean and deviation that `normalise` takes."""
    if recipe.scaling == "pixel":
        return data.mean_image, torch.ones(data.channels)
    return data.mean, data.std


class Resident:
    """All images on the device as uint8. Twins with one seed get the same images with the same crops."""

    def __init__(self, data: Dataset, recipe: Recipe, device: torch.device, layout: torch.memory_format) -> None:
        self.images, self.labels = data.train_images.to(device), data.train_labels.to(device)
        self.test_images, self.test_labels = data.test_images, data.test_labels
        self.mean, self.std = (moment.to(device) for moment in moments(data, recipe))
        self.recipe, self.device, self.layout, self.fingerprint = recipe, device, layout, data.fingerprint
        self.per_epoch = steps_per_epoch(len(self.images), recipe.batch)
        self.mine = distributed.share(min(recipe.batch, len(self.images)))

    def inputs(self, first: int, last: int) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        epoch, batch = first // self.per_epoch, self.recipe.batch
        order = torch.randperm(len(self.images), generator=generator(self.recipe.seed, Stream.ORDER, epoch))
        for begin in range(first, last, PLANNED):
            rows = []
            for step in range(begin, min(last, begin + PLANNED)):
                chosen = order[step % self.per_epoch * batch :][:batch]
                rows.append(self._row(chosen, step))
            moved = torch.stack(rows)[:, :, self.mine].to(self.device)
            for row, on_device in zip(rows, moved, strict=True):
                yield (on_device,), zlib.crc32(row.numpy().data, self.fingerprint)

    def _row(self, chosen: Tensor, step: int) -> Tensor:
        """int64 (4, N): the image, and its crop's top, left and flip."""
        if not self.recipe.augment:
            return chosen[None].contiguous()
        return torch.cat([chosen[None], draw_crops(len(chosen), generator(self.recipe.seed, Stream.CROPS, step))])

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        (row,) = inputs
        x = normalise(self.images[row[0]], self.mean, self.std)
        if self.recipe.augment:
            x = crop(x, row[1:])
        return x.contiguous(memory_format=self.layout), self.labels[row[0]]

    def tests(self) -> Iterator[Tensor]:
        for images in self.test_images.split(TEST_BATCH):
            x = normalise(images.to(self.device), self.mean, self.std)
            yield x.contiguous(memory_format=self.layout)
