"""Saliency: what nets look at in an uploaded photo or a sample."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import streamlit as st

from pages.ui import live, pretrained, state, widgets, work
from pages.ui.cached import DataInfo, data_info, explainable_layers, look, sample_pixels, samples, seen_photo
from resnet.attribution.methods import METHODS, common_scale
from resnet.data import dataset as data
from resnet.data.formats import PHOTO_TYPES
from resnet.data.photos import picture_image
from resnet.errors import Refused
from resnet.limits import PHOTO_MB
from resnet.nets.spec import cifar, twins
from resnet.plots import attribution as attribution_plots
from resnet.runs import store as runs
from resnet.runs.jobs import Job
from resnet.runs.process import race
from resnet.runs.store import Run
from resnet.train.recipes import Recipe
from resnet.work.explaining import Answer, Answers, Maps, Picture
from resnet.work.weights import MOMENTS, Model, usual

QUICK_NET = cifar(8)
QUICK_RECIPE = Recipe(epochs=3, batch=32, augment=False)  # on shapes: 87 % (residual) and 93 % (plain)
OTHER, NONE = "another net, or other weights", "no other net"


class Shown(NamedTuple):
    """A net with weights, and what the page says of them; `run` where they are a run's."""

    model: Model
    class_names: tuple[str, ...]
    trained: str
    run: Run | None = None

    @property
    def title(self) -> str:
        return self.model.spec.name


def quick_start() -> None:
    """Before any run exists: say so, and train a small pair at one click."""
    st.info("There is no trained run yet. Train a small pair here, or choose other weights on the left.")
    going = [run for run in runs.all_runs() if look(run).active]
    if going:
        live.show(runs.race_of(going[0]))
    elif st.button("Train a small pair on drawn shapes (about a minute)", type="primary", icon=":material/play_arrow:"):
        race(Job(QUICK_NET, "shapes", QUICK_RECIPE), twins(QUICK_NET))
        st.rerun()


def run_label(run: Run) -> str:
    return f"{run.job.net.name} on {run.job.data} ({run.id[:15]})"


def of_run(run: Run) -> Shown:
    model = Model.of(run)
    return Shown(model, run.class_names(), f"after {model.weights.step:,} training steps on {run.job.data}", run)


def of_weights() -> Shown | None:
    """A net of the visitor's with weights from anywhere; None before they are there."""
    spec = state.net()
    widgets.net_field(spec, "saliency.net")
    if spec.frames:
        raise Refused("Pictures are explained, and this net reads clips or volumes.", choices="a net with 0 frames")
    chosen = pretrained.field(spec, "saliency.weights")
    if chosen is None:
        return None
    inputs = chosen.inputs
    if inputs is None:
        text = "The weights do not say how images are prepared, so choose what the net was trained with."
        inputs = usual(spec, st.selectbox("Mean and deviation", MOMENTS, key="saliency.moments", help=text))
    return Shown(Model(spec, chosen.weights, inputs), inputs.class_names, chosen.title)


def nets_field(trained: list[Run]) -> list[Shown]:
    """Any net, and at will a run beside it: its twin, if it has one, until the visitor chooses."""
    found = {run.id: run for run in sorted(trained, key=lambda run: run.job.net.plain)}
    labels = {name: run_label(run) for name, run in found.items()}
    name = st.selectbox("Trained net", [*found, OTHER], key="saliency.first", format_func=lambda n: labels.get(n, n))
    first = of_run(found[name]) if name in found else of_weights()
    if first is None:
        return []
    others = [NONE, *(other for other in found if other != name)]
    group = [run.id for run in runs.race_of(first.run) if run.id in others] if first.run else []
    beside = st.selectbox(
        "Beside it", others, others.index(group[0]) if group else 0, key=f"saliency.beside.{name}",
        format_func=lambda n: labels.get(n, n),
    )  # fmt: skip
    return [first] if beside == NONE else [first, of_run(found[beside])]


def picture_field(shown: list[Shown]) -> list[np.ndarray] | None:
    """The chosen picture as each net sees it, None before there is one. Refused for a file that is none."""
    sizes = [(net.model.spec.image_size, net.model.spec.in_channels) for net in shown]
    if widgets.choice("Picture", ("Sample", "Upload"), "saliency.kind") == "Upload":
        file = st.file_uploader(f"A photo: {PHOTO_TYPES}", key="saliency.file", max_upload_size=PHOTO_MB)
        if file is None:
            return None
        photos = [seen_photo(file.getvalue(), *size) for size in sizes]
        if photos[0].notes:
            st.caption(" ".join(photos[0].notes))
        return [photo.pixels for photo in photos]
    images, labels, names = sample_field(shown[0].run)
    label = st.selectbox("Class", np.unique(labels).tolist(), key="saliency.class", format_func=lambda i: names[i])
    of_class = images[labels == label]
    index = st.slider("Sample", 1, len(of_class), key="saliency.sample") if len(of_class) > 1 else 1
    return [sample_pixels(of_class[index - 1], *size) for size in sizes]


def sample_field(run: Run | None) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Pictures, labels and class names of the run's data; without a run, of a data set to choose."""
    if run:
        return *samples(run), run.class_names()
    name = st.selectbox("Samples of", data.available(), key="saliency.data")
    info: DataInfo = data_info(name)
    return info.samples, info.sample_labels, info.class_names


def explain_fields(shown: list[Shown], answers: list[Answer]) -> tuple[str, str, tuple[int, ...], float]:
    """Method, layer, the class to explain in each net, and opacity."""
    methods, layer, target, opacity = st.columns(4)
    with methods:
        method = widgets.choice("Method", METHODS, "saliency.method", labels={n: m.title for n, m in METHODS.items()})
    layers = explainable_layers(tuple(net.model.spec for net in shown))
    chosen = layer.selectbox(
        "Layer", layers[::-1], key=f"saliency.layer.{len(layers)}", disabled=not METHODS[method].needs_layer
    )
    names, likely = shown[0].class_names, answers[0].classes[0]
    wanted = target.selectbox(
        "Class to explain", [likely, *(i for i in range(len(names)) if i != likely)], format_func=lambda i: names[i]
    )
    targets = [wanted, *(class_of(names[wanted], *each) for each in list(zip(shown, answers, strict=True))[1:])]
    return method, chosen, tuple(targets), opacity.slider("Opacity", 0.0, 1.0, 0.55, key="saliency.opacity")


def class_of(name: str, net: Shown, said: Answer) -> int:
    """The class of that name, or of a net that does not know it the one it finds likeliest."""
    return net.class_names.index(name) if name in net.class_names else said.classes[0]


class Explained(NamedTuple):
    """A net, the picture (C, S, S) as it sees it, what it says of it, and the map (S, S) of one of its classes."""

    net: Shown
    pixels: np.ndarray
    said: Answer
    target: int
    values: np.ndarray


def show(shown: list[Shown], seen: list[np.ndarray]) -> None:
    """Top-5 predictions and overlays of the nets for one picture, on one colour scale."""
    models, pictures = tuple(net.model for net in shown), tuple(map(Picture.of, seen))
    answers = work.result(Answers(models, pictures), "Classify the picture")
    if answers is None:
        return
    method, layer, targets, opacity = explain_fields(shown, answers)
    maps = work.result(Maps(models, pictures, method, layer, targets), "Draw the maps")
    if maps is None:
        return
    high, columns = common_scale(maps), st.columns(2)
    for index, each in enumerate(map(Explained, shown, seen, answers, targets, maps)):
        with columns[index]:
            overlay(each, method, high, opacity, f"{index}.{each.net.model.weights.name}")
    scale = f"Both maps share one colour scale, from 0 to {high:.3g}, and neither is stretched to fill it"
    scale = scale if len(shown) > 1 else f"The colour scale runs from 0 to {high:.3g}"
    st.caption(
        f"{METHODS[method].reading} {scale}; look at whether the bright parts lie on the object. "
        f"Method: {METHODS[method].source}."
    )
    if run := shown[0].run:
        st.caption(f"Trained on: {run.info().get('source') or run.job.data}")


def overlay(each: Explained, method: str, high: float, opacity: float, key: str) -> None:
    net, pixels, said, target, values = each
    st.subheader(net.title)
    rgb = np.asarray(picture_image(pixels.transpose(1, 2, 0)).convert("RGB"))
    figure = attribution_plots.overlay(rgb, values, high, opacity, METHODS[method].signed)
    size, share = net.model.spec.image_size, said.probabilities[np.array(said.classes) == target]
    belief = f"its probability is {100 * share[0]:.1f} %" if len(share) else "not among its top five"
    what = f"{METHODS[method].title} for the logit of “{net.class_names[target]}” ({belief})"
    widgets.chart(figure, f"{what}, on the {size} x {size} pixels that the net sees.", f"saliency.map.{key}")
    if not values.any():
        st.info(f"This map is 0 everywhere. {METHODS[method].blank}")
    names = [net.class_names[i] for i in said.classes]
    bars = attribution_plots.probabilities(names, said.probabilities, net.model.spec.plain)
    widgets.chart(bars, f"Top predictions, {net.trained}.", f"saliency.top.{key}")


trained = runs.trained()
if not trained:
    quick_start()
controls, result = st.columns([1, 2.6], gap="large")
shown: list[Shown] = []
seen = None
with controls, widgets.show_errors(Refused):
    shown = nets_field(trained)
    seen = picture_field(shown) if shown else None
with result, widgets.show_errors(Refused):
    if shown and seen is None:
        st.info("Upload a photo, and it will be explained here.")
    elif shown and seen:
        show(shown, seen)
