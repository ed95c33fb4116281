"""The analyses of nets, as work."""

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.batches import noise_batch
from resnet.analysis.contract import beside
from resnet.data import dataset as datasets
from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.work.contract import Cost, Progress
from resnet.work.predict import backward, forward, in_turn
from resnet.work.requests import Work
from resnet.work.weights import Model, prepared

NOISE, OWN = "noise", "own"  # sources of images that are no data sets


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

    def _cost(self, model: Model) -> Cost:
        entry = ANALYSES[self.analysis]
        blocks = {row.block for row in model.profile.rows if row.block}
        once, passes = forward(model, 1), entry.passes(len(blocks), self._options())
        each = (backward(model, 2).seconds - backward(model, 1).seconds) / 3  # of three passes
        together = min(self.count, entry.together or self.count)
        return Cost(backward(model, together).bytes, once.seconds + passes * self.count * each)

    def _options(self) -> dict[str, object]:
        return dict(ANALYSES[self.analysis].options) | dict(self.options)

    def run(self) -> Work:
        entry, found = ANALYSES[self.analysis], list[pd.DataFrame]()
        nets = [(model.title, model.plain) for model in self.models]
        for number, each in enumerate(self.models):
            yield Progress(number / len(self.models), each.title)
            model, _, inputs = each.open()
            if reason := entry.reason(model):
                raise Refused(f"{entry.title} does not apply to {each.title}. {reason}")
            table = pd.DataFrame()
            for share, table in entry.function(model, *self._batch(each, inputs), **self._options()):
                so_far = beside(nets, [*found, table])
                yield Progress((number + share) / len(self.models), each.title, so_far)
            found.append(table)
        return beside(nets, found)

    def _batch(self, each: Model, inputs: Inputs | None) -> tuple[Tensor, Tensor]:
        if self.source == NOISE:
            return noise_batch(each.described, self.count, self.seed)
        if self.source == OWN:
            return open_run(runs.find(each.weights.name), each.weights.epoch).test_batch(self.count)
        data = datasets.load_offered(self.source, size=each.image_size, train=2000)
        images, labels = datasets.some_tests(data, self.count)
        return (prepared(images, inputs) if inputs else datasets.normalise(images, data.mean, data.std)), labels
