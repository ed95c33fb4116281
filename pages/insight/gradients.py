"""Gradients: how large the loss's gradient is along the depth of a net and of its plain twin."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from pages.ui import pretrained, state, widgets, work
from pages.ui.cached import data_changed
from resnet.analysis.gradients import OUTPUT, WEIGHT, trend
from resnet.data import dataset as data
from resnet.errors import Refused
from resnet.nets.spec import NetSpec, twins
from resnet.plots import analysis as analysis_plots
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.work.contract import Request
from resnet.work.predict import backward, batch_limit, in_turn
from resnet.work.requests import Gradients, RunGradients
from resnet.work.weights import Model, Weights

START, TRAINED, WEIGHTS = "at initialisation", "after training", "other weights"


NOISE = "Gaussian noise"
BATCHES = (128, 64, 32, 16, 8)  # the first choice is the largest that is light work, else the last one


def batch_field(nets: Sequence[NetSpec]) -> int:
    """Images of the batch, as many as fit; Refused where not even two do."""
    limit = min(batch_limit(net) for net in nets)
    offered = [size for size in BATCHES if size <= limit] or [limit]
    light = (size for size in offered if in_turn([backward(net, size) for net in nets]).light)
    first = next(light, offered[-1])
    return st.number_input("Batch", 2, limit, first, key=f"gradients.batch.{limit}.{first}")


def at_start(spec: NetSpec) -> Request:
    """The norms of both untrained twins, with the switches that change the story."""
    switches = {"batch": "batch norm", "group": "group norm", "none": "no norm"}
    norm = widgets.choice("Norm", switches, "gradients.norm", "Without batch norm the result is reversed.", switches)
    zero = st.toggle("Start every branch at zero (zero-init)", key="gradients.zero", disabled=spec.skip_init)
    seed = st.number_input("Seed", 0, 2**31, 0, key="gradients.seed", persist_state="session")
    rescued = zero and not spec.skip_init
    switched = [replace(net, norm=norm, zero_init=rescued and not net.plain) for net in twins(spec)]
    return on_images([Model(net, Weights("seed", str(seed))) for net in switched])


def of_weights(spec: NetSpec) -> Request | None:
    """The norms of one net with weights from anywhere; None before they are there."""
    chosen = pretrained.field(spec, "gradients.weights")
    return on_images([Model(spec, chosen.weights, chosen.inputs)]) if chosen else None


def on_images(models: list[Model]) -> Request:
    spec = models[0].described
    offered = [name for name in data.available() if (spec.classes, spec.in_channels, spec.frames) == (10, 3, 0)]
    source = st.selectbox("Images", [NOISE, *offered], key="gradients.source")
    count = batch_field([model.described for model in models])
    named, changed = ("", 0.0) if source == NOISE else (source, data_changed(source))
    return Gradients(tuple(models), named, count, changed)


def of_runs(chosen: list[Run]) -> Request:
    count = batch_field([run.job.net for run in chosen])
    st.caption(f"On test images of {chosen[0].job.data}.")
    return RunGradients(tuple(map(Model.of, chosen)), count)


def races() -> dict[str, list[Run]]:
    """Groups of trained runs by a title, the newest first."""
    groups: dict[str, list[Run]] = {}
    for run in runs.every():
        if run.checkpoint_step():
            groups.setdefault(run.job.group or run.id, []).append(run)
    ordered = [sorted(group, key=lambda run: run.job.net.plain) for group in groups.values()]
    return {" and ".join(f"{run.job.net.name} ({run.id[:15]})" for run in group): group for group in ordered}


def amount(value: float) -> str:
    """Three digits, in full where a reader can take them in: 9.21, 13,700, 1.2e+20."""
    return f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= value < 1e15 else f"{value:.3g}"


def reading(frame: pd.DataFrame, kind: str) -> str:
    """What happens to the norms of each net on the way back to the input."""
    words = []
    for net, rows in frame.groupby("net", sort=False):
        found = trend(rows, kind)
        change = "nothing to fit" if found.factor is None else f"×\N{NO-BREAK SPACE}{found.factor:#.3g} per layer"
        text = f"{change} in {net}"
        if found.ratio is not None and kind == OUTPUT:
            larger = found.ratio >= 1
            times = amount(found.ratio if larger else 1 / found.ratio)
            text += f", {times} times {'larger' if larger else 'smaller'} at the input end"
        if found.left_out:
            text += f" ({found.left_out} of {found.norms} norms are 0 or not finite: a log axis cannot show them)"
        words.append(text)
    return f"Towards the input: {'; '.join(words)} (least-squares fits to the log over the stages)"


def show(frame: pd.DataFrame, where: str) -> None:
    weights = frame[frame.kind == WEIGHT]
    first = weights.drop_duplicates("name")
    borders = {str(stage): float(rows.depth.min()) for stage, rows in first.groupby("stage", sort=False)}
    for kind, quantity, text in [
        (OUTPUT, "||dL/dx||", "Gradient of the loss with respect to the stem's and each block's output"),
        (WEIGHT, "||dL/dW||", "Gradient of the loss with respect to each layer's weights"),
    ]:
        rows = frame[frame.kind == kind]
        st.subheader(f"{quantity} against depth")
        figure = analysis_plots.gradient_depth(rows, borders, f"{quantity} (L2 norm)")
        widgets.chart(figure, f"{text}, {where}. {reading(frame, kind)}.", f"gradients.{kind}")


controls, picture = st.columns([1, 2.6], gap="large")
with controls:
    current = state.net()
    trained = races()
    when = widgets.choice("Weights", (START, TRAINED, WEIGHTS), "gradients.when")
    request, place = None, ""
    with widgets.show_errors(Refused):
        if when == START:
            widgets.net_field(current, "gradients.net")
            request, place = at_start(current), "at initialisation, on one batch"
        elif when == WEIGHTS:
            widgets.net_field(current, "gradients.net")
            request, place = of_weights(current), "with these weights, on one batch in train mode"
        elif not trained:
            st.info("No run has weights yet. Train one on the Train page.")
        else:
            title = st.selectbox("Runs", list(trained), key="gradients.runs")
            request, place = of_runs(trained[title]), "after training, on one batch of test images in train mode"
with picture, widgets.show_errors(Refused):
    if request and (frame := work.result(request)) is not None:
        show(frame, place)
