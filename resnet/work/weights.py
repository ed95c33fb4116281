"""A net with weights, named by plain values so that another process can load it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnet.data.dataset import normalise
from resnet.data.folder import IMAGENET_MEAN, IMAGENET_STD
from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.nets.model import ResNet, build
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.runs.store import Run

if TYPE_CHECKING:  # torchvision is slow to import, and takes 80 MB of each worker
    from resnet.zoo.fitting import Report
    from resnet.zoo.weights import WeightsFile


class Opened(NamedTuple):
    """A net in memory; for weights that are not its own what did not fit; and how its images are prepared, if known."""

    model: ResNet
    report: "Report | None" = None
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Weights:
    """`kind` is one of SOURCES and `name` a seed, a run's id, a version as IMAGENET1K_V2 or a file's path.

    `step` tells a run's checkpoints apart; `partial` loads what fits, and the rest stays at its start.
    """

    kind: str
    name: str
    step: int = 0
    partial: bool = False

    def open(self, spec: NetSpec) -> Opened:
        """The net with these weights; without them where they do not fit. Refused."""
        return SOURCES[self.kind](spec, self)


def of_run(run: Run) -> Weights:
    """The run's newest checkpoint."""
    return Weights("run", run.id, run.checkpoint_step() or 0)


class Model(NamedTuple):
    """A net with weights; `inputs` where the visitor says how images are prepared, because the weights do not."""

    spec: NetSpec
    weights: Weights
    inputs: Inputs | None = None

    @classmethod
    def of(cls, run: Run) -> "Model":
        return cls(run.job.net, of_run(run))

    def open(self) -> Opened:
        """Refused where no weights are loaded."""
        opened = self.weights.open(self.spec)
        if opened.report and not opened.report.loaded:
            raise Refused(f"These are not the weights of {self.spec.name}.")
        return opened._replace(inputs=self.inputs or opened.inputs)


def prepared(pixels: np.ndarray | Tensor, inputs: Inputs | None) -> Tensor:
    """uint8 (N, C, S, S) -> float32 (N, C, S, S), as the net was trained to see them. Refused where that is unknown."""
    if inputs is None:
        raise Refused("It is not known how this net's images are prepared.", choices="a mean and a deviation")
    return normalise(torch.as_tensor(pixels), torch.tensor(inputs.mean), torch.tensor(inputs.std))


# The usual ways to prepare images, for weights that do not say theirs: mean and deviation by channel.
MOMENTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's": (IMAGENET_MEAN, IMAGENET_STD),
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # of its training images
    "0.5 and 0.5 (pixels from -1 to 1)": ((0.5,), (0.5,)),
    "0 and 1 (pixels from 0 to 1)": ((0.0,), (1.0,)),
}


def usual(spec: NetSpec, moments: str) -> Inputs:
    """The net's inputs by an entry of MOMENTS; ImageNet's class names for 1000 classes, else numbers.

    A net with another number of channels gets the average over the colours for each.
    """
    mean, std = MOMENTS[moments]
    if spec.in_channels != len(mean):
        mean, std = (spec.in_channels * (sum(values) / len(values),) for values in (mean, std))
    names = tuple(map(str, range(spec.classes)))
    if (moments, spec.classes) == ("ImageNet's", 1000):
        from resnet.zoo.hub import imagenet_names

        names = imagenet_names()
    return Inputs(mean, std, names)


def _untrained(spec: NetSpec, weights: Weights) -> Opened:
    return Opened(build(spec, int(weights.name)))


def _of_run(spec: NetSpec, weights: Weights) -> Opened:
    from resnet.zoo.weights import WeightsFile

    opened = open_run(runs.find(weights.name))
    if opened.run.job.net == spec:
        return Opened(opened.model, None, opened.inputs)
    return _fitted(spec, WeightsFile(opened.model.state_dict()), weights, opened.inputs)


def _torchvisions(spec: NetSpec, weights: Weights) -> Opened:
    from resnet.zoo.hub import inputs, load_torchvision, offered

    theirs = offered(spec.name)[weights.name]
    return _fitted(spec, load_torchvision(theirs), weights, inputs(theirs))


def _of_file(spec: NetSpec, weights: Weights) -> Opened:
    from resnet.zoo.weights import read

    file = read(Path(weights.name))
    return _fitted(spec, file, weights, file.inputs)


def _fitted(spec: NetSpec, file: "WeightsFile", weights: Weights, inputs: Inputs | None) -> Opened:
    from resnet.zoo.fitting import fit

    model = build(spec)
    return Opened(model, fit(model, file, weights.partial), inputs and inputs.fitted(spec))


SOURCES: dict[str, Callable[[NetSpec, Weights], Opened]] = {
    "seed": _untrained,
    "run": _of_run,
    "torchvision": _torchvisions,
    "file": _of_file,
}
