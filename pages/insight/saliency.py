"""Saliency: what both twins look at in an uploaded photo or a sample."""

import numpy as np
import streamlit as st

from pages.ui import live, widgets, work
from pages.ui.cached import explainable_layers, look, photo_pixels, sample_pixels, samples
from resnet.attribution.methods import METHODS, common_scale
from resnet.errors import Refused
from resnet.limits import PHOTO_MB
from resnet.nets.spec import cifar, twins
from resnet.plots import attribution as attribution_plots
from resnet.runs import store as runs
from resnet.runs.jobs import Job
from resnet.runs.process import race
from resnet.runs.store import Run
from resnet.train.recipes import Recipe
from resnet.work.requests import Answer, Answers, At, Maps, Picture

QUICK_NET = cifar(8)
QUICK_RECIPE = Recipe(epochs=3, batch=32, augment=False)  # on shapes: 87 % (residual) and 93 % (plain)


def quick_start() -> None:
    """Before any pair of runs exists: say so, and train a small one at one click."""
    st.info(
        "There is no trained pair of twins yet, so nothing can be explained. It takes a residual run and a plain one."
    )
    going = [run for run in runs.all_runs() if look(run).active]
    if going:
        live.show(runs.race_of(going[0]))
    elif st.button("Train a small pair on drawn shapes (about a minute)", type="primary", icon=":material/play_arrow:"):
        race(Job(QUICK_NET, "shapes", QUICK_RECIPE), twins(QUICK_NET))
        st.rerun()


def run_field(label: str, choices: list[Run], key: str) -> Run:
    return st.selectbox(
        label, choices, key=key, format_func=lambda run: f"{run.job.net.name} on {run.job.data} ({run.id[:15]})"
    )


def pair_fields() -> tuple[Run, Run]:
    """A residual run, and a plain run that was trained on the same data."""
    plain_runs = runs.trained(plain=True)
    usable = [run for run in runs.trained(plain=False) if any(run.job.data == other.job.data for other in plain_runs)]
    residual = run_field("Residual net", usable, "saliency.residual")
    fitting = [run for run in plain_runs if run.job.data == residual.job.data]
    fitting.sort(key=lambda run: run.job.group != residual.job.group)  # its own twin first
    return residual, run_field("Plain net", fitting, f"saliency.plain.{residual.id}")


def picture_field(pair: tuple[Run, Run]) -> list[np.ndarray] | None:
    """The chosen picture as each net sees it, None before there is one. Refused for a file that is none."""
    sizes = [(run.job.net.image_size, run.job.net.in_channels) for run in pair]
    if widgets.choice("Picture", ("Sample", "Upload"), "saliency.kind") == "Upload":
        file = st.file_uploader("A photo: PNG, JPEG or WebP", key="saliency.file", max_upload_size=PHOTO_MB)
        return None if file is None else [photo_pixels(file.getvalue(), *size) for size in sizes]
    images, labels = samples(pair[0])
    names = pair[0].class_names()
    label = st.selectbox("Class", np.unique(labels).tolist(), key="saliency.class", format_func=lambda i: names[i])
    of_class = images[labels == label]
    index = st.slider("Sample", 1, len(of_class), key="saliency.sample") if len(of_class) > 1 else 1
    return [sample_pixels(of_class[index - 1], *size) for size in sizes]


def explain_fields(pair: tuple[Run, Run], answers: list[Answer], names: tuple[str, ...]) -> tuple[str, str, int, float]:
    """Method, layer, class and opacity."""
    methods, layer, target, opacity = st.columns(4)
    with methods:
        method = widgets.choice("Method", METHODS, "saliency.method", labels={n: m.title for n, m in METHODS.items()})
    layers = explainable_layers(tuple(run.job.net for run in pair))
    chosen = layer.selectbox(
        "Layer", layers[::-1], key=f"saliency.layer.{len(layers)}", disabled=not METHODS[method].needs_layer
    )
    likely = answers[0].classes[0]
    wanted = target.selectbox(
        "Class to explain", [likely, *(i for i in range(len(names)) if i != likely)], format_func=lambda i: names[i]
    )
    return method, chosen, wanted, opacity.slider("Opacity", 0.0, 1.0, 0.55, key="saliency.opacity")


def show(pair: tuple[Run, Run], seen: list[np.ndarray]) -> None:
    """Top-5 predictions and overlays of both nets for one picture, on one colour scale."""
    names = pair[0].class_names()
    steps = [run.checkpoint_step() or 0 for run in pair]
    trained = tuple(At(run.id, step) for run, step in zip(pair, steps, strict=True))
    pictures = tuple(map(Picture.of, seen))
    answers = work.result(Answers(trained, pictures), "Classify the picture")
    if answers is None:
        return
    method, layer, target, opacity = explain_fields(pair, answers, names)
    maps = work.result(Maps(trained, pictures, method, layer, target), "Draw the maps")
    if maps is None:
        return
    high = common_scale(maps)
    for run, step, pixels, said, values, column in zip(pair, steps, seen, answers, maps, st.columns(2), strict=True):
        with column:
            st.subheader(run.job.net.name)
            rgb = np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3))
            figure = attribution_plots.overlay(rgb, values, high, opacity, METHODS[method].signed)
            size, share = run.job.net.image_size, said.probabilities[np.array(said.classes) == target]
            belief = f"its probability is {100 * share[0]:.1f} %" if len(share) else "not among its top five"
            what = f"{METHODS[method].title} for the logit of “{names[target]}” ({belief})"
            caption = f"{what}, on the {size} x {size} pixels that the net sees."
            widgets.chart(figure, caption, f"saliency.map.{run.id}")
            bars = attribution_plots.probabilities(
                [names[i] for i in said.classes], said.probabilities, run.job.net.plain
            )
            widgets.chart(
                bars,
                f"Top predictions, after {step:,} training steps on {run.job.data}.",
                f"saliency.top.{run.id}",
            )
    st.caption(
        f"{METHODS[method].reading} Both maps share one colour scale, from 0 to {high:.3g}, and neither is stretched "
        f"to fill it; look at whether the bright parts lie on the object. Method: {METHODS[method].source}."
    )
    st.caption(f"Trained on: {pair[0].info().get('source') or pair[0].job.data}")


plain_data = {run.job.data for run in runs.trained(plain=True)}
if not any(run.job.data in plain_data for run in runs.trained(plain=False)):
    quick_start()
else:
    controls, result = st.columns([1, 2.6], gap="large")
    seen = None
    with controls, widgets.show_errors(Refused):
        pair = pair_fields()
        seen = picture_field(pair)
    with result, widgets.show_errors(Refused):
        if seen is None:
            st.info("Upload a photo, and both nets will be explained here.")
        else:
            show(pair, seen)
