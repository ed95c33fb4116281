"""Strips of what is measured of runs at their checkpoints, while they train or later."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from pages.ui import strips, work
from pages.ui.cached import analysis_reasons, measured
from resnet.analysis.gradients import OUTPUT
from resnet.runs.curves import Strip
from resnet.runs.store import Run, Snapshot
from resnet.work.analysing import Moment
from resnet.work.weights import Model, Weights, kept_epochs

IMAGES = 64


@dataclass(frozen=True)
class Reading:
    """What a strip shows of the table of an analysis: a value for each place of the net, by name."""

    values: Callable[[pd.DataFrame], pd.Series]
    label: str  # in a menu
    meaning: str  # in a sentence
    title: str  # at the colour scale
    rows: str  # at the axis
    look: str


READINGS = {  # by the analysis
    "gradients": Reading(
        lambda table: table[table.kind == OUTPUT].set_index("name")["norm"],
        "gradients of blocks",
        "the norm of dL/dx after the stem and each block",
        "||dL/dx||",
        "1 = stem, then blocks",
        "Do the gradients of both nets become alike, or do the first rows stay apart from the last ones?",
    ),
    "travel": Reading(
        lambda table: (table.branch / table.shortcut).set_axis(table["name"]),
        "branch / shortcut",
        "the gradient's norm through each block's branch over that through its shortcut",
        "branch / shortcut",
        "block (1 = input)",
        "Above 0 the branch carries more of the gradient than the shortcut. Where does training move it?",
    ),
}
LABELS = {analysis: f"{reading.label} (test images)" for analysis, reading in READINGS.items()}


def show(looks: Sequence[Snapshot], analysis: str, going: bool) -> None:
    """One strip for each run to which the analysis applies. Refused."""
    reading, applies = READINGS[analysis], []
    for seen in looks:
        if reason := analysis_reasons(Model(seen.job.net, Weights("run", seen.run.id)))[analysis]:
            st.info(f"{seen.job.title} is left out. {reason}")
        elif seen.checkpoint_step is None:
            st.info(f"{seen.job.title} has no checkpoint yet.")
        else:
            applies.append(seen)
    if not applies:
        return
    found = {seen.run: measured(seen.run, analysis) for seen in applies}
    _measure(applies, analysis, found, going)
    if any(found.values()):
        _draw([seen.run for seen in applies if found[seen.run]], found, reading)


def _measure(looks: Sequence[Snapshot], analysis: str, found: Mapping[Run, dict[int, pd.Series]], going: bool) -> None:
    """Ask for what is missing: at a click, and from then on by itself as long as the training goes on."""
    missing = _collect(looks, analysis, found)
    if going and any(found.values()):
        for moment in missing:
            work.follow(moment)
    elif missing and work.ready(missing, "Measure"):
        _collect(looks, analysis, found)


def _collect(looks: Sequence[Snapshot], analysis: str, found: Mapping[Run, dict[int, pd.Series]]) -> list[Moment]:
    """Put what is done into `found`; the moments that are not done."""
    missing = []
    for seen in looks:
        held = found[seen.run]
        for moment in [moment for step, moment in _moments(seen, analysis).items() if step not in held]:
            done = work.known(moment)
            if done is None:
                missing.append(moment)
            elif done.step is not None:
                held[done.step] = READINGS[analysis].values(done.table)
    return missing


def _moments(seen: Snapshot, analysis: str) -> dict[int, Moment]:
    """By step: those of the kept weights, and of the newest ones."""
    net, run = seen.job.net, seen.run
    steps = dict(zip(seen.epochs.epoch.tolist(), seen.epochs.step.tolist(), strict=True))
    weights = {steps[epoch]: Weights("run", run.id, epoch=epoch) for epoch in kept_epochs(run) if epoch in steps}
    if seen.checkpoint_step is not None:
        weights.setdefault(seen.checkpoint_step, Weights("run", run.id, seen.checkpoint_step))
    return {step: Moment(analysis, Model(net, each), IMAGES) for step, each in weights.items()}


def _draw(runs: Sequence[Run], found: Mapping[Run, dict[int, pd.Series]], reading: Reading) -> None:
    tables = {run: pd.DataFrame(dict(sorted(found[run].items()))) for run in runs}  # places by steps
    with np.errstate(divide="ignore"):  # a gradient of 0 has no colour
        drawn = {
            run: (Strip(np.array([0, *table.columns]), np.log10(table.to_numpy())), list(table.index))
            for run, table in tables.items()
        }
    scale = strips.draw(drawn, reading.label, reading.title, reading.rows)
    st.caption(
        f"log10 of {reading.meaning}, on {IMAGES} test images in train mode, at each checkpoint that was there to be "
        f"measured: a column ends at its step. One colour scale for all nets, {scale}. {reading.look}"
    )
