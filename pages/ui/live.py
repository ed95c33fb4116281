"""A group of runs as it goes on: progress, curves and heat-strips, read from the run folders alone."""

import math
from collections.abc import Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.ui import widgets, words
from pages.ui.cached import digest
from resnet.errors import Refused
from resnet.plots import live as live_plots
from resnet.plots.runs import colors
from resnet.runs import store as runs
from resnet.runs.curves import Digest, bin_width, curves, heat, robust_limits, strip
from resnet.runs.store import Run

REFRESH_S = 1.0
MAX_CELLS = 5000  # of one heat-strip
POINTS = 250  # of one curve
ABREAST = 3  # nets beside each other
QUANTITIES = {"norms": "gradient norms", "updates": "update-to-weight ratios"}
TITLES = {"norms": "log10 ||dL/dW||", "updates": "log10 ||change of W|| / ||W||"}
BADGES = {
    "starting": "gray",
    "queued": "gray",
    "running": "green",
    "paused": "yellow",
    "stopped": "orange",
    "finished": "blue",
    "failed": "red",
    "crashed": "red",
}


def group_of(run: Run) -> list[Run]:
    """The runs of one race, the residual nets first."""
    every = [*runs.all_runs(), *runs.shipped()]
    same = [other for other in every if run.job.group and other.job.group == run.job.group]
    return sorted(same or [run], key=lambda other: (other.job.net.plain, other.created, other.id))


def active(group: list[Run]) -> bool:
    return any(run.status().state in runs.ACTIVE for run in group)


def show(group: list[Run], charts: bool = True) -> None:
    """The group's view; it redraws itself every second as long as a run of it goes on, and not after."""
    going = active(group)
    st.fragment(_view, run_every=REFRESH_S if going else None)(group, going, charts)


def columns(count: int) -> list[DeltaGenerator]:
    """Places for that many nets, a few beside each other."""
    return [place for first in range(0, count, ABREAST) for place in st.columns(min(ABREAST, count))][:count]


def _view(group: list[Run], going: bool, charts: bool) -> None:
    if going and not active(group):
        st.rerun()  # the whole page, once, so that the refreshing ends
    digests, origins = [digest(run) for run in group], [words.origin(run) for run in group]
    alike = len(set(origins)) == 1
    for run, made, origin, place in zip(group, digests, origins, columns(len(group)), strict=True):
        with place:
            _progress(run, made)
            st.caption(f"{'' if alike else origin} {words.tested_elsewhere(run)}")
    if alike:
        st.caption(origins[0])
    _buttons(group)
    words.batches(digests)
    if charts:
        _charts(group, digests)
        _strips(group, digests)


def _progress(run: Run, made: Digest) -> None:
    status = run.status()
    recorded = " :violet-badge[recorded]" if run.shipped else ""
    st.markdown(f"**{run.job.net.name}** :{BADGES[status.state]}-badge[{status.state}]{recorded}")
    share = made.count / status.steps if status.steps else 0.0
    coming = "starting the process" if status.state == "starting" else ""
    said = [f"step {made.count:,} of {status.steps:,}" if status.steps else coming]
    if status.phase == "compiling":
        said.append("compiling the net, half a minute or more")
    elif status.state == "running":
        said.append(status.phase)
    if status.state == "running" and made.count:
        said += [f"{run.job.recipe['batch'] / made.step_seconds:,.0f} images/s on {status.device}"]
        left = (status.steps - made.count) * made.step_seconds
        said += [f"{duration(left)} left"] if made.count < status.steps else []
    said += [tests] if (tests := words.accuracy(run.epochs())) else []
    st.progress(min(1.0, share), " · ".join(filter(None, said)))
    if status.message:
        (st.error if status.state in ("failed", "crashed") else st.info)(status.message)


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
    if all(run.shipped for run in group):
        return  # they can only be looked at
    states = {run.status().state for run in group}
    with st.container(horizontal=True):
        for what, icon in [("pause", ":material/pause:"), ("stop", ":material/stop:")]:
            if st.button(what.capitalize(), icon=icon, disabled=not states & set(runs.ACTIVE), key=f"live.{what}"):
                for run in group:
                    if run.status().state in runs.ACTIVE:
                        run.request(what)
                st.toast(f"Asked to {what}; it does so after the step it is at.")
        over = (*runs.ACTIVE, "finished")
        idle = [run for run in group if run.status().state not in over and not run.shipped]
        if st.button("Resume", icon=":material/play_arrow:", disabled=not idle, key="live.resume"):
            with widgets.show_errors(Refused, OSError):
                runs.start(*idle)
                st.rerun()


def _charts(group: list[Run], digests: Sequence[Digest]) -> None:
    loss, accuracy = st.columns(2)
    names, longest = words.names(group), max(made.count for made in digests)
    hues = dict(zip(names, colors([run.job.net.plain for run in group]), strict=True))
    frame = _curves(group, names, digests)
    loss.vega_lite_chart(frame.dropna(subset="loss"), live_plots.loss_chart(hues))
    accuracy.vega_lite_chart(frame, live_plots.accuracy_chart(hues))
    width = bin_width(longest, POINTS)
    average = "the figure of a single batch" if width == 1 else f"the average over {width:,} steps"
    st.caption(
        f"Lines: loss (left) and accuracy (right) of the training batches as the net sees them; each point "
        f"is {average}. Diamonds: accuracy on the whole test set after an epoch. Look at which net learns faster."
    )


def _curves(group: list[Run], names: list[str], digests: Sequence[Digest]) -> pd.DataFrame:
    """step, loss, accuracy and test_accuracy in %, net, for all runs of the group.

    The last column differs from one redrawing to the next: Streamlit's chart takes a longer table for the old one with
    rows appended where the last column's first and last old values are unchanged, and would then draw wrong rows.
    """
    parts, recorded, longest = [], 0, max(made.count for made in digests)
    for run, name, made in zip(group, names, digests, strict=True):
        tested = run.epochs()
        recorded += made.count + len(tested)
        tests = pd.DataFrame({"step": tested.step, "test_accuracy": 100 * tested.test_accuracy.astype(float)})
        parts.append(pd.concat([curves(made, POINTS, longest), tests], ignore_index=True).assign(net=name))
    frame = pd.concat(parts, ignore_index=True)
    return frame.reindex(columns=["step", "loss", "accuracy", "test_accuracy", "net"]).assign(recorded=recorded)


def _strips(group: list[Run], digests: Sequence[Digest]) -> None:
    layers, longest = max(1, *(made.layers for made in digests)), max(made.count for made in digests)
    if not longest:
        return
    quantity = widgets.choice("Layer by layer", QUANTITIES, "live.quantity", labels=QUANTITIES)
    limit = min(100, max(10, MAX_CELLS // layers))
    strips = [strip(made, quantity, limit, longest) for made in digests]
    low, high = robust_limits([made.log10 for made in strips])
    chart = live_plots.heat_chart(low, high, TITLES[quantity])
    for name, made, place in zip(words.names(group), strips, columns(len(group)), strict=True):
        with place:
            st.markdown(f"{QUANTITIES[quantity].capitalize()} of **{name}**")
            st.vega_lite_chart(heat(made), chart)
    what = "of the norm of dL/dW" if quantity == "norms" else "of a step's change of W over W (both L2 norms)"
    st.caption(
        f"log10 {what} of every weight layer (down) and step (right), averaged over equal groups of steps. One colour "
        f"scale for all nets, {words.limits(low, high)} (1st to 99th percentile): look for layers that stay dark and "
        "for changes with depth."
    )
