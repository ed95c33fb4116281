"""Several runs in one chart, with the paper's test errors as lines."""

from collections.abc import Sequence

import streamlit as st

from pages.ui import widgets
from pages.ui.cached import digest, look
from resnet.plots import runs as run_plots
from resnet.plots.runs import Level, Line
from resnet.plots.theme import colors
from resnet.runs.curves import curves
from resnet.runs.jobs import Job
from resnet.runs.store import Run, Snapshot
from resnet.runs.table import distinct_names
from resnet.train.feeds import steps_per_epoch
from resnet.train.recipes import differences
from resnet.zoo.he2015 import published_error

MOST = 8
BINS = 250
FIGURES = {
    "accuracy": "test accuracy (%)",
    "error": "test error (%)",
    "loss": "training loss (cross-entropy), running average",
}
AXES = ("epoch", "step")


def show(picked: Sequence[Run]) -> None:
    if len(picked) > MOST:
        st.info(f"A chart holds up to {MOST} runs. {len(picked)} are ticked; the first {MOST} of them are shown.")
    found = [look(run) for run in picked[:MOST]]
    with st.container(horizontal=True):
        labels = {name: title.split(" (")[0] for name, title in FIGURES.items()}
        figure = widgets.choice("Compare", FIGURES, "overlay.figure", labels=labels)
        axis = widgets.choice("By", AXES, "overlay.axis")
    hues = colors([seen.job.net.plain for seen in found])
    names = distinct_names([seen.run for seen in found])
    lines = [_line(seen, name, hue, figure, axis) for seen, name, hue in zip(found, names, hues, strict=True)]
    if not any(len(line.x) for line in lines):
        st.info("Nothing has been recorded for this chart yet.")
        return
    levels = [] if figure == "loss" else _levels(found, hues, figure)
    text = "Training batches, averaged over equal groups" if figure == "loss" else "The whole test set after each epoch"
    chart = run_plots.line_chart(lines, axis, FIGURES[figure], levels=levels)
    widgets.chart(chart, f"{text}. Dashed curves: plain nets.", "overlay.chart")
    if figure != "loss":
        _fairness(found, names)


def _line(seen: Snapshot, name: str, hue: str, figure: str, axis: str) -> Line:
    dash = "dash" if seen.job.net.plain else "solid"
    if figure != "loss":
        share = 100 * seen.epochs.test_accuracy.to_numpy()
        x = seen.epochs[axis].to_numpy()
        return Line(name, hue, x, share if figure == "accuracy" else 100 - share, dash, points=True)
    frame = curves(digest(seen), BINS)
    x = frame.step.to_numpy()
    return Line(name, hue, x / _per_epoch(seen) if axis == "epoch" else x, frame.loss.to_numpy(), dash)


def _per_epoch(seen: Snapshot) -> int:
    return steps_per_epoch(int(seen.info.get("train_images", 1)), seen.job.recipe.batch)


def _error(job: Job) -> float | None:
    """The paper's test error of the run's very net on CIFAR-10."""
    net = job.net
    as_there = (net.image_size, net.classes, net.in_channels) == (32, 10, 3)
    return published_error(net.name, job.data) if as_there else None


def _levels(found: Sequence[Snapshot], hues: Sequence[str], figure: str) -> list[Level]:
    """A line for each net that the paper's table has."""
    levels: dict[str, Level] = {}
    for seen, hue in zip(found, hues, strict=True):
        if (error := _error(seen.job)) is not None:
            name = seen.job.net.name
            value = error if figure == "error" else 100 - error
            levels.setdefault(name, Level(value, f"{name} in He 2015, Table 6: {error} % error", hue))
    return list(levels.values())


def _fairness(found: Sequence[Snapshot], names: Sequence[str]) -> None:
    """Which of the runs the paper's figures may be held against, and why not."""
    said = []
    for seen, name in zip(found, names, strict=True):
        job = seen.job
        if _error(job) is not None:
            whole = job.train_images in (None, 50_000)
            reasons = differences(job.recipe, str(seen.info.get("source", "")), whole)
            unfair = "Not a fair comparison with the paper: " + "; ".join(reasons)
            said.append(f"- {name}: {unfair if reasons else 'trained as in the paper'}.")
        elif job.data == "cifar10" and job.net.plain:
            said.append(f"- {name}: the paper's Table 6 has no plain nets, so there is no line for it.")
    if any(seen.job.net.name == "ResNet-110" for seen in found):
        said.append("- The paper's ResNet-110 is the best of five runs (mean 6.61 %); the others are single runs.")
    if said:
        st.caption("\n".join(said))
