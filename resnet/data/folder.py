"""A folder of pictures that stay on the disk: listed and looked at once, and each decoded when it is needed."""

import dataclasses
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as Indexed

from resnet.data.dataset import Dataset, balanced, check_offered, path_of
from resnet.data.listing import Listing
from resnet.data.pictures import list_readable, open_picture
from resnet.data.sizes import check_size
from resnet.data.views import Frame, see
from resnet.data.walk import readable
from resnet.errors import Refused
from resnet.seeds import Stream, seed_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of RGB in 0..1
DEFAULT_SIZE = 224
RESIZE = 256 / 224  # of a test picture, before its centre is cut out
DECODED = 4  # times the net's pixels, so that the smallest crop, 8 % of a picture, still has about the net's own
TEST = -1  # the epoch of a test picture: it is cut the same each time
Key = tuple[int, int]  # epoch and index


@dataclass(frozen=True, eq=False)
class Folder(Listing):
    """A Source of the pictures of a listing."""

    name: str
    size: int
    mean: Tensor
    std: Tensor
    channels: int = 3

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def source(self) -> str:
        return f"The pictures in the folder {readable(self.root.name)}, streamed."

    @property
    def mean_image(self) -> Tensor:
        raise Refused("The mean image of streamed pictures is not known.", choices="the scaling channel")

    @property
    def fingerprint(self) -> int:
        """CRC-32 of the training files' names and labels; their pixels are not read for it."""
        return zlib.crc32(self.train_labels.numpy().data, zlib.crc32(self.train_files.tobytes()))

    def sample(self, rows: Sequence[int]) -> Dataset:
        """The test pictures of these rows, as the tests see them; the first of them stands for the training set."""
        pictures, labels = Pictures(self, 0, False), self.test_labels[list(rows)]
        test = checked(stacked([pictures[TEST, index] for index in rows]))
        return Dataset(self.name, test[:1], labels[:1], test, labels, self.class_names, self.source)


def open_folder(
    name: str,
    size: int | None = None,
    train: int | None = None,
    only_offered: bool = False,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Folder:
    """The pictures that `load` would read, listed and looked at once, with `train` training pictures.

    `name` is one that `available` lists, or a path where `only_offered` is false. Refused where it cannot be had.
    """
    check_size(size or DEFAULT_SIZE)
    if only_offered:
        check_offered(name)
    listing = list_readable(path_of(name))
    if train is not None:
        kept = balanced(listing.train_labels, train)
        files, labels = listing.train_files[kept], listing.train_labels[kept]
        listing = dataclasses.replace(listing, train_files=files, train_labels=labels)
    return Folder(**vars(listing), name=name, size=size or DEFAULT_SIZE, mean=torch.tensor(mean), std=torch.tensor(std))


class Pictures(Indexed[Tensor | Refused]):
    """By (epoch, index) a picture, uint8 (3, S, S), that depends on these and the seed alone.

    A Refused is returned, not raised: DataLoader would wrap it in its own error, with the traceback as its text.
    """

    def __init__(self, folder: Folder, seed: int, augment: bool) -> None:
        from torchvision.transforms import v2  # slow to import

        self.root, self.files, self.size, self.seed = folder.root, folder.train_files, folder.size, seed
        self.test_files = folder.test_files
        drawn = v2.Compose([v2.RandomResizedCrop(folder.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        self.drawn = drawn if augment else self.centred

    def centred(self, photo: Image.Image) -> Tensor:
        return torch.from_numpy(see(photo, Frame(self.size, resize=RESIZE)).pixels)

    def __getitem__(self, key: Key) -> Tensor | Refused:
        epoch, index = key
        name = os.fsdecode((self.test_files if epoch == TEST else self.files)[index])
        try:
            photo = open_picture(self.root / name, self.root, at_least=DECODED * self.size)
        except Refused as error:
            return error
        if epoch == TEST:
            return self.centred(photo)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed_of(self.seed, Stream.PICTURES, epoch, index))
            return self.drawn(photo)


def stacked(pictures: list[Tensor | Refused]) -> Tensor | Refused:
    """uint8 (N, 3, S, S), or the first Refused."""
    wrong = next((picture for picture in pictures if isinstance(picture, Refused)), None)
    return wrong or torch.stack([picture for picture in pictures if isinstance(picture, Tensor)])


def checked(batch: Tensor | Refused) -> Tensor:
    if isinstance(batch, Refused):
        raise batch
    return batch
