"""The work that the app asks for. A new kind is a frozen dataclass here, in the shape of `contract.Request`."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from safetensors.torch import save

from resnet.analysis.batches import noise_batch
from resnet.analysis.gradients import gradient_norms, side_by_side
from resnet.costs.budget import Budget, Fit, search
from resnet.costs.memory import measure_peak
from resnet.costs.speed import Latency, latencies, rooflines
from resnet.data import dataset as datasets
from resnet.exports.forms import ONNX_OPSET, export
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.work import spool
from resnet.work.contract import Cost, Progress
from resnet.work.predict import backward, forward, forward_of, in_turn, named_profile, training_peak
from resnet.work.weights import Model, Weights, prepared

if TYPE_CHECKING:  # torchvision is slow to import, and takes 80 MB of each worker
    from resnet.zoo.fitting import Report

Work = Generator[Progress, None, object]


def by_net(function: Callable, titles: Sequence[str], *arguments: Sequence) -> Generator[Progress, None, list]:
    """The function's results for the arguments of each net; yields before each how far it is."""
    found: list = []
    for title, *own in zip(titles, *arguments, strict=True):
        yield Progress(len(found) / len(titles), title)
        found.append(function(*own))
    return found


@dataclass(frozen=True)
class Gradients:
    """The gradient norms of nets on one batch, as `side_by_side` has them.

    `source` is a data set or "" for noise; `changed` tells versions of its file apart. Its images are prepared as
    each net was trained to see them, where that is known, else by their own mean and deviation.
    """

    models: tuple[Model, ...]
    source: str
    count: int
    changed: float = 0.0
    alone = False

    def cost(self) -> Cost:
        return in_turn([backward(each, self.count) for each in self.models])

    def run(self) -> Work:
        nets = [each.described for each in self.models]
        return side_by_side(nets, (yield from by_net(self._norms, [net.name for net in nets], self.models)))

    def _norms(self, each: Model) -> pd.DataFrame:
        model, _, inputs = each.open()
        if not self.source:
            return gradient_norms(model, *noise_batch(each.described, self.count))
        data = datasets.load_offered(self.source, size=each.image_size, train=2000)
        images, labels = datasets.some_tests(data, self.count)
        batch = prepared(images, inputs) if inputs else datasets.normalise(images, data.mean, data.std)
        return gradient_norms(model, batch, labels)


@dataclass(frozen=True)
class RunGradients:
    """The gradient norms of trained runs on test images of their own data sets, as `side_by_side` has them."""

    models: tuple[Model, ...]
    count: int
    alone = False

    def cost(self) -> Cost:
        return in_turn([backward(each, self.count) for each in self.models])

    def run(self) -> Work:
        nets = [each.described for each in self.models]
        return side_by_side(nets, (yield from by_net(self._norms, [net.name for net in nets], self.models)))

    def _norms(self, each: Model) -> pd.DataFrame:
        opened = open_run(runs.find(each.weights.name), each.weights.epoch)
        return gradient_norms(opened.model, *opened.test_batch(self.count))


class Speeds(NamedTuple):
    """A net's latency, and the table of `rooflines`."""

    latency: Latency
    stages: pd.DataFrame


@dataclass(frozen=True)
class Speed:
    """Latency and roofline of a net on this machine."""

    spec: NetSpec
    batch: int
    precision: str
    device: str
    alone = True

    def cost(self) -> Cost:
        needed = forward(self.spec, self.batch)
        return Cost(needed.bytes, 8.0 + 6 * needed.seconds)  # at least 3 passes of each kind

    def run(self) -> Work:
        yield Progress(0.0, "Warming up …")
        call = self.batch, self.precision, self.device
        for latency in latencies(self.spec, self.spec.input_shape, *call, seconds=3.0):
            yield Progress(0.0, f"{len(latency.times)} passes, median {1000 * latency.median:,.2f} ms")
        for table in rooflines(self.spec, self.batch, self.device, self.precision, seconds=4.0):
            yield Progress(0.5, f"The stages against what this machine can do: stem {1000 * table.seconds[0]:,.2f} ms")
        return Speeds(latency, table)


@dataclass(frozen=True)
class NetLatency:
    """The `Latency` of an entry of `catalogue.nets` for one image; None of a system."""

    name: str
    spec: NetSpec | None
    alone = True

    def cost(self) -> Cost:
        needed = forward_of(named_profile(self.name, self.spec), 1)
        return Cost(needed.bytes, 2.5 + 3 * needed.seconds)

    def run(self) -> Work:
        yield Progress(0.0, f"Timing {self.name} …")
        from resnet.zoo.catalogue import timeable  # torchvision is slow to import

        net, latency = timeable(self.name, self.spec), None
        shape = named_profile(self.name, self.spec).input_shape
        for latency in latencies(net, shape, seconds=2.0) if net else ():
            yield Progress(0.0, f"Timing {self.name}: {len(latency.times)} passes")
        return latency


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak of two real training steps on the CPU."""

    spec: NetSpec
    batch: int
    optimizer: str
    precision: str
    alone = False

    def cost(self) -> Cost:
        seconds = 2 * backward(self.spec, self.batch).seconds + 5.0  # in a process of its own, which has to start
        return Cost(1.5 * training_peak(self.spec, self.batch, self.optimizer, self.precision), seconds)

    def run(self) -> Work:
        yield Progress(0.0, "Training two steps in a process of its own …")
        return measure_peak(self.spec, self.batch, "cpu", self.optimizer, self.precision)


@dataclass(frozen=True)
class Search:
    """The nets that fit a budget, as `budget.search` lists them at its end."""

    base: NetSpec
    budget: Budget
    blocks: tuple[str, ...]
    stems: tuple[str, ...]
    alone = False

    def cost(self) -> Cost:
        return Cost(100e6, (5.0 if self.budget.memory else 1.0) * len(self.blocks) * len(self.stems))

    def run(self) -> Work:
        found: list[Fit] = []
        for share, found in search(self.base, self.budget, self.blocks, self.stems):
            yield Progress(share, f"Counting … {len(found)} nets so far")
        return found


class Fitted(NamedTuple):
    """`report` is None where the weights are the net's own."""

    report: "Report | None"
    inputs: Inputs | None


@dataclass(frozen=True)
class Fitting:
    """How the weights fit the net where all that fits is loaded, and how its images are prepared if they say so."""

    spec: NetSpec
    weights: Weights
    alone = False

    def cost(self) -> Cost:
        return _loading(self.spec)

    def run(self) -> Work:
        yield Progress(0.0, "Reading the weights …")
        _, report, inputs = replace(self.weights, partial=True).open(self.spec)
        return Fitted(report, inputs)


class Begun(NamedTuple):
    """A safetensors file with `loaded` of the `needed` weights of a net."""

    path: Path
    loaded: int
    needed: int


@dataclass(frozen=True)
class Beginning:
    """The weights that a training begins with, by the net's own names, written into `folder`."""

    spec: NetSpec
    weights: Weights
    folder: str
    alone = False

    def cost(self) -> Cost:
        return _loading(self.spec)

    def run(self) -> Work:
        yield Progress(0.0, "Reading the weights …")
        model, report, _ = Model(self.spec, self.weights).open()
        state = model.state_dict()
        loaded = {name: state[name] for name in (report.loaded if report else state)}
        return Begun(spool.put(Path(self.folder), save(loaded)), len(loaded), len(state))


@dataclass(frozen=True)
class Exported:
    """A form of file that holds weights, written into `folder`; its path, whose name is the content's SHA-256."""

    form: str
    spec: NetSpec
    weights: Weights
    folder: str
    opset: int = ONNX_OPSET
    alone = False

    def cost(self) -> Cost:
        loading, rows = _loading(self.spec), len(named_profile("", self.spec).rows)
        if self.form != "onnx":
            return loading
        return Cost(500e6 + 2 * loading.bytes, 3.0 + rows / 100 + 2 * loading.seconds)

    def run(self) -> Work:
        yield Progress(0.0, "Writing the file …")
        model, _, inputs = Model(self.spec, self.weights).open()
        with torch.no_grad():
            return spool.put(Path(self.folder), export(self.form, self.spec, model, inputs, self.opset))


def _loading(spec: NetSpec) -> Cost:
    """The net, the file's tensors and the new file at once."""
    params = named_profile("", spec).params
    return Cost(4 * 4 * params + 50e6, 0.1 + params / 30e6)
