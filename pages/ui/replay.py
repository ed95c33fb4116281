"""A group of runs at one of its epochs: curves, heat-strips, what the nets say, weight updates."""

import bisect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from pages.ui import live, state, verdicts, widgets, words
from pages.ui.cached import digest, look
from pages.ui.verdicts import Verdict
from resnet.plots import runs as run_plots
from resnet.plots.runs import Level, Line
from resnet.plots.theme import colors
from resnet.runs.answers import answers
from resnet.runs.curves import Digest, curves, robust_limits, strip
from resnet.runs.store import Run, Snapshot
from resnet.runs.table import distinct_names
from resnet.train.figures import FIGURES

REFRESH_S = 10.0
PLAY_S = 1.0  # an epoch
PLAYING, DUE = "replay.playing", "replay.due"  # the group that plays, and when it shows its next epoch
BINS = 250  # of one curve
CELLS = 120  # steps of one heat-strip
RULE = Level(1e-3, "0.001, the rule of thumb")
DASHES = ("dot", "dash", "dashdot", "longdash")


@dataclass(frozen=True)
class Moment:
    """One run at an epoch; `step` is the last one tested up to it, None before the first."""

    seen: Snapshot
    name: str
    color: str
    epoch: int | None
    digest: Digest

    @property
    def tested(self) -> pd.DataFrame:
        return self.seen.epochs

    @property
    def step(self) -> int | None:
        steps = self.tested.step[self.tested.epoch <= (self.epoch or 0)]
        return int(steps.iloc[-1]) if len(steps) else None


def show(group: list[Run]) -> None:
    """The scrubber and the chosen view; a group that goes on is read again now and then."""
    every = PLAY_S if _plays(group) else REFRESH_S if live.active(group) else None
    st.fragment(_view, run_every=every)(group)


def _plays(group: list[Run]) -> bool:
    return bool(state.widget(PLAYING) == group[0].id)


def _view(group: list[Run]) -> None:
    epoch = _scrubber(group)
    hues = colors([run.job.net.plain for run in group])
    parts = zip(map(look, group), distinct_names(group), hues, strict=True)
    moments = [Moment(seen, name, hue, epoch, digest(seen)) for seen, name, hue in parts]
    view = widgets.choice("At this epoch", VIEWS, "replay.view")
    if max(moment.digest.count for moment in moments):
        VIEWS[view](moments)
    else:
        st.info("No step has been recorded yet.")


def _scrubber(group: list[Run]) -> int | None:
    """The epoch chosen, the last one until somebody moves it; None before the first test."""
    epochs = sorted({int(epoch) for run in group for epoch in look(run).epochs.epoch})
    if len(epochs) < 2:
        said = f"One epoch has been tested so far: number {epochs[0]}." if epochs else "No epoch has been tested yet."
        st.caption(said)
        return epochs[0] if epochs else None
    # Another range is another slider, so the place is kept beside it and the last epoch is followed.
    place, key = f"replay.at.{group[0].id}", f"replay.epoch.{group[0].id}.{epochs[-1]}"
    if state.widget(key) is None:
        state.set_widgets({key: state.widget(place) or epochs[-1]})
    left, right = st.columns([6, 1], vertical_alignment="bottom")
    label, icon = ("Pause", "pause") if _plays(group) else ("Play", "play_arrow")
    if right.button(label, icon=f":material/{icon}:", key="replay.play", on_click=_toggle, args=(group, epochs, key)):
        st.rerun()  # the whole page, for that sets how often the view is drawn
    if _plays(group) and time.monotonic() >= state.widget(DUE, 0.0):
        _advance(epochs, key)
    epoch = left.slider("Epoch", epochs[0], epochs[-1], key=key)
    state.set_widgets({place: epoch if epoch < epochs[-1] else None})
    return epoch


def _toggle(group: list[Run], epochs: list[int], key: str) -> None:
    """Play from here, or from the beginning where here is the end; or pause."""
    if _plays(group):
        state.set_widgets({PLAYING: None})
        return
    if state.widget(key) == epochs[-1]:
        state.set_widgets({key: epochs[0]})
    state.set_widgets({PLAYING: group[0].id, DUE: time.monotonic() + PLAY_S})


def _advance(epochs: list[int], key: str) -> None:
    """To the next epoch; after the last one the playing ends."""
    following = epochs[bisect.bisect_right(epochs, state.widget(key)) :]
    if not following:
        state.set_widgets({PLAYING: None})
        st.rerun()
    state.set_widgets({key: following[0], DUE: time.monotonic() + PLAY_S})


def _longest(moments: Sequence[Moment]) -> int:
    return max(moment.digest.count for moment in moments)


def _at(moments: Sequence[Moment]) -> int | None:
    return max((moment.step for moment in moments if moment.step), default=None)


def _curves(moments: Sequence[Moment]) -> None:
    for moment in moments:
        for row in moment.tested[moment.tested.step == moment.step].tail(1).to_dict("records"):
            st.markdown(
                f"**{moment.name}** at epoch {row['epoch']}, step {row['step']:,}: "
                f"test accuracy {100 * row['test_accuracy']:.2f} %, test loss {row['test_loss']:.3f}"
            )
    at, losses, accuracies = _at(moments), [], []
    for moment in moments:
        frame, name, hue = curves(moment.digest, BINS, _longest(moments)), moment.name, moment.color
        steps, tested = frame.step.to_numpy(), moment.tested
        losses.append(Line(name, hue, steps, frame.loss.to_numpy()))
        accuracies.append(Line(name, hue, steps, frame.accuracy.to_numpy(), legend=False, width=1))
        shares = 100 * tested.test_accuracy.to_numpy()
        accuracies.append(Line(f"{name}, test", hue, tested.step.to_numpy(), shares, points=True))
    left, right = st.columns(2)
    with left:
        figure = run_plots.line_chart(losses, "step", "training loss (cross-entropy)", at)
        widgets.chart(figure, "Running average up to the epoch; what came after it is faint.", "replay.loss")
    with right:
        figure = run_plots.line_chart(accuracies, "step", "accuracy (%)", at)
        caption = "Thin: training batches, running average. Bold: the whole test set after each epoch."
        if any(moment.seen.job.net.norm == "batch" for moment in moments):
            caption += " A dip of the bold line alone is usually batch norm's: tests use its running statistics, which "
            caption += "lag behind weights that change fast."
        widgets.chart(figure, caption, "replay.accuracy")
    _strips(moments, "norms")


def _strips(moments: Sequence[Moment], quantity: str) -> None:
    """A heat-strip for each net, on one colour scale."""
    strips = [strip(moment.digest, quantity, CELLS, _longest(moments)) for moment in moments]
    low, high = limits = robust_limits([made.log10 for made in strips])
    for number, (moment, made, place) in enumerate(zip(moments, strips, widgets.columns(len(moments)), strict=True)):
        with place:
            figure = run_plots.strip_chart(made.log10, made.borders, moment.seen.layers, limits, _at(moments))
            what = f"{FIGURES[quantity].meaning}, layer (down) by step; log colour, {words.limits(low, high)}"
            text = f"**{moment.name}**: {what}."
            widgets.chart(figure, text, f"replay.{quantity}.{number}")
    st.caption(
        "Colour limits: the 1st to the 99th percentile of all cells, in whole decades"
        + (", the same for all nets." if len(moments) > 1 else ".")
    )


def _updates(moments: Sequence[Moment]) -> None:
    layers = list(dict.fromkeys(name for moment in moments for name in moment.seen.layers))
    ends = list(dict.fromkeys([layers[0], layers[-1]]))
    chosen = st.multiselect("Layers to draw", layers, ends, max_selections=len(DASHES))
    lines = [line for moment in moments for line in _update_lines(moment, chosen, _longest(moments))]
    title = f"{FIGURES['updates'].title} of a step"
    widgets.chart(
        run_plots.line_chart(lines, "step", title, _at(moments), [RULE], log=True),
        "Update-to-weight ratio: bold, the median over all layers; thin, the layers chosen above; averaged over equal "
        "groups of steps. A common rule of thumb wants about 0.001 (CS231n's notes on training; A. Karpathy's makemore "
        "lectures): far above it training is unstable, far below it the weights hardly move. It is a rough guide: "
        "under batch norm the length of W does not change what the layer computes.",
        "replay.update-lines",
    )
    _strips(moments, "updates")


def _update_lines(moment: Moment, chosen: Sequence[str], longest: int) -> list[Line]:
    made = strip(moment.digest, "updates", BINS, longest)
    if not moment.digest.count:
        return []
    name, hue, ratios = moment.name, moment.color, 10**made.log10
    rows = dict(zip(moment.seen.layers, ratios, strict=True))
    return [
        Line(f"{name}, median", hue, made.ends, np.median(ratios, axis=0), width=3),
        *(
            Line(f"{name}, {layer}", hue, made.ends, rows[layer], dash, width=1.2)
            for layer, dash in zip(chosen, DASHES, strict=False)
            if layer in rows
        ),
    ]


def _judged(draw: Callable[[Sequence[Verdict]], None]) -> Callable[[Sequence[Moment]], None]:
    """A view of the nets whose predictions at the epoch are kept; the others are told."""

    def view(moments: Sequence[Moment]) -> None:
        kept = []
        for moment in moments:
            if (found := answers(moment.seen.run, moment.epoch)) is not None:
                kept.append(Verdict(moment.name, moment.color, found))
            else:
                st.info(f"No predictions of {moment.name} are kept for this epoch.")
        if kept:
            draw(kept)

    return view


VIEWS: dict[str, Callable[[Sequence[Moment]], None]] = {
    "Curves": _curves,
    "Confusion matrix": _judged(lambda found: verdicts.matrices(found, widgets.columns(len(found)))),
    "Classes": _judged(verdicts.classes),
    "Pictures": _judged(verdicts.pictures),
    "Weight updates": _updates,
}
