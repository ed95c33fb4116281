"""Whether what nets say of pictures can be believed: work for the Saliency page."""

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnet.data import dataset as datasets
from resnet.data.dataset import Dataset
from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.codes import to_code
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.work.contract import Cost, Progress
from resnet.work.explaining import Query
from resnet.work.predict import DATA_BYTES, backward, batch_limit, in_batches, method_passes
from resnet.work.requests import Work
from resnet.work.weights import Model, prepared

if TYPE_CHECKING:  # captum is slow to import
    from resnet.attribution.contract import Passes
    from resnet.trust.contract import Case

IMAGES = 50  # of a league
OTHERS = 64  # test pictures that may stand beside the judged one in a grid


@dataclass(frozen=True)
class Judged:
    """The `Finding` of one check on the map of one query."""

    query: Query
    check: str
    alone = False

    def cost(self) -> Cost:
        from resnet.trust.checks import CHECKS
        from resnet.trust.contract import Facts

        model, picture, method, layer, *_ = self.query
        facts = Facts(picture.shape[1:], model.profile.rows[-1].out_shape[0])
        own = method_passes(model.profile, method, layer)
        return _cost(model, own, CHECKS[self.check].passes(facts, own), 1)

    def run(self) -> Work:
        from resnet.trust.checks import CHECKS, judging
        from resnet.trust.contract import Case

        asked = self.query
        yield Progress(0.0, CHECKS[self.check].title)
        model, _, inputs = asked.model.open()
        case = Case(
            prepared(asked.picture.batch(), inputs),
            torch.tensor([asked.target]),
            asked.method,
            asked.layer,
            against=asked.against,
            masked=_masked(asked.model),
            others=_others(asked.model),
        )
        for step in judging(self.check, model, case):
            yield Progress(step.share, CHECKS[self.check].title)
        return step.finding


@dataclass(frozen=True)
class League:
    """The rows of a `trust.league.league` on test images of a data set, kept on the disk and read from there.

    `layer` is the net's last block where it is ""; without `methods` and `checks` all that apply are judged. `changed`
    tells versions of the data set's file apart. What is explained is the class that the net names.
    """

    model: Model
    data: str
    images: int = IMAGES
    layer: str = ""
    methods: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    changed: float = 0.0
    alone = False

    def depends_on(self) -> dict:
        """All that the rows depend on."""
        from resnet.trust.league import settings

        model = self.model
        own = dataclasses.asdict(model.weights), model.inputs and dataclasses.asdict(model.inputs)
        asked = {"images": self.images, "layer": self.layer, "methods": self.methods, "checks": self.checks}
        return settings(net=to_code(model.described), weights=own, data=self.data, changed=self.changed, **asked)

    def cost(self) -> Cost:
        from resnet.attribution.contract import Passes
        from resnet.attribution.methods import METHODS
        from resnet.trust.checks import CHECKS
        from resnet.trust.contract import Facts
        from resnet.trust.league import check_passes, judged_images, kept

        if kept(self.depends_on()) is not None:
            return Cost(50e6, 0.1)
        spec, most, total, profile = self.model.described, Passes(0), Passes(0), self.model.profile
        facts, images = Facts((spec.image_size, spec.image_size), spec.classes), min(self.images, batch_limit(spec))
        for name in self.methods or METHODS:
            own = method_passes(profile, name, self.layer or list(self.model.layers().values())[-1])
            most = max(most, own, key=_with_gradients)
            total = _plus(total, own, images)
            for check in self.checks or CHECKS:
                found = check_passes(check, facts, own)
                total = _plus(total, found, judged_images(images, found))
        mean = Passes(total.forward / images, total.backward / images)
        needed = _cost(self.model, most, mean, images)
        return Cost(min(needed.bytes + DATA_BYTES, WORK_BYTES), needed.seconds)  # the prediction is an upper bound

    def run(self) -> Work:
        from resnet.trust.league import keep, kept, league

        yield Progress(0.0, "Reading what is kept …")
        depends_on = self.depends_on()
        rows = kept(depends_on)
        if rows is None:
            model, case = self._case()
            for share, text, rows in league(model, case, self.methods, self.checks):
                yield Progress(share, text, rows)
            with suppress(OSError):  # a cache that cannot be written costs nobody the result
                keep(depends_on, rows or [])
        yield Progress(1.0, "Done.", rows)
        return rows

    def _case(self) -> "tuple[nn.Module, Case]":
        from resnet.attribution.methods import common_layers
        from resnet.trust.contract import Case

        spec = self.model.described
        model, _, inputs = self.model.open()
        model.eval()  # it is this work's own
        data = datasets.load_offered(self.data, size=spec.image_size)
        data = sampled(data, min(self.images, batch_limit(spec)))
        images = prepared(data.test_images, inputs)
        with torch.no_grad():
            named = model(images).argmax(1)
        objects = torch.empty(0) if data.test_masks is None else data.test_masks
        layer = self.layer or common_layers([model])[-1]
        return model, Case(images, named, "", layer, masked=_masked(self.model), objects=objects)


def sampled(data: Dataset, count: int) -> Dataset:
    """`count` test images, the same ones each time and as `some_tests` chooses them, with their masks."""
    order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))
    return data.sample(order[:count].tolist())


def _masked(model: Model) -> bool:
    """Whether the net is known to have seen blanked patches in training."""
    return model.weights.kind == "run" and runs.find(model.weights.name).job.recipe.mask


def _others(model: Model) -> Tensor:
    """Test pictures (M, C, S, S) of the run's data, none where there are none."""
    if model.weights.kind != "run":
        return torch.empty(0)
    try:
        return open_run(runs.find(model.weights.name)).test_batch(OTHERS)[0]
    except Refused:
        return torch.empty(0)


def _cost(model: Model, own: "Passes", passes: "Passes", images: int) -> Cost:
    """Of so many passes for each image, where a map takes `own`; copies of the images run in batches of so many pixels.

    Only maps need gradients.
    """
    from resnet.attribution.batches import PIXELS
    from resnet.trust.removal import BATCH_PIXELS

    pixels = model.image_size**2
    copies = min(images * max(1, round(_with_gradients(own))), max(images, PIXELS // pixels))
    seen = min(images * max(1, round(passes.forward)), max(images, BATCH_PIXELS // pixels))
    needed = in_batches(model, images, seen, passes.forward + 2 * passes.backward)
    return Cost(max(needed.bytes, backward(model, copies).bytes), needed.seconds)


def _plus(total: "Passes", each: "Passes", images: int) -> "Passes":
    return total._replace(
        forward=total.forward + images * each.forward, backward=total.backward + images * each.backward
    )


def _with_gradients(own: "Passes") -> float:
    return own.backward + own.after
