"""A group of runs as it goes on: progress, curves and heat-strips, read from the run folders alone."""

from collections.abc import Sequence

import streamlit as st

from pages.ui import moments, strips, widgets, words
from pages.ui.cached import data_info, drawn, look, look_anew
from pages.ui.widgets import columns
from resnet.devices import cores, devices
from resnet.errors import Refused
from resnet.plots import live as live_plots
from resnet.plots.theme import colors
from resnet.runs.curves import Digest, bin_width, race_curves, strip
from resnet.runs.process import start
from resnet.runs.store import Run, Snapshot
from resnet.runs.table import distinct_names
from resnet.train.feeds import steps_per_epoch
from resnet.train.figures import BY_LAYER, FIGURES
from resnet.work.contract import duration
from resnet.work.predict import training

REFRESH_S = 1.0
MAX_CELLS = 5000  # of one heat-strip
POINTS = 250  # of one curve
QUANTITIES = {name: FIGURES[name].label for name in BY_LAYER}
DOING = {"pause": "Pausing", "stop": "Stopping"}
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


def active(group: list[Run]) -> bool:
    return any(look(run).active for run in group)


def show(group: list[Run], charts: bool = True) -> None:
    """The group's view; it redraws itself every second as long as a run of it goes on, and not after."""
    going = active(group)
    st.fragment(_view, run_every=REFRESH_S if going else None)(group, going, charts)


def _view(group: list[Run], going: bool, charts: bool) -> None:
    if going and not active(group):
        st.rerun()  # the whole page, once, so that the refreshing ends
    looks = [look(run) for run in group]
    drawn(_heads, looks)
    _buttons(looks)
    drawn(_batches, looks)
    if charts:
        drawn(_charts, looks)
        if any(seen.recorded_steps for seen in looks):
            labels = QUANTITIES | moments.LABELS
            chosen = widgets.choice("Layer by layer", labels, "live.quantity", labels=labels)
            if chosen in QUANTITIES:
                drawn(_strips, looks, chosen)
            else:
                with widgets.show_errors(Refused):
                    moments.show(looks, chosen, going)


def _heads(looks: Sequence[Snapshot], digests: Sequence[Digest]) -> None:
    origins = [words.origin(seen) for seen in looks]
    alike = len(set(origins)) == 1
    for seen, made, origin, place in zip(looks, digests, origins, columns(len(looks)), strict=True):
        with place:
            _progress(seen, made)
            st.caption(f"{words.beginning(seen)} {'' if alike else origin} {words.tested_elsewhere(seen)}")
    if alike:
        st.caption(origins[0])


def _batches(_: Sequence[Snapshot], digests: Sequence[Digest]) -> None:
    words.batches(digests)


def _progress(seen: Snapshot, made: Digest) -> None:
    status = seen.status
    recorded = " :violet-badge[recorded]" if seen.run.shipped else ""
    st.markdown(f"**{seen.job.title}** :{BADGES[status.state]}-badge[{status.state}]{recorded}")
    share = made.count / status.steps if status.steps else 0.0
    coming = "starting the process" if status.state == "starting" else ""
    said = [f"step {made.count:,} of {status.steps:,}" if status.steps else coming]
    if status.phase == "compiling":
        said.append("compiling the net, half a minute or more")
    elif status.state == "running":
        said.append(status.phase)
    if seen.active and not made.count and (expected := _expected(seen)):
        said += [f"about {duration(expected)} to go"]
    if status.state == "running" and made.count:
        said += [f"{seen.job.recipe.batch / made.step_seconds:,.0f} images/s on {status.device}"]
        left = (status.steps - made.count) * made.step_seconds
        said += [f"{duration(left)} left"] if made.count < status.steps else []
    said += [tests] if (tests := words.accuracy(seen.epochs)) else []
    st.progress(min(1.0, share), " · ".join(filter(None, said)))
    if status.message:
        (st.error if status.state in ("failed", "crashed") else st.info)(status.message)


def _expected(seen: Snapshot) -> float | None:
    """Seconds that it may take, before its first step tells more; None where that is not known."""
    job, images = seen.job, seen.job.train_images
    if (devices()[0] if job.device == "auto" else job.device) != "cpu":
        return None
    try:
        info = data_info(job.data)
    except Refused:
        return None
    per_epoch = steps_per_epoch(images or info.train_images, job.recipe.batch)
    steps = job.recipe.total_steps(per_epoch)
    tested = -(-steps // per_epoch) * info.test_images * (1 + job.recipe.flip_test)
    return training(job.net, job.recipe.batch, steps, tested, job.threads or cores())


def _buttons(looks: Sequence[Snapshot]) -> None:
    own = [seen for seen in looks if not seen.run.shipped]
    if not own:
        return  # they can only be looked at
    going = [seen.run for seen in own if seen.active]
    idle = [seen.run for seen in own if not seen.active and seen.status.state != "finished"]
    with st.container(horizontal=True):
        for what, icon in [("pause", ":material/pause:"), ("stop", ":material/stop:")]:
            if st.button(what.capitalize(), icon=icon, disabled=not going, key=f"live.{what}"):
                for run in going:
                    run.request(what)
                st.toast(f"{DOING[what]} after this step.")
        if st.button("Resume", icon=":material/play_arrow:", disabled=not idle, key="live.resume"):
            with widgets.show_errors(Refused, OSError):
                start(*idle)
                look_anew()
                st.rerun()


def _charts(looks: Sequence[Snapshot], digests: Sequence[Digest]) -> None:
    loss, accuracy = st.columns(2)
    names, longest = distinct_names([seen.run for seen in looks]), max(made.count for made in digests)
    hues = dict(zip(names, colors([seen.job.net.plain for seen in looks]), strict=True))
    tests = {name: seen.epochs for name, seen in zip(names, looks, strict=True)}
    frame = race_curves(dict(zip(names, digests, strict=True)), tests, POINTS)
    # Streamlit's chart takes a longer table for the old one with rows appended where the last column's first and last
    # old values are unchanged, and would then draw wrong rows: so the last column is another one each time.
    recorded = sum(made.count for made in digests) + sum(len(tested) for tested in tests.values())
    frame = frame.assign(recorded=recorded)
    loss.vega_lite_chart(frame.dropna(subset="loss"), live_plots.loss_chart(hues))
    accuracy.vega_lite_chart(frame, live_plots.accuracy_chart(hues))
    width = bin_width(longest, POINTS)
    average = "the figure of a single batch" if width == 1 else f"the average over {width:,} steps"
    st.caption(
        f"Lines: loss (left) and accuracy (right) of the training batches as the net sees them; each point "
        f"is {average}. Diamonds: accuracy on the whole test set after an epoch. Look at which net learns faster."
    )


def _strips(looks: Sequence[Snapshot], digests: Sequence[Digest], quantity: str) -> None:
    layers, longest = max(1, *(made.layers for made in digests)), max(made.count for made in digests)
    figure, limit = FIGURES[quantity], min(100, max(10, MAX_CELLS // layers))
    found = {
        seen.run: (strip(made, quantity, limit, longest), seen.layers)
        for seen, made in zip(looks, digests, strict=True)
    }
    scale = strips.draw(found, figure.label, figure.title)
    st.caption(
        f"log10 of the {figure.meaning} (L2) of every weight layer (down) and step (right), averaged over equal groups "
        f"of steps. One colour scale for all nets, {scale} (1st to 99th percentile): look for layers "
        "that stay dark and for changes with depth."
    )
