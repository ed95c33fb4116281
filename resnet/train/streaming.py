"""Pictures that stay on the disk: listed once, and decoded by DataLoader's processes as the steps need them."""

import os
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from resnet.data.dataset import Dataset, check_offered, normalise, path_of
from resnet.data.readers import check_size, class_folders, open_picture, picture_files
from resnet.devices import cores
from resnet.errors import Refused
from resnet.seeds import Stream, generator, seed_of
from resnet.train import distributed
from resnet.train.feeds import TEST_BATCH, moments, steps_per_epoch
from resnet.train.recipes import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of RGB in 0..1
DEFAULT_SIZE = 224
DECODED = 4  # times the net's pixels, so that the smallest crop, 8 % of a picture, still has about the net's own
MAX_LOADERS = 8  # processes that decode for each training process
TEST = -1  # the epoch of a test picture: it is cut the same each time
Key = tuple[int, int]  # epoch and index


@dataclass(frozen=True, eq=False)
class Folder:
    """To `Streaming` what a Dataset is to `Resident`: files (N,) as bytes below `root`, and labels int64 (N,)."""

    name: str
    root: Path
    size: int
    train_files: np.ndarray
    train_labels: Tensor
    test_files: np.ndarray
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    channels: int = 3

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def source(self) -> str:
        return f"The pictures in the folder {self.root.name}, streamed."

    @property
    def mean_image(self) -> Tensor:
        raise Refused("The mean image of streamed pictures is not known. Choose the scaling channel.")

    @property
    def fingerprint(self) -> int:
        """CRC-32 of the training files' names and labels; their pixels are not read for it."""
        return zlib.crc32(self.train_labels.numpy().data, zlib.crc32(self.train_files.tobytes()))

    def sample(self, rows: list[int]) -> Dataset:
        """The test pictures of these rows, as the tests see them; the first of them stands for the training set."""
        pictures, labels = Pictures(self, 0, False), self.test_labels[rows]
        test = _checked(_stacked([pictures[TEST, index] for index in rows]))
        return Dataset(self.name, test[:1], labels[:1], test, labels, self.class_names, self.source)


def open_folder(
    name: str,
    size: int | None = None,
    train: int | None = None,
    only_offered: bool = False,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Folder:
    """List folder/train/<class>/* and folder/val/<class>/* (or test/), with `train` training pictures.

    `name` is one that `available` lists, or a path where `only_offered` is false. Refused with a sentence.
    """
    check_size(size or DEFAULT_SIZE)
    if only_offered:
        check_offered(name)
    root = path_of(name).resolve()
    try:
        parts = {path.name: path for path in class_folders(root)}
        held_out = parts.get("val") or parts.get("test")
        if "train" not in parts or held_out is None:
            raise Refused(f"{name} can be streamed once it has train/ and val/, with a folder in each for each class.")
        names = tuple(path.name for path in class_folders(parts["train"]))
        listed = [_listed(path, root, names) for path in (parts["train"], held_out)]
    except OSError as error:
        raise Refused(f"The folder {name!r} cannot be read ({error.strerror or error}).") from None
    (files, labels), (test_files, test_labels) = listed
    kept = slice(None) if train is None else _balanced(labels, train)
    moment = torch.tensor(mean), torch.tensor(std)
    return Folder(name, root, size or DEFAULT_SIZE, files[kept], labels[kept], test_files, test_labels, names, *moment)


def _listed(part: Path, root: Path, names: tuple[str, ...]) -> tuple[np.ndarray, Tensor]:
    """A part's files, relative to `root`, and labels; links that lead out are left out."""
    files: list[bytes] = []
    labels: list[int] = []
    for folder in class_folders(part):
        if folder.name not in names:
            raise Refused(f"{part.name} has pictures of {folder.name}, and train has none. Add some, or remove them.")
        inside = sorted(path.name for path in picture_files(folder, root))
        found = [os.fsencode(f"{part.name}/{folder.name}/{name}") for name in inside]
        files, labels = files + found, labels + [names.index(folder.name)] * len(found)
    if len(names) < 2 or not files:
        raise Refused(f"{part.name} must hold PNG, JPEG or WebP pictures in folders of two or more classes.")
    return np.array(files), torch.tensor(labels)  # bytes of one width: one block of memory that all processes share


def _balanced(labels: Tensor, train: int) -> Tensor:
    """The indices of `train` pictures, chosen as `Dataset.subset` does."""
    numbers = torch.arange(len(labels))
    return Dataset("", numbers, labels, numbers[:0], labels[:0], ()).subset(train).train_images


class Pictures(Indexed[Tensor | str]):
    """By (epoch, index) a picture, uint8 (3, S, S), that depends on these and the seed alone, or what is wrong."""

    def __init__(self, folder: Folder, seed: int, augment: bool) -> None:
        from torchvision.transforms import v2  # slow to import

        self.root, self.files, self.size, self.seed = folder.root, folder.train_files, folder.size, seed
        self.test_files = folder.test_files
        size = folder.size
        centre = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()]
        drawn = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        self.centred, self.drawn = v2.Compose(centre), v2.Compose(drawn if augment else centre)

    def __getitem__(self, key: Key) -> Tensor | str:
        epoch, index = key
        name = os.fsdecode((self.test_files if epoch == TEST else self.files)[index])
        try:
            photo = open_picture(self.root / name, self.root, at_least=DECODED * self.size)
        except Refused as error:
            return str(error)
        if epoch == TEST:
            return self.centred(photo)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed_of(self.seed, Stream.PICTURES, epoch, index))
            return self.drawn(photo)


def _stacked(pictures: list[Tensor | str]) -> Tensor | str:
    """uint8 (N, 3, S, S), or the first sentence."""
    wrong = next((picture for picture in pictures if isinstance(picture, str)), None)
    return wrong or torch.stack([picture for picture in pictures if isinstance(picture, Tensor)])


def _checked(batch: Tensor | str) -> Tensor:
    if isinstance(batch, str):
        raise Refused(batch)
    return batch


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
        self.mine = distributed.share(min(recipe.batch, len(folder.train_labels)))
        self.plan = _Plan()
        workers = min(MAX_LOADERS, cores(distributed.processes_here())) if workers is None else workers
        self.loader = DataLoader(
            Pictures(folder, recipe.seed, recipe.augment),
            batch_sampler=self.plan,
            num_workers=workers,
            collate_fn=_stacked,
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
            moved = (_checked(images), labels[chosen[self.mine]])
            yield tuple(self._moved(value) for value in moved), zlib.crc32(chosen.numpy().data, crc)

    def _moved(self, value: Tensor) -> Tensor:
        return value.to(self.device, non_blocking=True)

    def prepare(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = inputs
        return normalise(images, self.mean, self.std).contiguous(memory_format=self.layout), labels

    def tests(self) -> Iterator[Tensor]:
        size, rank = distributed.size(), distributed.rank()
        parts = torch.arange(len(self.test_labels)).split(max(1, min(TEST_BATCH, self.recipe.batch) // size))
        self.plan.batches = ([(TEST, index) for index in part.tolist()] for part in parts[rank::size])
        loaded = iter(self.loader)
        for number, part in enumerate(parts):
            if number % size == rank:
                yield self.prepare(self._moved(_checked(next(loaded))), part)[0]
            else:
                yield torch.empty(len(part), 0)
