"""A net with weights, named by plain values so that another process can load it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from resnet.costs.profiler import Profile
from resnet.data.dataset import normalise
from resnet.data.folder import IMAGENET_MEAN, IMAGENET_STD, RESIZE
from resnet.data.views import Frame
from resnet.errors import Refused, choose
from resnet.nets.inputs import Inputs
from resnet.nets.model import blocks, build
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.opened import inputs_of, moments_of, open_run
from resnet.runs.store import Run
from resnet.work.predict import named_profile

if TYPE_CHECKING:  # torchvision is slow to import, and takes 80 MB of each worker
    from torchvision.models import WeightsEnum

    from resnet.zoo.fitting import Report
    from resnet.zoo.weights import WeightsFile


class Opened(NamedTuple):
    """A net in memory; for weights that are not its own what did not fit; and how its images are prepared, if known."""

    model: nn.Module
    report: "Report | None" = None
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Weights:
    """`kind` is one of SOURCES and `name` a seed, a run's id, a version as IMAGENET1K_V2 or a file's path.

    Of a run they are those after `epoch`, one of `kept_epochs`, or without it the newest, whose versions `step` tells
    apart. `partial` loads what fits, and the rest stays at its start.
    """

    kind: str
    name: str
    step: int = 0
    partial: bool = False
    epoch: int | None = None

    def open(self, spec: NetSpec) -> Opened:
        """The net with these weights; without them where they do not fit. Refused."""
        return SOURCES[self.kind](spec, self)

    @staticmethod
    def named(text: str, spec: NetSpec) -> "Weights":
        """What a command's --from names: a file, a run, a run's epoch (RUN@3), torchvision or torchvision:VERSION.

        Refused where there is no such run, or none of torchvision's for the net.
        """
        kind, _, version = text.partition(":")
        if kind == "torchvision":
            from resnet.zoo.hub import offered

            known = offered(spec.name)
            return Weights(
                kind, choose(f"torchvision's weights of {spec.name}", version or next(iter(known), ""), known).name
            )
        if (path := Path(text).expanduser()).is_file():
            return Weights("file", str(path))
        run_id, _, epoch = text.partition("@")
        if epoch and not epoch.isdecimal():
            raise Refused("A run's epoch is a number.", epoch, "RUN@3, or RUN for its newest weights")
        return of_run(runs.find(run_id), int(epoch or 0))

    @property
    def title(self) -> str:
        """In words, short."""
        if self.kind == "run":
            return f"run {self.name}" + (f", after epoch {self.epoch}" if self.epoch else "")
        return {"torchvision": f"torchvision's {self.name}", "file": Path(self.name).name}.get(self.kind, self.name)


def of_run(run: Run, epoch: int | None = None) -> Weights:
    """The run's newest checkpoint, or the weights that it kept after an epoch."""
    return Weights("run", run.id, epoch=epoch) if epoch else Weights("run", run.id, run.checkpoint_step() or 0)


def kept_epochs(run: Run) -> list[int]:
    """The epochs after which the run kept its weights, beside the newest ones."""
    return list(run.checkpoints())


class Begun(NamedTuple):
    """What a training begins with: `content`, a safetensors file of weights by the net's own names; what they are, in
    words; mean and deviation by channel of the pixels that they were trained on, () where that is not known.
    """

    content: bytes
    words: str
    pixels: tuple[tuple[float, ...], ...]


def begin(spec: NetSpec, weights: Weights, title: str = "") -> Begun:
    """The weights for a training of the net; those of a head for other classes are left out. Refused."""
    model, report, inputs = replace(weights, partial=True).open(spec)
    if report and not weights.partial and not all(misfit.key.startswith("fc.") for misfit in report.misfits):
        report = replace(report, loaded=())
    if report and not report.loaded:
        raise Refused(f"These weights do not fit {spec.name}. {' '.join(report.sentences())}")
    state = model.state_dict()
    taken = {name: state[name].contiguous() for name in (report.loaded if report else state)}
    content = save(taken)
    checksum = hashlib.sha256(content).hexdigest()[:12]
    known = inputs is not None and np.shape(inputs.mean) == np.shape(inputs.std) == (spec.in_channels,)
    words = f"{title or weights.title}, {len(taken)} of {len(state)} weights (SHA-256 {checksum}…)"
    return Begun(content, words, (inputs.mean, inputs.std) if inputs and known else ())


class Model(NamedTuple):
    """A net with weights: one of ours by its `spec`, or with None a relative by its `name` and torchvision's weights.

    `inputs` where the visitor says how images are prepared, because the weights do not. `cuts` are blocks that run in
    another mode than "both", as ("layer2.1", "cut"), in the order of their names.
    """

    spec: NetSpec | None
    weights: Weights
    inputs: Inputs | None = None
    name: str = ""
    cuts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, run: Run, epoch: int | None = None) -> "Model":
        return cls(run.job.net, of_run(run, epoch))

    @property
    def title(self) -> str:
        return self.spec.name if self.spec else self.name

    @property
    def plain(self) -> bool:
        return bool(self.spec and self.spec.plain)

    @property
    def image_size(self) -> int:
        """Pixels a side; of a relative those for which its weights were made."""
        if self.spec:
            return self.spec.image_size
        [size] = _theirs(self).transforms().crop_size
        return size

    @property
    def channels(self) -> int:
        return self.spec.in_channels if self.spec else 3

    @property
    def profile(self) -> Profile:
        """For its own image size."""
        if self.spec:
            return named_profile("", self.spec)
        from resnet.zoo.relatives import profile_relative

        return profile_relative(self.name, self.image_size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, S, S), or (C, T, S, S)."""
        return self.profile.input_shape

    @property
    def classes(self) -> int:
        return self.profile.rows[-1].out_shape[0]

    @property
    def described(self) -> NetSpec:
        """The spec; Refused for a relative."""
        if self.spec is None:
            raise Refused("This is for nets that Build describes.", self.name, "one of the ResNets")
        return self.spec

    def outline(self) -> nn.Module:
        """The net on the meta device: its modules, without weights."""
        if self.spec:
            return build(self.spec, device="meta")
        from resnet.zoo.relatives import build_relative

        return build_relative(self.name)

    def layers(self) -> dict[str, str]:
        """Modules by label in running order: "stage1", ..., and of ours, before its stage, each block: "layer1.0"."""
        if self.spec is None:
            from resnet.zoo.relatives import stage_ends

            return stage_ends(self.name)
        found: dict[str, str] = {}
        for number, stage in enumerate(self.spec.stages, 1):
            found |= {block: block for block in (f"layer{number}.{place}" for place in range(stage.blocks))}
            found[f"stage{number}"] = f"layer{number}"
        return found

    def known_inputs(self) -> Inputs | None:
        """How images are prepared, as far as this is known before the net is opened: a file is read only then."""
        if self.inputs:
            return self.inputs
        if self.weights.kind == "run":
            found = inputs_of(runs.find(self.weights.name))
            return found.fitted(self.spec) if self.spec else found
        if self.weights.kind == "torchvision":
            from resnet.zoo.hub import inputs

            found = inputs(_theirs(self))
            return found.fitted(self.spec) if self.spec else found
        return None

    @property
    def frame(self) -> Frame:
        """How a photo is cut for it."""
        said = self.known_inputs()
        cut = (said.resize, said.interpolation) if said else ()
        return Frame(self.image_size, self.channels, *cut)

    def open(self) -> Opened:
        """Refused where no weights are loaded, and where a block cannot run as `cuts` have it."""
        opened = self.weights.open(self.spec) if self.spec else _relative(self)
        for name, mode in self.cuts:
            choose("block", name, blocks(opened.model)).mode = mode
        if opened.report and not opened.report.loaded:
            raise Refused(f"These are not the weights of {self.title}.")
        return opened._replace(inputs=self.inputs or opened.inputs)


def _theirs(model: Model) -> "WeightsEnum":
    """torchvision's entry; Refused where it offers none of that name."""
    from resnet.zoo.hub import offered

    return choose(f"torchvision's weights of {model.title}", model.weights.name, offered(model.title))


def _relative(model: Model) -> Opened:
    from resnet.zoo.hub import inputs, load_torchvision
    from resnet.zoo.relatives import open_relative

    theirs = _theirs(model)
    return Opened(open_relative(model.name, load_torchvision(theirs).tensors), None, inputs(theirs))


def prepared(pixels: np.ndarray | Tensor, inputs: Inputs | None) -> Tensor:
    """uint8 (N, C, S, S) -> float32 (N, C, S, S), as the net was trained to see them. Refused where that is unknown."""
    if inputs is None:
        raise Refused("It is not known how this net's images are prepared.", choices="a mean and a deviation")
    return normalise(torch.as_tensor(pixels), *moments_of(inputs))


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
    return Inputs(mean, std, names, RESIZE if moments == "ImageNet's" else 1.0)


def _untrained(spec: NetSpec, weights: Weights) -> Opened:
    return Opened(build(spec, int(weights.name)))


def _of_run(spec: NetSpec, weights: Weights) -> Opened:
    from resnet.zoo.weights import WeightsFile

    opened = open_run(runs.find(weights.name), weights.epoch)
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
