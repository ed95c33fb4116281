"""Runs side by side: a table of them, and names that differ."""

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from resnet.runs.store import Run, Snapshot
from resnet.train.recipes import recipe_name


def run_table(looks: Sequence[Snapshot]) -> pd.DataFrame:
    """A row per run: net, data, recipe, state, steps, of, last test and best test in %, started, run (its id)."""
    return pd.DataFrame([_row(seen) for seen in looks])


def _row(seen: Snapshot) -> dict[str, object]:
    tested = 100 * seen.epochs.test_accuracy
    return {
        "net": seen.job.title,
        "data": seen.job.data,
        "recipe": recipe_name(seen.job.recipe),
        "state": "recorded" if seen.run.shipped else seen.status.state,
        "steps": seen.recorded_steps,
        "of": seen.status.steps,
        "last test": tested.iloc[-1] if len(tested) else None,
        "best test": tested.max() if len(tested) else None,
        "started": start_time(seen.run),
        "run": seen.run.id,
    }


def start_time(run: Run) -> datetime | None:
    """By its id: a copy of the folder, as recorded runs are, is younger than the run."""
    try:
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return None


def distinct_names(found: Sequence[Run]) -> list[str]:
    """The jobs' titles; where they repeat, with the recipe, and where that repeats, with the end of the run's id."""
    own = [run.job.title for run in found]
    both = [f"{name}, {recipe_name(run.job.recipe)}" for name, run in zip(own, found, strict=True)]
    full = [f"{name} ({run.id[-4:]})" for name, run in zip(both, found, strict=True)]
    forms = list(zip(own, both, full, (run.id for run in found), strict=True))
    repeated = [{name for name in column if column.count(name) > 1} for column in zip(*forms, strict=True)]
    return [next((f for f, again in zip(form, repeated, strict=True) if f not in again), form[-1]) for form in forms]
