"""The work that the app asks for. A new kind is a frozen dataclass here, in the shape of `contract.Request`."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch

from resnet.costs.budget import Budget, Fit, search
from resnet.costs.memory import measure_peak
from resnet.costs.speed import Latency, latencies, rooflines
from resnet.exports.forms import ONNX_OPSET, export
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec
from resnet.work import spool
from resnet.work.contract import Cost, Progress
from resnet.work.predict import backward, forward, forward_of, named_profile, training_peak
from resnet.work.weights import Model, Weights, begin

if TYPE_CHECKING:  # torchvision is slow to import, and takes 80 MB of each worker
    from resnet.zoo.fitting import Report

Work = Generator[Progress, None, object]


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


class Start(NamedTuple):
    """A file in place of the content of a `Begun`, and the rest of it."""

    path: Path
    words: str
    pixels: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Beginning:
    """The weights that a training begins with, by the net's own names, written into `folder`; a `Start`."""

    spec: NetSpec
    weights: Weights
    title: str
    folder: str
    alone = False

    def cost(self) -> Cost:
        return _loading(self.spec)

    def run(self) -> Work:
        yield Progress(0.0, "Reading the weights …")
        begun = begin(self.spec, self.weights, self.title)
        return Start(spool.put(Path(self.folder), begun.content), begun.words, begun.pixels)


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
