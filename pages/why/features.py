"""Features: what the layers of trained nets make of a picture, and which layers are alike."""

from collections.abc import Iterator

import pandas as pd
import streamlit as st

from pages.ui import analysis, widgets, work
from pages.ui.analysis import Drawn
from pages.ui.lab.nets import Shown
from pages.ui.lab.picture import Picked, linked_picture
from resnet.analysis.analyses import ANALYSES
from resnet.analysis.fields import field_sizes
from resnet.errors import Refused
from resnet.plots import features as plots
from resnet.work.analysing import Alike, Features, Nearest
from resnet.work.explaining import Picture

MAPS, BETWEEN = "maps", "between"


def alike(frame: pd.DataFrame) -> Iterator[Drawn]:
    for net, rows in frame.groupby("net", sort=False):
        text = f"How alike the layers of {net} are (linear CKA, 1 for the same representation), the input on top."
        yield Drawn(plots.cka_map(rows, str(net), str(net)), text)


def fields(frame: pd.DataFrame) -> Iterator[Drawn]:
    for net, rows in frame.groupby("net", sort=False):
        text = f"{net}: how much each pixel moves the unit in the middle of each stage, and the box that it could see."
        yield Drawn(plots.field_maps(rows, field_sizes(rows)), text)


def maps() -> None:
    """A picture at one layer of each net: maps, first kernels, and the training images that are most like it."""
    controls, result = st.columns([1, 2.6], gap="large")
    picked = None
    with controls, widgets.show_errors(Refused):
        shown = [net for net in analysis.trained_nets() if net.model.spec]
        if shown:
            picked = linked_picture(shown)
    with result, widgets.show_errors(Refused):
        if picked:
            _maps(shown, picked)
        else:
            st.info("Choose one of this program's nets.")


def _maps(shown: list[Shown], picked: Picked) -> None:
    layers = shown[0].model.layers()
    label = st.selectbox("Layer", list(layers), index=len(layers) - 1, **widgets.linked("layer"))
    near = st.toggle("Training images that are most like it there", **widgets.linked("nearest"))
    asked: list[tuple[Shown, Features]] = []
    for net, view in zip(shown, picked.views, strict=True):
        if layer := net.model.layers().get(label):
            asked.append((net, Features(net.model, Picture.of(view.pixels), layer)))
        else:
            st.info(f"{net.title} has no layer {label}.")
    if not work.ready([request for _, request in asked], "Look at its features"):
        return
    for number, (net, request) in enumerate(asked):
        if seen := work.result(request):
            text = f"{net.title}, {label}: its strongest channels on this picture, the strongest first."
            widgets.chart(plots.map_grid(seen.maps, seen.channels.tolist()), text, f"features.maps.{number}")
            with st.expander("The kernels of its first convolution"):
                text = "What the first layer looks for, all on one scale; grey is 0."
                widgets.chart(plots.kernel_grid(seen.kernels), text, f"features.kernels.{number}")
    if near:
        with widgets.show_errors(Refused):
            runs = [(net, request) for net, request in asked if net.run]
            _nearest([(net, Nearest(each.model, each.picture, each.layer)) for net, each in runs])


def _nearest(asked: list[tuple[Shown, Nearest]]) -> None:
    if not work.ready([request for _, request in asked], "Find them"):
        return
    for net, request in asked:
        if found := work.result(request):
            names = [net.class_names[label] for label in found.labels]
            captions = [f"{name}, {cosine:.2f}" for name, cosine in zip(names, found.cosines, strict=True)]
            st.markdown(f"**{net.title}**")
            st.image([widgets.rgb(pixels) for pixels in found.pictures], captions, width=84)
    st.caption("Among 2,000 training images, by the cosine of the layer's features, averaged over places.")


def between() -> None:
    """CKA of two runs."""
    controls, result = st.columns([1, 2.6], gap="large")
    with controls, widgets.show_errors(Refused):
        shown = [net for net in analysis.trained_nets() if net.run]
    with result, widgets.show_errors(Refused):
        analysis.explained(ANALYSES["cka"])
        if len(shown) < 2:
            st.info("Choose two trained runs.")
            return
        first, second, *_ = shown
        table = work.result(Alike(first.model, second.model), "Compare their layers")
        if table is not None:
            text = (
                f"How alike each layer of {first.title} (down) and each of {second.title} (right) are, on test images "
                "of the first one's data. Bright along the diagonal: the nets go the same way, layer by layer."
            )
            widgets.chart(plots.cka_map(table, first.title, second.title), text, "features.between")


DRAWS = {"cka": alike, "receptive": fields}
titles = {MAPS: "A picture, layer by layer"} | {name: ANALYSES[name].title for name in DRAWS}
key = analysis.view(titles | {BETWEEN: "Layers of two nets"})
if key == MAPS:
    maps()
elif key == BETWEEN:
    between()
else:
    analysis.show(key, DRAWS, trained=True)
