"""The table of runs, from a run that was really trained and one that was not."""

from datetime import datetime

import pytest

from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.runs.table import run_table, start_time
from tests.support.tiny import RECIPE, job, uninterrupted

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back")


def test_a_row_says_what_was_trained_and_how_far() -> None:
    trained, new = uninterrupted(RECIPE), runs.create(job())
    table = run_table([trained.look(), new.look()])
    shares = 100 * trained.epochs().test_accuracy
    assert table["run"].tolist() == [trained.id, new.id]
    assert table["state"].tolist() == ["finished", "stopped"]
    assert table[["steps", "of"]].to_numpy().tolist() == [[16, 16], [0, 0]]
    assert table["last test"].tolist()[0] == shares.iloc[-1]
    assert table["best test"].tolist()[0] == shares.max()
    assert table[["last test", "best test"]].isna().to_numpy().tolist() == [[False] * 2, [True] * 2]
    assert table.started[0] == datetime.strptime(trained.id[:15], "%Y%m%d-%H%M%S")


def test_a_folder_with_a_name_of_its_own_has_no_start_time() -> None:
    run = runs.create(job())
    assert start_time(Run(run.path.rename(run.path.with_name("mine")))) is None


def test_a_look_is_of_one_moment() -> None:
    run = uninterrupted(RECIPE)
    seen = run.look()
    assert (seen.status, seen.info, seen.layers, seen.tests) == (run.status(), run.info(), run.layers(), run.tests())
    assert seen.epochs.equals(run.epochs())
    assert (seen.recorded_steps, seen.checkpoint_step, seen.active) == (len(run.steps()), run.checkpoint_step(), False)
    run.delete()
    assert (seen.status.state, seen.job.net, seen.recorded_steps) == ("finished", job().net, 16)
