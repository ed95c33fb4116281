"""The table of a step's figures: the form of recorded files, and that nothing but names says which column is which."""

from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.data.dataset import Dataset, load
from resnet.files import ROOT
from resnet.nets.model import build, memory_format, weight_layers
from resnet.runs.records import Records
from resnet.runs.store import Run
from resnet.train import figures, loop
from resnet.train import step as step_module
from resnet.train.feeds import Resident
from resnet.train.figures import FIGURES, measured_type, record_type
from resnet.train.loop import StepsTaken, fit
from resnet.train.recipes import Recipe
from tests.support.tiny import TINY, state_of

RECIPE = Recipe(epochs=1, batch=8, precision="fp32")
ON_DISK = [  # name, type, bytes before it in the record of a net of 20 weight layers
    ("step", "<i4", 0),
    ("loss", "<f4", 4),
    ("accuracy", "<f4", 8),
    ("lr", "<f4", 12),
    ("seconds", "<f4", 16),
    ("batch", "<u4", 20),
    ("norms", ("<f4", (20,)), 24),
    ("updates", ("<f4", (20,)), 104),
]


def test_a_record_on_disk_is_as_recorded_runs_have_it() -> None:
    names, kinds, offsets = (list(column) for column in zip(*ON_DISK, strict=True))
    assert record_type(20) == np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": 184})


@pytest.mark.parametrize("path", sorted((ROOT / "assets" / "runs").iterdir()), ids=lambda path: path.name)
def test_recorded_runs_are_read_by_the_table(path: Path) -> None:
    run = Records(path)
    steps, layers = run.steps(), len(run.layers())
    assert (path / "steps.bin").stat().st_size == len(steps) * (24 + 8 * layers)
    np.testing.assert_array_equal(steps["step"], np.arange(1, len(steps) + 1))
    assert ((steps["accuracy"] >= 0) & (steps["accuracy"] <= 1)).all()
    assert steps["lr"].max() == pytest.approx(Run(path).job.recipe.lr, rel=3e-3)


def rows(data: Dataset) -> np.ndarray:
    state = state_of(build(TINY), RECIPE)
    feed = Resident(data, RECIPE, torch.device("cpu"), memory_format(state.model))
    found = np.concatenate([event.rows for event in fit(state, feed, RECIPE) if isinstance(event, StepsTaken)])
    found["seconds"] = 0
    return found


def test_figures_keep_their_columns_in_whatever_order_a_step_computes_them(
    tiny_data: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("tiny.npz")
    expected = rows(data)

    def turned(layers: int) -> np.dtype:
        kind = measured_type(layers)
        return np.dtype([(name, kind[name]) for name in reversed(kind.names or ())])

    for module in (loop, step_module):
        monkeypatch.setattr(module, "measured_type", turned)
    monkeypatch.setattr(loop, "MEASURED", figures.MEASURED[::-1])
    found = rows(data)
    assert found.dtype == expected.dtype == record_type(len(weight_layers(build(TINY))))
    assert found.tobytes() == expected.tobytes()


def test_figures_by_layer_say_what_menus_need() -> None:
    for name in figures.BY_LAYER:
        assert all([FIGURES[name].tag, FIGURES[name].label, FIGURES[name].meaning, FIGURES[name].title])
