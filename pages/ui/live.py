"""A group of runs as it goes on: progress, curves and heat-strips, read from the run folders alone."""

import math

import numpy as np
import pandas as pd
import streamlit as st

from pages.ui import widgets
from resnet import plots, runs
from resnet.curves import curves, heat, step_seconds
from resnet.runs import Run, RunError

REFRESH_S = 1.0
MAX_CELLS = 5000  # of one heat-strip
BADGES = {
    "starting": "gray",
    "running": "green",
    "paused": "yellow",
    "stopped": "orange",
    "finished": "blue",
    "failed": "red",
    "crashed": "red",
}


def group_of(run: Run) -> list[Run]:
    """The runs of one race, the residual net first."""
    same = [other for other in runs.all_runs() if run.job.group and other.job.group == run.job.group]
    return sorted(same or [run], key=lambda other: (other.job.net.plain, other.created))


def active(group: list[Run]) -> bool:
    return any(run.status().state in runs.ACTIVE for run in group)


def show(group: list[Run]) -> None:
    """The group's view; it redraws itself every second as long as a run of it goes on, and not after."""
    going = active(group)
    st.fragment(_view, run_every=REFRESH_S if going else None)(group, going)


def _view(group: list[Run], going: bool) -> None:
    if going and not active(group):
        st.rerun()  # the whole page, once, so that the refreshing ends
    read = [run.steps() for run in group]
    for run, records, column in zip(group, read, st.columns(len(group)), strict=True):
        with column:
            _progress(run, records)
    _buttons(group)
    loss, accuracy = st.columns(2)
    frame = _curves(group, read)
    loss.vega_lite_chart(frame.dropna(subset="loss"), plots.LOSS_CHART)
    accuracy.vega_lite_chart(frame, plots.ACCURACY_CHART)
    st.caption(
        "Loss (left) and accuracy (right) of the training batches, averaged over equal groups of steps, and as "
        "diamonds the accuracy on the whole test set after an epoch: look at which net learns faster."
    )
    _strips(group, read)


def _progress(run: Run, records: np.ndarray) -> None:
    status = run.status()
    st.markdown(f"**{run.job.net.name}** :{BADGES[status.state]}-badge[{status.state}]")
    done, seconds = len(records), step_seconds(records)
    share = done / status.steps if status.steps else 0.0
    words = [f"step {done:,} of {status.steps:,}" if status.steps else status.phase or "starting the process"]
    if status.state == "running" and done:
        words += [status.phase, f"{run.job.recipe['batch'] / seconds:,.0f} images/s on {status.device}"]
        words += [f"{duration((status.steps - done) * seconds)} left"] if done < status.steps else []
    tested = run.epochs()
    if len(tested):
        words.append(f"test accuracy {100 * tested.test_accuracy.iloc[-1]:.1f} % after epoch {tested.epoch.iloc[-1]}")
    st.progress(min(1.0, share), " · ".join(words))
    if status.message:
        st.error(status.message)


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown time"
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _buttons(group: list[Run]) -> None:
    states = {run.status().state for run in group}
    with st.container(horizontal=True):
        for what, icon in [("pause", ":material/pause:"), ("stop", ":material/stop:")]:
            if st.button(what.capitalize(), icon=icon, disabled=not states & set(runs.ACTIVE), key=f"live.{what}"):
                for run in group:
                    if run.status().state in runs.ACTIVE:
                        run.request(what)
                st.toast(f"Asked to {what}; it does so after the step it is at.")
        idle = [run for run in group if run.status().state not in (*runs.ACTIVE, "finished")]
        if st.button("Resume", icon=":material/play_arrow:", disabled=not idle, key="live.resume"):
            with widgets.told(RunError, OSError):
                for run in idle:
                    runs.start(run)
                st.rerun()


def _curves(group: list[Run], read: list[np.ndarray]) -> pd.DataFrame:
    """step, loss, accuracy and test_accuracy in %, net, kind, for all runs of the group.

    The last column differs from one redrawing to the next: Streamlit's chart takes a longer table for the old one with
    rows appended where the last column's first and last old values are unchanged, and would then draw wrong rows.
    """
    parts, recorded = [], 0
    for run, records in zip(group, read, strict=True):
        tested = run.epochs()
        recorded += len(records) + len(tested)
        tests = pd.DataFrame({"step": tested.step, "test_accuracy": 100 * tested.test_accuracy.astype(float)})
        both = pd.concat([curves(records, 250, max(map(len, read))), tests], ignore_index=True)
        parts.append(both.assign(net=run.job.net.name, kind="plain" if run.job.net.plain else "residual"))
    frame = pd.concat(parts, ignore_index=True)
    return frame.reindex(columns=["step", "loss", "accuracy", "test_accuracy", "net", "kind"]).assign(recorded=recorded)


def _strips(group: list[Run], read: list[np.ndarray]) -> None:
    layers = max(1, *(len(run.layers) for run in group))
    limit, longest = min(100, max(10, MAX_CELLS // layers)), max(map(len, read))
    frames = [heat(records, limit, longest) for records in read]
    values = np.concatenate([frame.log10 for frame in frames])
    if not len(values):
        return
    spec = plots.heat_chart(math.floor(np.quantile(values, 0.01)), math.ceil(np.quantile(values, 0.99)))
    for run, frame, column in zip(group, frames, st.columns(len(group)), strict=True):
        with column:
            st.markdown(f"Gradient norms of **{run.job.net.name}**")
            st.vega_lite_chart(frame, spec)
    st.caption(
        "log10 of the norm of dL/dW of every weight layer (down) and step (right), averaged over equal groups of "
        "steps, on one colour scale for all nets: look for layers that stay dark and for changes with depth."
    )
