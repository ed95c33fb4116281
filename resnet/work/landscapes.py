"""Loss surfaces of runs: kept on the disk once they are computed, and in the plane of a training's own directions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from resnet.analysis.landscape import BATCH, keep, plane, read, trajectory
from resnet.files import FOLDERS, ROOT, digest
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.runs.weights import load_model
from resnet.work.contract import Cost, Progress
from resnet.work.predict import DATA_BYTES, in_batches
from resnet.work.requests import Work
from resnet.work.weights import Model, Weights

VERSION = 1  # of what a surface is: another one makes kept tables void
READ_BYTES = 50e6  # a worker takes to read one
SHIPPED = ROOT / "assets" / "landscapes"


class Kept(NamedTuple):
    """The table of an entry of ANALYSES of a run's net on `images` test images of its data, by all it depends on."""

    analysis: str
    weights: Weights
    images: int
    options: Mapping[str, object]

    def read(self) -> pd.DataFrame | None:
        """Its table, if it was computed before or came with the program."""
        found = (read(folder / self._name) for folder in (SHIPPED, _own()))
        return next((table for table in found if table is not None), None)

    def keep(self, table: pd.DataFrame, folder: Path | None = None) -> None:
        """Write its table into a folder, the user's own without one."""
        keep((folder or _own()) / self._name, table)

    @property
    def _name(self) -> str:
        own = self._asdict() | {"weights": asdict(self.weights), "options": dict(self.options)}
        return f"{self.weights.name}-{digest({'version': VERSION, **own})[:12]}.npz"


def _own() -> Path:
    return FOLDERS.user_cache_path / "landscapes"


class Travelled(NamedTuple):
    """A training over the loss in the plane of its first two principal directions.

    surface: a, b, loss, accuracy, not whole while it is computed; path: epoch, a, b; explained: each direction's share
    of the variance of the weights, 0 to 1.
    """

    surface: pd.DataFrame
    path: pd.DataFrame
    explained: tuple[float, float]


@dataclass(frozen=True)
class PathOfTraining:
    """The `Travelled` of a run through `epochs` whose weights it kept, on test images; `model` is where it arrived."""

    model: Model
    epochs: tuple[int, ...]
    count: int
    points: int
    alone = False

    def cost(self) -> Cost:
        needed = in_batches(self.model, self.count, BATCH, passes=self.points**2)
        held = 4 * 8 * self.model.profile.params * (len(self.epochs) + 1)  # float64, and what an SVD copies
        return Cost(needed.bytes + DATA_BYTES + held, needed.seconds)

    def run(self) -> Work:
        run = runs.find(self.model.weights.name)
        yield Progress(0.0, "Reading the epochs' weights …")
        opened = open_run(run)
        last = opened.model.state_dict()
        found = trajectory([*(load_model(run, epoch).state_dict() for epoch in self.epochs), last])
        path = found.coordinates.assign(epoch=[*map(str, self.epochs), "the last"])
        travelled = Travelled(pd.DataFrame(), path, found.explained)
        for share, table in plane(
            opened.model, *opened.test_batch(self.count), found.directions, *found.axes(self.points)
        ):
            travelled = travelled._replace(surface=table)
            yield Progress(share, "Computing the loss …", travelled)
        return travelled
