"""A trained run opened: its net, and pictures as that net was trained to see them."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from resnet.data.dataset import normalise, some_tests
from resnet.data.folder import RESIZE
from resnet.data.photos import picture_pixels
from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.nets.model import ResNet
from resnet.runs.prepare import load_data
from resnet.runs.store import Run
from resnet.runs.weights import load_at_step


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run's net on the CPU, with the weights after `step` (None where its records do not say it)."""

    run: Run
    model: ResNet
    step: int | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.run.class_names()

    @cached_property
    def inputs(self) -> Inputs:
        """As `inputs_of` has them. Refused."""
        return inputs_of(self.run)

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the pixels in 0..1 as in training: by channel (C,), or by pixel (C, S, S). Refused."""
        return moments_of(self.inputs)

    def prepare(self, pixels: np.ndarray | Tensor) -> Tensor:
        """uint8 (N, C, S, S) -> float32 (N, C, S, S), normalised as the training images were."""
        return normalise(torch.as_tensor(pixels), *self.moments)

    def test_batch(self, count: int) -> tuple[Tensor, Tensor]:
        """As the function `test_batch`, of the run."""
        return test_batch(self.run, count)


def test_batch(run: Run, count: int) -> tuple[Tensor, Tensor]:
    """Prepared test images (N, C, S, S), the same ones each time, and their labels (N,); N is `count` at most.

    Where the run's data set is not here or stays on the disk, the few pictures in the run's folder.
    """
    with suppress(Refused):
        images, labels = some_tests(load_data(run.job), count)
        return normalise(images, *moments_of(inputs_of(run))), labels
    known, rows, pictures = run.test_set()
    net = run.job.net
    found = [picture_pixels(picture, net.image_size, net.in_channels) for picture in pictures]
    if not found:
        raise Refused(f"The data set of {run.id} is not here, and its folder holds no pictures.")
    return normalise(torch.stack(found), *moments_of(inputs_of(run))), torch.from_numpy(known[rows]).long()


def inputs_of(run: Run) -> Inputs:
    """Mean and deviation as in training, the classes' names, and how a photo is cut. Refused."""
    info = run.info()
    try:
        resize = RESIZE if run.job.stream else 1.0
        return Inputs.of(info["mean"], info["std"], run.class_names(), resize, began=run.job.start)
    except (KeyError, ValueError, TypeError, OverflowError):
        what = f"The file info.json of {run.id} is missing or damaged, so no image can be prepared."
        raise Refused(what) from None


def moments_of(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Mean and deviation as tensors, for `normalise`."""
    return torch.tensor(inputs.mean), torch.tensor(inputs.std)


def open_run(run: Run, epoch: int | None = None) -> OpenedRun:
    """With the weights after that epoch, or the last ones. Refused where the run has none yet, or none of the epoch."""
    return OpenedRun(run, *load_at_step(run, epoch))
