"""Detection and segmentation of one photo: what is found in it, and the map of one box or one class."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from pages.ui import widgets, work
from pages.ui.cached import is_downloaded, system_layers
from resnet.attribution.boxes import Detections, Segmentation
from resnet.attribution.methods import METHODS
from resnet.errors import Refused
from resnet.plots import boxes as box_plots
from resnet.work.boxes import LONG, MOST, SHORT, BoxMap, Detected, RegionMap, Segmented
from resnet.work.explaining import Picture
from resnet.zoo.hub import checkpoint, download
from resnet.zoo.systems import SYSTEMS
from resnet.zoo.trained import TRAINED, class_names

LOWEST = 0.05  # score: a detector drops what is less likely
SMALLEST = 0.001  # of the photo: a class that has fewer pixels is not listed
# One pass each way. A box head has weights for each place of its region, which a mean over places does not see.
BOX_WAYS = [name for name in ("hires-cam", "layer-cam", "grad-cam") if name in METHODS]
REGION_WAYS = BOX_WAYS[::-1]
OWN = "Each activation has its own gradient as weight: at the feature pyramid nothing outside the region is bright."
SPREAD = {
    "hires-cam": OWN,
    "layer-cam": OWN,
    "grad-cam": "It weighs whole channels by their mean gradient, though the box head weighs each place of the region "
    "by itself: other objects of this kind are bright too, and the map may miss this one.",
}
WHERE = {False: "the pixels that get this class", True: "all pixels"}


def show(photo: Image.Image) -> None:
    """A system to choose, what it finds in the photo, and where it looked for one box or one class."""
    name = st.selectbox("Detector or segmenter", TRAINED, key="boxes.system")
    with widgets.show_errors(Refused):
        if _is_here(name):
            pixels = _pixels(photo)
            picture = Picture.of(pixels.transpose(2, 0, 1))
            (_boxes if SYSTEMS[name].task == "detection" else _segments)(name, pixels, picture)


def _is_here(name: str) -> bool:
    """Whether the weights are; if not, where they belong, and a button that fetches them."""
    weights = TRAINED[name]
    path = checkpoint(weights)
    if is_downloaded(weights):
        return True
    st.info(
        f"The weights of {name} are not here: {path.name} ({weights.meta['_file_size']:,.0f} MB, trained on COCO) "
        f"belongs in {path.parent}. Download it from PyTorch's server, or put it there yourself."
    )
    if not st.button("Download", icon=":material/download:", key=f"boxes.download.{name}"):
        return False
    bar = st.progress(0.0, "Connecting …")
    for done, total in download(weights):
        bar.progress(done / total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    st.rerun()


def _pixels(photo: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, made smaller where a detector would do it."""
    short, long = sorted(photo.size)
    scale = min(1.0, SHORT / short, LONG / long)
    size = [max(1, round(scale * side)) for side in photo.size]
    rgb = photo.convert("RGB")
    return np.asarray(rgb if scale == 1.0 else rgb.resize((size[0], size[1]), Image.Resampling.LANCZOS))


def _boxes(name: str, pixels: np.ndarray, picture: Picture) -> None:
    found: Detections | None = work.result(Detected(name, picture), "Find the objects")
    if found is None:
        return
    if not len(found.boxes):
        st.info(f"{name} finds nothing in this photo: no box of any of its classes has a score above {LOWEST}.")
        return
    least = st.slider("Lowest score shown", LOWEST, 0.95, 0.5, 0.05, key="boxes.least")
    shown = np.flatnonzero(found.scores >= least).tolist()
    if not shown:
        st.info(f"No box has a score of {least:.2f} or more; the highest is {found.scores[0]:.2f}. Lower the slider.")
        return
    texts = _titles(found, class_names(name))
    masks = None if found.masks is None else found.masks[shown]
    labels = [int(found.labels[k]) for k in shown]
    figure = box_plots.detections(pixels, found.boxes[shown], labels, [texts[k] for k in shown], masks)
    among = f"{len(shown)} of {len(found.boxes)} boxes" + (
        f", the {MOST} likeliest," if len(found.boxes) == MOST else ""
    )
    widgets.chart(
        figure,
        f"{among} have a score of {least:.2f} or more. A score is the probability (softmax) that the box head gives a "
        "class in one region: it is no probability that the box is drawn right.",
        "boxes.found",
    )
    _explain_box(name, pixels, picture, found, shown, texts)


def _titles(found: Detections, names: Sequence[str]) -> list[str]:
    told = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    return [f"{k + 1}: {names[label]} {100 * score:.0f} %" for k, (label, score) in enumerate(told)]


def _explain_box(
    name: str, pixels: np.ndarray, picture: Picture, found: Detections, shown: list[int], texts: list[str]
) -> None:
    which, where, how, strength = st.columns(4)
    k = which.selectbox("Box to explain", shown, format_func=texts.__getitem__, key="boxes.box")
    level = f"backbone.fpn.layer_blocks.{int(found.levels[k])}"
    layers = [level, *(layer for layer in system_layers(name)[::-1] if ".fpn." not in layer)]
    layer = where.selectbox("Layer", layers, format_func=_layer_title, key="boxes.layer")
    method = how.selectbox("Method", BOX_WAYS, format_func=lambda way: METHODS[way].title, key="boxes.method")
    opacity = strength.slider("Opacity", 0.0, 1.0, 0.55, key="boxes.opacity")
    x1, y1, x2, y2 = map(float, found.proposals[k])
    label = int(found.labels[k])
    values = work.result(BoxMap(name, picture, (x1, y1, x2, y2), label, layer, method), "Explain this box")
    if values is None:
        return
    widgets.chart(
        box_plots.heat(pixels, values, opacity, found.boxes[k], found.proposals[k]),
        f"{METHODS[method].title} at {layer} of the logit, before the softmax, that the box head gives "
        f"“{class_names(name)[label]}” in the dashed region. That is the proposal which became this box (solid) and "
        "got this score; it is held fixed, so the map does not say why it was proposed. "
        f"{METHODS[method].reading} {SPREAD[method]}",
        "boxes.map",
    )
    _say_if_blank(values, method)


def _layer_title(layer: str) -> str:
    if ".fpn." in layer:
        return "feature pyramid, the map that this region is read from"
    return f"stage {layer[-1]}" if "layer" in layer else "the head's last maps"


def _say_if_blank(values: np.ndarray, method: str) -> None:
    if not values.any():
        st.info(f"This map is 0 everywhere. {METHODS[method].blank}")


def _segments(name: str, pixels: np.ndarray, picture: Picture) -> None:
    found: Segmentation | None = work.result(Segmented(name, picture), "Classify every pixel")
    if found is None:
        return
    least = st.slider("Lowest probability shown", 0.0, 0.95, 0.5, 0.05, key="boxes.probability")
    sure = np.where(found.scores >= least, found.classes, 0)  # 0 is the background
    names, share = class_names(name), np.bincount(sure.ravel(), minlength=len(class_names(name))) / sure.size
    shown = [label for label in np.argsort(-share).tolist() if label and share[label] >= SMALLEST]
    if not shown:
        st.info(f"{name} finds only background in this photo with a probability of {least:.2f} or more.")
        return
    texts = {label: f"{names[label]} ({100 * share[label]:.1f} % of the photo)" for label in shown}
    widgets.chart(
        box_plots.segments(pixels, sure, texts),
        f"The likeliest of {len(names)} classes at each pixel, where its probability (softmax) is {least:.2f} or more; "
        "background is left as it is.",
        "boxes.segments",
    )
    _explain_region(name, pixels, picture, texts)


def _explain_region(name: str, pixels: np.ndarray, picture: Picture, texts: dict[int, str]) -> None:
    which, where, over, how, strength = st.columns(5)
    label = which.selectbox("Class to explain", texts, format_func=texts.__getitem__, key="boxes.class")
    layers = system_layers(name)[::-1]
    layer = where.selectbox("Layer", layers, format_func=_layer_title, key="boxes.segment.layer")
    everywhere = over.selectbox("Summed over", WHERE, format_func=WHERE.__getitem__, key="boxes.where")
    method = how.selectbox(
        "Method", REGION_WAYS, format_func=lambda way: METHODS[way].title, key="boxes.segment.method"
    )
    opacity = strength.slider("Opacity", 0.0, 1.0, 0.55, key="boxes.segment.opacity")
    values = work.result(RegionMap(name, picture, label, layer, everywhere, method), "Explain this class")
    if values is None:
        return
    widgets.chart(
        box_plots.heat(pixels, values, opacity),
        f"{METHODS[method].title} at {layer} of the logits of “{class_names(name)[label]}”, before the softmax, summed "
        f"over {WHERE[everywhere]} (with Grad-CAM this is Seg-Grad-CAM, arXiv 2002.11434). {METHODS[method].reading} "
        "Bright parts outside the object are context that the net uses.",
        "boxes.region",
    )
    _say_if_blank(values, method)
