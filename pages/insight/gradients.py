"""Gradients: how large the loss's gradient is along the depth of a net and of its plain twin."""

import dataclasses

import numpy as np
import pandas as pd
import streamlit as st

from pages.ui import state, widgets
from pages.ui.cached import NOISE, gradients_at_start, gradients_of_run, net_profile
from resnet.analysis.gradients import OUTPUT, WEIGHT, end_ratio, fit_factor
from resnet.costs.profiler import stage_of
from resnet.data import dataset as data
from resnet.errors import Refused
from resnet.nets.spec import NetSpec, SpecError, plain_twin
from resnet.plots import analysis as analysis_plots
from resnet.runs import store as runs
from resnet.runs.store import Run

MEMORY = 4e9  # bytes that a batch may take in this process
START = "at initialisation"


def batch_limit(spec: NetSpec) -> int:
    """How many images fit: float32 weights, their copy and gradients, and every layer's output kept for the way back.

    SpecError where not even two do, which batch norm needs.
    """
    net = net_profile(spec)
    weights, image = 4 * 3 * net.params, 4 * net.activations
    if weights + 2 * image > MEMORY:
        needed = f"{(weights + 2 * image) / 1e9:,.1f} GB for two images"
        raise SpecError(
            "stages", "This net is too large to be run inside the app.", needed, f"up to {MEMORY / 1e9:.0f} GB"
        )
    return min(256, int((MEMORY - weights) / image))


def batch_field(spec: NetSpec) -> int:
    limit = batch_limit(spec)
    return st.number_input("Batch", 2, limit, min(128, limit), key=f"gradients.batch.{limit}")


def at_start(spec: NetSpec) -> pd.DataFrame:
    """Norms of both untrained twins, with the switches that change the story."""
    switches = {"batch": "batch norm", "group": "group norm", "none": "no norm"}
    norm = widgets.choice("Norm", switches, "gradients.norm", "Without batch norm the story turns round.", switches)
    zero = st.toggle("Zero-init each branch's end", key="gradients.zero", disabled=spec.skip_init)
    seed = st.number_input("Seed", 0, 2**31, 0, key="gradients.seed", persist_state="session")
    offered = [name for name in data.available() if (spec.classes, spec.in_channels, spec.frames) == (10, 3, 0)]
    source = st.selectbox("Images", [NOISE, *offered], key="gradients.source")
    count = batch_field(spec)
    nets = [spec, plain_twin(spec)] if not spec.plain else [spec]
    rescued = zero and not spec.skip_init
    switched = [dataclasses.replace(net, norm=norm, zero_init=rescued and not net.plain) for net in nets]
    frames = [gradients_at_start(net, seed, source, count) for net in switched]
    return labelled(nets, frames)


def of_runs(chosen: list[Run]) -> pd.DataFrame:
    count = batch_field(chosen[0].job.net)
    st.caption(f"On test images of {chosen[0].job.data}.")
    frames = [gradients_of_run(run.id, run.checkpoint_step() or 0, count) for run in chosen]
    return labelled([run.job.net for run in chosen], frames)


def labelled(nets: list[NetSpec], frames: list[pd.DataFrame]) -> pd.DataFrame:
    named = [frame.assign(net=net.name, plain=net.plain) for net, frame in zip(nets, frames, strict=True)]
    return pd.concat(named, ignore_index=True)


def races() -> dict[str, list[Run]]:
    """Groups of trained runs by a title, the newest first."""
    groups: dict[str, list[Run]] = {}
    for run in [*runs.all_runs(), *runs.shipped()]:
        if run.checkpoint_step():
            groups.setdefault(run.job.group or run.id, []).append(run)
    ordered = [sorted(group, key=lambda run: run.job.net.plain) for group in groups.values()]
    return {" and ".join(f"{run.job.net.name} ({run.id[:15]})" for run in group): group for group in ordered}


def reading(frame: pd.DataFrame, kind: str) -> str:
    """A half sentence with the fitted factor of each net; stem and head are no part of a fit over weights."""
    words = []
    for net, rows in frame.groupby("net", sort=False):
        rows = rows[rows.name.map(stage_of).str.startswith("stage")] if kind == WEIGHT else rows
        drawn = rows[(rows.norm > 0) & np.isfinite(rows.norm)]
        zeros = f" ({len(rows) - len(drawn)} of {len(rows)} are 0 and have no place on a log axis)"
        if len(drawn) < 2:
            words.append(f"in {net} there is nothing to fit{zeros}")
            continue
        factor = fit_factor(drawn.depth, drawn.norm)
        change = f"grows {factor:.3f}x" if factor > 1 else f"shrinks {1 / factor:.3f}x"
        ratio = f" and is {end_ratio(drawn.norm):,.3g}x as large at the start" if kind == OUTPUT else ""
        words.append(f"in {net} it {change} per layer{ratio}{zeros if len(drawn) < len(rows) else ''}")
    return f"going back towards the input, {', '.join(words)} (least-squares fits to the log over the stages)"


def show(frame: pd.DataFrame, where: str) -> None:
    weights = frame[frame.kind == WEIGHT]
    first = weights.drop_duplicates("name").assign(stage=lambda rows: rows.name.map(stage_of))
    borders = {str(stage): float(rows.depth.min()) for stage, rows in first.groupby("stage", sort=False)}
    for kind, quantity, text in [
        (OUTPUT, "||dL/dx||", "Gradient of the loss with respect to the stem's and each block's output"),
        (WEIGHT, "||dL/dW||", "Gradient of the loss with respect to each layer's weights"),
    ]:
        rows = frame[frame.kind == kind]
        st.subheader(f"{quantity} against depth")
        figure = analysis_plots.gradient_depth(rows, borders, f"{quantity} (L2 norm)")
        widgets.chart(figure, f"{text}, {where}: {reading(rows, kind)}.", f"gradients.{kind}")


st.title("Gradients")
st.markdown(
    "“Without shortcuts the gradient vanishes on its way back to the first layers”, many textbooks say. Measure it: "
    "with batch norm and He initialisation a deep plain net's gradients do not vanish, they **grow** towards the input "
    "(He et al. 2015, section 4.1, found “healthy norms with BN”), and shortcuts slow that growth down. "
    "Then switch the norm off."
)
controls, picture = st.columns([1, 2.6], gap="large")
with controls:
    current = state.net()
    trained = races()
    when = widgets.choice("Weights", (START, "after training"), "gradients.when")
    result, place = None, ""
    with widgets.show_errors(Refused):
        if when == START:
            widgets.net_field(current, "gradients.net")
            result, place = at_start(current), "at initialisation, on one batch"
        elif not trained:
            st.info("No run has weights yet. Train one on the Train page.")
        else:
            title = st.selectbox("Runs", list(trained), key="gradients.runs")
            result, place = of_runs(trained[title]), "after training, on one batch of test images in train mode"
with picture:
    if result is not None:
        show(result, place)
