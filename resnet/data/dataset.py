"""Data sets that stay in memory as one uint8 tensor, and their augmentation in batches."""

import dataclasses
import os
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet.data import cifar, shapes
from resnet.data.npz import read_npz
from resnet.data.pictures import read_folder
from resnet.data.sizes import check_memory, check_size
from resnet.data.walk import apart, hidden, readable
from resnet.errors import Refused
from resnet.files import FOLDERS

CHUNK = 4096  # images resized or counted at once
PAD = 4  # pixels around an image that is cropped at random
FOLDER_SIZE = 32  # pixels of a folder's pictures unless another size is asked for


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images uint8 (N, C, S, S), labels int64 (N,), and where they are known the objects' masks bool (N, S, S)."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    source: str = ""  # where the pixels come from
    notes: tuple[str, ...] = ()  # sentences: what was changed in reading them, or left out
    train_masks: Tensor | None = None
    test_masks: Tensor | None = None
    pixels: tuple[tuple[float, ...], ...] = ()  # a mean and deviation by channel that stand for its own

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def size(self) -> int:
        """Pixels, square."""
        return self.train_images.shape[-1]

    @property
    def mean(self) -> Tensor:
        """Of the training images in 0..1, float32 (C,), if it was given no others."""
        return self._moments[0]

    @property
    def std(self) -> Tensor:
        """Of the training images in 0..1, float32 (C,); at least 1/255, so that one can divide by it."""
        return self._moments[1]

    def test_batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Test images float32 (N, C, S, S), normalised by channel, the same ones each time, and their labels (N,)."""
        images, labels = some_tests(self, count)
        return normalise(images, self.mean, self.std), labels

    def samples(self, count: int) -> tuple[Tensor, Tensor]:
        """About `count` test images uint8 (N, C, S, S), as many of each class, and their labels (N,)."""
        each = max(1, count // self.classes)
        chosen = torch.cat([torch.where(self.test_labels == label)[0][:each] for label in range(self.classes)])
        return self.test_images[chosen], self.test_labels[chosen]

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.pixels:
            mean, std = map(torch.tensor, self.pixels)
            return mean, std
        counts = torch.zeros(self.channels, 256, dtype=torch.float64)
        for chunk in self.train_images.split(CHUNK):
            for channel in range(self.channels):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        values = torch.arange(256, dtype=torch.float64) / 255
        shares = counts / counts.sum(1, keepdim=True)  # (C, 256)
        mean = shares @ values
        variance = (shares * (values - mean[:, None]) ** 2).sum(1)
        return mean.float(), variance.sqrt().clamp_min(1 / 255).float()

    @cached_property
    def mean_image(self) -> Tensor:
        """Of the training images in 0..1, float32 (C, S, S)."""
        total = torch.zeros(self.train_images.shape[1:], dtype=torch.float64)
        for chunk in self.train_images.split(CHUNK):
            total += chunk.sum(0, dtype=torch.int64)
        return (total / (255 * len(self.train_images))).float()

    @cached_property
    def fingerprint(self) -> int:
        """CRC-32 of the training images and labels: equal for equal data."""
        pixels = zlib.crc32(self.train_images.contiguous().numpy().data)
        return zlib.crc32(self.train_labels.numpy().data, pixels)

    def resized(self, size: int) -> "Dataset":
        """The same with `size` x `size` pixels, bilinear, antialiased; Refused where no net or memory takes it."""
        if size == self.size:
            return self
        check_size(size)
        check_memory(len(self.train_images) + len(self.test_images), self.channels, size)
        return dataclasses.replace(
            self,
            train_images=_resize(self.train_images, size),
            test_images=_resize(self.test_images, size),
            train_masks=_resize_masks(self.train_masks, size),
            test_masks=_resize_masks(self.test_masks, size),
        )

    def subset(self, train: int) -> "Dataset":
        """`train` training images, the same ones each time and as balanced as the classes allow; all test images."""
        keep = balanced(self.train_labels, train)
        if len(keep) == len(self.train_labels):
            return self
        images, labels, masks = self.train_images[keep], self.train_labels[keep], _rows(self.train_masks, keep)
        return dataclasses.replace(self, train_images=images, train_labels=labels, train_masks=masks)

    def sample(self, rows: Sequence[int]) -> "Dataset":
        """The test images of these rows, beside a single training image."""
        chosen = torch.tensor(rows)
        images, labels, masks = self.test_images[chosen], self.test_labels[chosen], _rows(self.test_masks, chosen)
        return dataclasses.replace(self.subset(1), test_images=images, test_labels=labels, test_masks=masks)


def _rows(masks: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if masks is None else masks[rows]


def balanced(labels: Tensor, count: int) -> Tensor:
    """The rows of `count` images, in order: the same ones each time, as many of each class as the classes allow.

    labels (N,) -> int64 (min(count, N),). Refused where `count` is less than 1.
    """
    if count < 1:
        raise Refused("At least one training image is needed.", count, "a larger number")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    labels = labels[shuffled]
    by_class = labels.argsort(stable=True)
    first = torch.searchsorted(labels[by_class], labels[by_class])  # where each image's class begins
    rank = torch.empty_like(first)
    rank[by_class] = torch.arange(len(labels)) - first
    return shuffled[rank.argsort(stable=True)[:count]].sort().values


def _resize(images: Tensor, size: int) -> Tensor:
    out = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for old, new in zip(images.split(CHUNK), out.split(CHUNK), strict=True):
        new.copy_(F.interpolate(old, (size, size), mode="bilinear", antialias=True))
    return out


def _resize_masks(masks: Tensor | None, size: int) -> Tensor | None:
    return None if masks is None else _resize(masks[:, None].to(torch.uint8) * 255, size)[:, 0] > 127


def _shapes() -> Dataset:
    parts: dict[str, Any] = {}
    for seed, (part, count) in enumerate((("train", 5000), ("test", 1000))):
        for field, array in zip(("images", "labels", "masks"), shapes.draw(count, seed), strict=True):
            parts[f"{part}_{field}"] = torch.from_numpy(array)
    return Dataset("shapes", class_names=tuple(shapes.SHAPES), source="Shapes drawn by this program.", **parts)


def _cifar10() -> Dataset:
    path = data_folder() / "cifar10.npz"
    if not path.exists():
        ways = f"Get it with `python -m resnet data cifar10`, put cifar10.npz into {path.parent}"
        raise Refused(f"CIFAR-10 is not here yet. {ways}, or choose the data set shapes.")
    return Dataset("cifar10", **read_npz(path))


DATASETS: dict[str, Callable[[], Dataset]] = {"shapes": _shapes, "cifar10": _cifar10}


def data_folder() -> Path:
    """Where data sets lie: $RESNET_DATA_DIR, or resnet-explorer/data in the user's cache folder."""
    if own := os.environ.get("RESNET_DATA_DIR"):
        return Path(os.path.expanduser(own))
    return FOLDERS.user_cache_path / "data"


def available() -> list[str]:
    """What a page may offer: the registry's names, then all .npz files and folders in `data_folder`."""
    return [*DATASETS, *_own()]


def _own() -> dict[str, Path]:
    """By the names that they go by, the .npz files and folders in `data_folder`."""
    try:
        paths = {path.name: path for path in data_folder().iterdir() if not hidden(path.name)}
        names = apart(name for name, path in paths.items() if _is_npz(path) or path.is_dir())
    except OSError:  # no such folder, or it may not be read
        return {}
    return {shown: paths[name] for name, shown in names.items() if shown not in (*DATASETS, "cifar10.npz")}


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


def load(name: str, size: int | None = None, train: int | None = None) -> Dataset:
    """The data set of that name from `available`, or at that path, with `train` training images of `size` pixels.

    Refused where it cannot be had. For a name that a stranger chose, see `load_offered`.
    """
    if size is not None:
        check_size(size)
    data = DATASETS[name]() if name in DATASETS else _read(name, size or FOLDER_SIZE)
    data = data if train is None else data.subset(train)
    return data if size is None else data.resized(size)


def load_tests(name: str, size: int) -> Dataset:
    """As `load`, for a test alone: of a folder only its part for tests is read, and without parts all is tested on."""
    check_size(size)
    data = DATASETS[name]() if name in DATASETS else _read(name, size, tests_only=True)
    return data.resized(size)


def load_offered(name: str, size: int | None = None, train: int | None = None) -> Dataset:
    """As `load`, but only what `available` lists: no path leads out of `data_folder`."""
    check_offered(name)
    return load(name, size, train)


def check_offered(name: str) -> None:
    """Refused for a name that `available` does not list."""
    offered = available()
    if name not in offered:
        raise Refused(f"There is no data set {name!r} here.", choices=", ".join(offered))


def path_of(name: str) -> Path:
    """The path of a data set that `available` lists, else `name` as a path itself. Refused where that is no UTF-8."""
    if found := _own().get(name):
        return found
    if readable(name) != name:
        raise Refused("The path of a data set must be UTF-8. Rename the folder.", readable(name))
    return Path(os.path.expanduser(name))


def _read(name: str, size: int, tests_only: bool = False) -> Dataset:
    path = path_of(name)
    try:
        if name and path.is_dir():
            return Dataset(name, **read_folder(path, size, tests_only))
        if _is_npz(path):
            return Dataset(name, **read_npz(path))
    except (OSError, ValueError) as error:
        raise error if isinstance(error, Refused) else Refused(f"{name!r} cannot be read ({error}).") from None
    others = "the path of an .npz file or of a folder of class folders"
    raise Refused(f"There is no data set {name!r}.", choices=f"{', '.join(available())}, or {others}")


def download_cifar10() -> Generator[tuple[int, int], None, None]:
    """Download CIFAR-10 into `data_folder`; yields (bytes so far, bytes in all) about 5 times a second; Refused."""
    return cifar.download(data_folder())


def draw_crops(count: int, generator: torch.Generator, pad: int = PAD) -> Tensor:
    """For each of `count` images its crop's top and left in the padded image, 1 if it is flipped: int64 (3, N)."""
    shifts = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
    return torch.cat([shifts, torch.randint(0, 2, (1, count), generator=generator)])


def crop(images: Tensor, crops: Tensor, pad: int = PAD) -> Tensor:
    """Each image flipped or not and cropped from itself with `pad` pixels of 0 around (He 2015, 4.2).

    (N, C, S, S) -> the same shape; `crops` as `draw_crops` gives them, on the device of the images.
    """
    n, c, s, _ = images.shape
    wide = s + 2 * pad
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left, flip = crops[:, :, None]  # (N, 1) each
    line = torch.arange(s, device=images.device)
    columns = left + torch.where(flip == 1, s - 1 - line, line)  # (N, S)
    index = (wide * (top + line))[:, :, None] + columns[:, None, :]  # (N, S, S)
    index = index.view(n, 1, s * s).expand(n, c, s * s)
    return padded.view(n, c, wide * wide).gather(2, index).view(n, c, s, s)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images / 255 - mean) / std: uint8 (N, C, S, S) -> float32 of the same shape and memory layout.

    mean and std: by channel (C,), or by pixel (C, S, S).
    """
    mean, std = (255 * (m if m.dim() == 3 else m[:, None, None]).to(images.device) for m in (mean, std))
    return images.float().sub_(mean).div_(std)


def some_tests(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """`count` test images uint8 (N, C, S, S), the same ones each time, and their labels (N,)."""
    chosen = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))[:count]
    return data.test_images[chosen], data.test_labels[chosen]
