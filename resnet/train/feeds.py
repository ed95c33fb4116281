"""The batches of a training, each a function of (seed, step): what a step reads and how it becomes images."""

import signal
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from resnet.data.blanking import blank, draw_patches
from resnet.data.dataset import Dataset, crop, draw_crops, normalise
from resnet.data.folder import TEST, Folder, Key, Pictures, checked, stacked
from resnet.data.source import Source
from resnet.devices import autocast, cores
from resnet.nets.model import memory_format
from resnet.seeds import Stream, generator
from resnet.train import distributed
from resnet.train.augment import Augment
from resnet.train.recipes import Recipe

TEST_BATCH = 500
PLANNED = 64  # steps whose draws go to the device at once
MAX_LOADERS = 8  # processes that decode for each training process


class Feed(Protocol):
    """Where `fit` takes its images from."""

    per_epoch: int
    test_labels: Tensor  # (N,), on the CPU

    def inputs(self, first: int, last: int) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        """For the steps from `first` to `last` of one epoch what `prepare` takes, and a CRC-32 of the whole batch."""

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) and labels (N,) on the device, which nothing waits for."""

    def tests(self) -> Iterator[Tensor]:
        """The test images in their order, by batches, on the device; batch i is read for process i mod size alone."""

    def reader(self, model: nn.Module) -> nn.Module:
        """The part of the model that reads what `prepare` and `tests` give."""


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches only; the images left over differ from epoch to epoch."""
    return max(1, images // batch)


def moments(data: Source, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The mean and deviation that `normalise` takes."""
    if recipe.scaling == "pixel":
        return data.mean_image, torch.ones(data.channels)
    return data.mean, data.std


def _hashed(recipe: Recipe, step: int, crc: int) -> int:
    """The CRC-32 goes on over what the step's augmentations draw from; without any it stays."""
    asked = [*recipe.augmentations.items()]
    return zlib.crc32(f"{asked} {recipe.seed} {step}".encode(), crc) if asked else crc


def _patches(recipe: Recipe, count: int, step: int) -> Tensor:
    """int64 (1, count): the patch to blank in each image of a step's batch; (0, count) where the recipe blanks none."""
    if not recipe.mask:
        return torch.empty(0, count, dtype=torch.int64)
    return draw_patches(count, generator(recipe.seed, Stream.PATCHES, step))[None]


class Resident:
    """All images on the device as uint8. Twins with one seed get the same images with the same crops."""

    def __init__(self, data: Dataset, recipe: Recipe, device: torch.device, layout: torch.memory_format) -> None:
        self.images, self.labels = data.train_images.to(device), data.train_labels.to(device)
        self.test_images, self.test_labels = data.test_images, data.test_labels
        self.mean, self.std = (moment.to(device) for moment in moments(data, recipe))
        self.recipe, self.device, self.layout, self.fingerprint = recipe, device, layout, data.fingerprint
        self.per_epoch = steps_per_epoch(len(self.images), recipe.batch)
        self.mine = distributed.shard(min(recipe.batch, len(self.images)))
        self.augment = Augment(recipe, data.channels, data.classes)

    def inputs(self, first: int, last: int) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        epoch, batch = first // self.per_epoch, self.recipe.batch
        order = torch.randperm(len(self.images), generator=generator(self.recipe.seed, Stream.ORDER, epoch))
        for begin in range(first, last, PLANNED):
            rows = []
            for step in range(begin, min(last, begin + PLANNED)):
                chosen = order[step % self.per_epoch * batch :][:batch]
                rows.append(self._row(chosen, step))
            moved = torch.stack(rows)[:, :, self.mine].to(self.device)
            for step, (row, on_device) in enumerate(zip(rows, moved, strict=True), begin):
                yield (on_device,), _hashed(self.recipe, step, zlib.crc32(row.numpy().data, self.fingerprint))

    def _row(self, chosen: Tensor, step: int) -> Tensor:
        """int64 (rows, N): the image; where they are wanted its crop's top, left and flip, and the patch to blank."""
        rows = [chosen[None]]
        if self.recipe.augment:
            rows.append(draw_crops(len(chosen), generator(self.recipe.seed, Stream.CROPS, step)))
        return torch.cat([*rows, _patches(self.recipe, len(chosen), step)])

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        (row,) = inputs
        x = normalise(self.augment.pixels(self.images[row[0]]), self.mean, self.std)
        if self.recipe.augment:
            x = crop(x, row[1:4])
        if self.recipe.mask:
            x = blank(x, row[-1])
        x, labels = self.augment.pairs(self.augment.numbers(x), self.labels[row[0]])
        return x.contiguous(memory_format=self.layout), labels

    def tests(self) -> Iterator[Tensor]:
        return self._scaled(self.test_images, TEST_BATCH)

    def reader(self, model: nn.Module) -> nn.Module:
        return model

    def _scaled(self, images: Tensor, batch: int) -> Iterator[Tensor]:
        for some in images.split(batch):
            x = normalise(some.to(self.device), self.mean, self.std)
            yield x.contiguous(memory_format=self.layout)


class Features(Resident):
    """Images whose every layer but the last is computed once, for nets of which only the last one is trained.

    Each image is the same at each step (`Recipe.still`); hashes are those of `Resident`.
    """

    def __init__(
        self, data: Dataset, recipe: Recipe, device: torch.device, layout: torch.memory_format, model: nn.Sequential
    ) -> None:
        super().__init__(data, recipe, device, layout)
        body = _layers(model)[:-1].eval()

        def computed(images: Tensor) -> Tensor:
            with torch.no_grad(), autocast(device, recipe.precision):
                return torch.cat([body(x).float() for x in self._scaled(images, recipe.batch)])  # (N, C)

        self.features, self.of_tests = computed(data.train_images), computed(data.test_images)

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        (row,) = inputs
        return self.features[row[0]], self.labels[row[0]]

    def tests(self) -> Iterator[Tensor]:
        return iter(self.of_tests.split(TEST_BATCH))

    def reader(self, model: nn.Module) -> nn.Module:
        return _layers(model)[-1:]  # its weights have the names that they have in the model


class _Plan:
    """The batches that the loader's processes read next."""

    batches: Iterator[list[Key]] = iter(())

    def __iter__(self) -> Iterator[list[Key]]:
        return self.batches


def _leave_signals_alone(_: int) -> None:
    """A loader's process ends when its parent does, which alone heeds Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Streaming:
    """A Feed of pictures on the disk: RandomResizedCrop and flip in training, the centre in tests (torchvision's).

    At most two batches per loader wait in memory, as uint8; they become numbers on the device.
    """

    def __init__(
        self,
        folder: Folder,
        recipe: Recipe,
        device: torch.device,
        layout: torch.memory_format,
        workers: int | None = None,
    ) -> None:
        self.folder, self.recipe, self.device, self.layout = folder, recipe, device, layout
        self.test_labels, self.fingerprint = folder.test_labels, folder.fingerprint
        self.mean, self.std = (moment.to(device) for moment in moments(folder, recipe))
        self.per_epoch = steps_per_epoch(len(folder.train_labels), recipe.batch)
        self.mine = distributed.shard(min(recipe.batch, len(folder.train_labels)))
        self.augment = Augment(recipe, folder.channels, folder.classes)
        self.plan = _Plan()
        workers = min(MAX_LOADERS, cores(distributed.processes_here())) if workers is None else workers
        self.loader = DataLoader(
            Pictures(folder, recipe.seed, recipe.augment),
            batch_sampler=self.plan,
            num_workers=workers,
            collate_fn=stacked,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_alone,
            generator=torch.Generator(),  # the loader draws from it, and PyTorch's own stays
            persistent_workers=workers > 0,
        )

    def inputs(self, first: int, last: int) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        epoch, batch, labels = first // self.per_epoch, self.recipe.batch, self.folder.train_labels
        order = torch.randperm(len(labels), generator=generator(self.recipe.seed, Stream.ORDER, epoch))
        begins = [step % self.per_epoch * batch for step in range(first, last)]
        mine = (order[begin:][:batch][self.mine] for begin in begins)
        self.plan.batches = ([(epoch, index) for index in part.tolist()] for part in mine)
        crc = zlib.crc32(np.array([self.recipe.seed, epoch]).data, self.fingerprint)
        for begin, images in zip(begins, self.loader, strict=True):
            chosen = order[begin:][:batch]
            step = epoch * self.per_epoch + begin // batch
            patches = _patches(self.recipe, len(chosen), step)
            moved = (checked(images), labels[chosen[self.mine]], *patches[:, self.mine])
            hashed = zlib.crc32(patches.numpy().data, zlib.crc32(chosen.numpy().data, crc))
            yield tuple(self._moved(value) for value in moved), _hashed(self.recipe, step, hashed)

    def _moved(self, value: Tensor) -> Tensor:
        return value.to(self.device, non_blocking=True)

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        images, labels, *patches = inputs
        x = normalise(self.augment.pixels(images), self.mean, self.std)
        if patches:
            x = blank(x, *patches)
        x, labels = self.augment.pairs(self.augment.numbers(x), labels)
        return x.contiguous(memory_format=self.layout), labels

    def tests(self) -> Iterator[Tensor]:
        size, rank = distributed.size(), distributed.rank()
        parts = torch.arange(len(self.test_labels)).split(max(1, min(TEST_BATCH, self.recipe.batch) // size))
        self.plan.batches = ([(TEST, index) for index in part.tolist()] for part in parts[rank::size])
        loaded = iter(self.loader)
        for number, part in enumerate(parts):
            if number % size == rank:
                x = normalise(self._moved(checked(next(loaded))), self.mean, self.std)
                yield x.contiguous(memory_format=self.layout)
            else:
                yield torch.empty(len(part), 0)

    def reader(self, model: nn.Module) -> nn.Module:
        return model


FEEDS: dict[type, Callable[..., Feed]] = {Dataset: Resident, Folder: Streaming}


def feed_of(data: Source, recipe: Recipe, device: torch.device, model: nn.Module) -> Feed:
    """The batches of a training of the model by `recipe`. Refused where its scaling needs what the data do not have."""
    layout = memory_format(model)
    if isinstance(data, Dataset) and isinstance(model, nn.Sequential) and recipe.still and _trains_only_the_last(model):
        return Features(data, recipe, device, layout, model)
    return FEEDS[type(data)](data, recipe, device, layout)


def _trains_only_the_last(model: nn.Sequential) -> bool:
    return not any(weight.requires_grad for weight in _layers(model)[:-1].parameters())


def _layers(model: nn.Module) -> nn.Sequential:
    """The model as a chain that can be sliced."""
    return nn.Sequential(OrderedDict(model.named_children()))
