"""The analyses of nets, as work."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.batches import noise_batch
from resnet.analysis.cka import cka
from resnet.analysis.contract import Partial, Steps, beside, last
from resnet.analysis.features import activations, kernels, neighbours, pooled
from resnet.analysis.lesions import BATCH, KEEP_BYTES, Lesions
from resnet.analysis.microscope import COMPANY, among_noise, microscope
from resnet.data import dataset as datasets
from resnet.errors import Refused
from resnet.nets.borrow import borrowed
from resnet.nets.inputs import Inputs
from resnet.runs import store as runs
from resnet.runs.opened import OpenedRun, open_run, test_batch
from resnet.runs.prepare import load_data
from resnet.runs.store import Run
from resnet.work.contract import Cost, Progress
from resnet.work.explaining import Picture
from resnet.work.landscapes import READ_BYTES, Kept
from resnet.work.predict import DATA_BYTES, backward, forward, in_batches, in_turn
from resnet.work.requests import Work
from resnet.work.weights import Model, prepared, usual

NOISE, OWN = "noise", "own"  # sources of images that are no data sets
POOLED = 200  # images at a time
LABS = 2  # nets whose activations a worker keeps: those of a pair, which share KEEP_BYTES
UNTRAINED = "0.5 and 0.5 (pixels from -1 to 1)"  # how a net without weights sees a picture


@dataclass(frozen=True)
class Analysed:
    """An entry of ANALYSES on each of the nets, as `beside` puts their tables together.

    `source` is NOISE (Gaussian images, drawn from `seed`), OWN (of runs, test images of their own data sets) or the
    name of a data set, whose images are prepared as each net was trained to see them, where that is known, else by
    their own mean and deviation; `changed` tells versions of its file apart. `options` go to the analysis.
    """

    analysis: str
    models: tuple[Model, ...]
    source: str
    count: int
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()
    changed: float = 0.0
    alone = False

    def cost(self) -> Cost:
        return in_turn([self._cost(model) for model in self.models])

    def kept(self, model: Model) -> Kept | None:
        """Where its table is kept on the disk; None where it is not, because it is quickly computed again."""
        whole = model.weights.kind == "run" and not model.cuts
        entry = ANALYSES[self.analysis]
        return (
            Kept(self.analysis, model.weights, self.count, self._options())
            if entry.kept and whole and self.source == OWN
            else None
        )

    def _cost(self, model: Model) -> Cost:
        entry, kept = ANALYSES[self.analysis], self.kept(model)
        if kept and kept.read() is not None:
            return Cost(READ_BYTES, 0.1)
        blocks = {row.block for row in model.profile.rows if row.block}
        once, passes = forward(model, 1), entry.passes(len(blocks), self._options())
        each = (backward(model, 2).seconds - backward(model, 1).seconds) / 3  # of three passes
        together = min(self.count, entry.together or self.count)
        return Cost(backward(model, together).bytes, once.seconds + passes * self.count * each)

    def _options(self) -> dict[str, object]:
        return dict(ANALYSES[self.analysis].options) | dict(self.options)

    def run(self) -> Work:
        found = list[pd.DataFrame]()
        nets = [(model.title, model.plain) for model in self.models]
        for number, each in enumerate(self.models):
            yield Progress(number / len(self.models), each.title)
            table = pd.DataFrame()
            for share, table in self._steps(each):
                so_far = beside(nets, [*found, table])
                yield Progress((number + share) / len(self.models), each.title, so_far)
            found.append(table)
        return beside(nets, found)

    def _steps(self, each: Model) -> Steps:
        """The analysis of one net, or its whole table where that is kept."""
        entry, kept = ANALYSES[self.analysis], self.kept(each)
        if kept and (table := kept.read()) is not None:
            yield Partial(1.0, table)
            return
        torch.manual_seed(self.seed)  # dropout in train mode draws from it; the process is this work's own
        model, _, inputs = each.open()
        if reason := entry.reason(model):
            raise Refused(f"{entry.title} does not apply to {each.title}. {reason}")
        images, labels = self._batch(each, inputs)
        for partial in entry.function(model, images, labels, **self._options()):
            yield partial
        if kept and len(images) == self.count:  # not the few pictures of a run whose data are elsewhere
            with suppress(OSError):  # a cache that cannot be written costs nobody the result
                kept.keep(partial.table)

    def _batch(self, each: Model, inputs: Inputs | None) -> tuple[Tensor, Tensor]:
        if self.source == NOISE:
            return noise_batch(each, self.count, self.seed)
        if self.source == OWN:
            return test_batch(runs.find(each.weights.name), self.count)
        data = datasets.load_offered(self.source, size=each.image_size, train=2000)
        images, labels = datasets.some_tests(data, self.count)
        return (prepared(images, inputs) if inputs else datasets.normalise(images, data.mean, data.std)), labels


class Measured(NamedTuple):
    """The table of an analysis of a run's net, and the training step that its weights belong to, if that is known."""

    step: int | None
    table: pd.DataFrame


@dataclass(frozen=True)
class Moment:
    """`Measured`: an entry of ANALYSES on a run's net, while it trains or later, on test images of its own data.

    Of the newest weights it measures those that are there when it begins, and says which these were.
    """

    analysis: str
    model: Model
    count: int
    alone = False

    def cost(self) -> Cost:
        needed = Analysed(self.analysis, (self.model,), OWN, self.count).cost()
        return needed._replace(bytes=needed.bytes + DATA_BYTES)

    def run(self) -> Work:
        yield Progress(0.0, self.model.title)
        opened, entry = _opened(self.model), ANALYSES[self.analysis]
        return Measured(opened.step, last(entry.function(opened.model, *_test_batch(opened.run, self.count))))


@lru_cache(8)
def _test_batch(run: Run, count: int) -> tuple[Tensor, Tensor]:
    """As `test_batch`, kept by a worker from moment to moment: to read a data set takes seconds."""
    return test_batch(run, count)


@dataclass(frozen=True)
class Inspected:
    """The `Microscope` of a block on one picture; the class is the likeliest where `label` is -1.

    An untrained net sees pixels from -1 to 1, and uses the batch statistics of the picture among noise.
    """

    model: Model
    picture: Picture
    block: str
    label: int = -1
    lr: float = 0.1
    alone = False

    def cost(self) -> Cost:
        needed = backward(self.model, COMPANY + 1 if self.model.weights.kind == "seed" else 1)
        return Cost(3 * needed.bytes, 3 * needed.seconds)

    def run(self) -> Work:
        yield Progress(0.0, f"{self.block} of {self.model.title}")
        model, _, inputs = self.model.open()
        new = self.model.weights.kind == "seed"
        images = prepared(self.picture.batch(), inputs or usual(self.model.described, UNTRAINED) if new else inputs)
        label = self.label
        if label < 0:
            with borrowed(model), torch.no_grad():
                label = int(model(images).argmax())
        return microscope(model, among_noise(images) if new else images, label, self.block, self.lr, new)


class Whole(NamedTuple):
    """What is left of a net with broken blocks: accuracy (0 to 1) and loss (nats), those of the whole net, images."""

    accuracy: float
    loss: float
    whole_accuracy: float
    whole_loss: float
    images: int


@dataclass(frozen=True)
class Broken:
    """The `Whole` of a run's net with `cuts` on test images of its own data.

    A worker keeps the activations of a net and its twin, so that another cut of either takes little.
    """

    model: Model
    cuts: tuple[tuple[str, str], ...]
    count: int = 1000
    alone = False

    def cost(self) -> Cost:
        needed = in_batches(self.model, self.count, BATCH, passes=2)
        held = max(KEEP_BYTES, DATA_BYTES)  # the data are let go before activations are kept
        return Cost(needed.bytes + held, needed.seconds)

    def run(self) -> Work:
        yield Progress(0.0, self.model.title)
        lab, labels = _lab(self.model, self.count)
        whole, left = lab.score(labels), lab.score(labels, dict(self.cuts))
        return Whole(left["accuracy"], left["loss"], whole["accuracy"], whole["loss"], len(labels))


@lru_cache(LABS)
def _lab(model: Model, count: int) -> tuple[Lesions, Tensor]:
    opened = _opened(model)
    images, labels = opened.test_batch(count)
    return Lesions(opened.model, images, KEEP_BYTES // LABS), labels


def _opened(model: Model) -> OpenedRun:
    return open_run(runs.find(model.weights.name), model.weights.epoch)


@dataclass(frozen=True)
class Alike:
    """The table of `cka` between two runs, row by column, on test images of the first one's data."""

    first: Model
    second: Model
    count: int = 256
    alone = False

    def cost(self) -> Cost:
        return in_turn([forward(model, self.count) for model in (self.first, self.second)])

    def run(self) -> Work:
        yield Progress(0.0, "Comparing the layers …")
        nets = [_opened(model) for model in (self.first, self.second)]
        images, _ = nets[0].test_batch(self.count)
        table = pd.DataFrame()
        for share, table in cka(nets[0].model, nets[1].model, images):
            yield Progress(share, "Comparing the layers …", table)
        return table


class Seen(NamedTuple):
    """What a net makes of a picture at a layer: the strongest channels and their maps (k, h, w), and first kernels."""

    channels: np.ndarray
    maps: np.ndarray
    kernels: np.ndarray


@dataclass(frozen=True)
class Features:
    """The `Seen` of a net for one picture."""

    model: Model
    picture: Picture
    layer: str
    alone = False

    def cost(self) -> Cost:
        return forward(self.model, 1)

    def run(self) -> Work:
        yield Progress(0.0, self.model.title)
        model, _, inputs = self.model.open()
        images = prepared(self.picture.batch(), inputs)
        return Seen(*activations(model, images[0], self.layer), kernels(model))


class Neighbours(NamedTuple):
    """Training pictures (k, C, S, S) uint8 that are most like a picture to a net, their labels and cosines (k,)."""

    pictures: np.ndarray
    labels: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True)
class Nearest:
    """The `Neighbours` of a picture among `count` training images of a run's data, by a layer's pooled features."""

    model: Model
    picture: Picture
    layer: str
    count: int = 2000
    alone = False

    def cost(self) -> Cost:
        needed = in_batches(self.model, self.count, POOLED)
        return Cost(needed.bytes + DATA_BYTES, needed.seconds)

    def run(self) -> Work:
        yield Progress(0.0, "Reading training images …")
        opened = _opened(self.model)
        data = load_data(replace(opened.run.job, train_images=self.count))
        found: list[Tensor] = []
        for batch in data.train_images.split(POOLED):
            yield Progress(len(found) * POOLED / self.count, "Looking at training images …")
            found.append(pooled(opened.model, opened.prepare(batch), self.layer))
        [query] = pooled(opened.model, opened.prepare(self.picture.batch()), self.layer)
        nearest = neighbours(query, torch.cat(found))
        rows = torch.from_numpy(nearest["index"].to_numpy().copy())
        chosen = data.train_images[rows].numpy(), data.train_labels[rows].numpy()
        return Neighbours(*chosen, nearest.cosine.to_numpy())
