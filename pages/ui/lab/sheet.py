"""A contact sheet: many photos with one setting."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from pages.ui import widgets, work
from pages.ui.cached import opened_photo
from pages.ui.lab.scene import LIKELIEST, Scene
from resnet.attribution.methods import METHODS
from resnet.data.formats import PHOTO_TYPES
from resnet.data.samples import SAMPLES, open_sample
from resnet.data.views import View, see
from resnet.errors import Refused
from resnet.limits import PHOTO_MB
from resnet.plots import attribution as plots
from resnet.work.explaining import Answers, Maps, Picture, Query

MOST, ACROSS, SIDE = 24, 6, 220  # photos; in a row; pixels of one on the sheet


def sheet(scene: Scene) -> None:
    """Up to MOST photos, each with the map of the first net and what it says."""
    text = f"Up to {MOST} photos: {PHOTO_TYPES}. Without any, the sheet shows the samples."
    files = st.file_uploader(text, accept_multiple_files=True, key="lab.sheet", max_upload_size=PHOTO_MB) or []
    if len(files) > MOST:
        st.info(f"A sheet holds {MOST} photos. {len(files)} were given; the first {MOST} are shown.")
    net = scene.shown[0]
    photos: list[tuple[str, Image.Image]] = []
    for file in files[:MOST]:
        with widgets.show_errors(Refused):
            photos.append((file.name, opened_photo(file.getvalue())))
    photos = photos or [(each.title, open_sample(each.name)) for each in SAMPLES.values()]
    truths = [each.shows for each in SAMPLES.values()]
    views = [see(photo, net.model.frame, scene.picked.cut) for _, photo in photos]
    pictures = tuple(Picture.of(view.pixels) for view in views)
    models = (net.model,) * len(pictures)
    answers = work.result(Answers(models, pictures), "Classify all photos")
    if answers is None:
        return
    names, wanted = net.class_names, scene.setting.target
    queries = []
    for picture, answer in zip(pictures, answers, strict=True):
        target = answer.top(1)[0] if wanted == LIKELIEST or wanted not in names else names.index(wanted)
        queries.append(scene.query(0)._replace(picture=picture, target=target))
    maps = work.result(Maps(tuple(queries)), f"Draw {len(queries)} maps")
    if maps is None:
        return
    look = scene.look(maps)
    for start in range(0, len(photos), ACROSS):
        columns = st.columns(ACROSS)
        for column, number in zip(columns, range(start, min(start + ACROSS, len(photos))), strict=False):
            answer, (name, photo) = answers[number], photos[number]
            best = answer.top(1)[0]
            right = "" if files else mark(names[best], truths[number], names)
            label = f"{name}: “{names[best]}”, {100 * answer.probabilities[best]:.0f} %{right}"
            column.image(thumbnail(photo, views[number], queries[number], maps[number], look), label)
    st.caption(f"{METHODS[scene.setting.method].reading} All maps share one scale, up to {look.high:.3g}.")


def mark(answer: str, truths: Sequence[str], class_names: Sequence[str]) -> str:
    """Whether an answer is right, "" where the net knows none of the right ones."""
    return "" if not set(truths) & set(class_names) else " ✓" if answer in truths else " ✗"


def thumbnail(photo: Image.Image, view: View, query: Query, values: np.ndarray, look: plots.Look) -> Image.Image:
    """The photo with its map, at most SIDE pixels a side; small ones are enlarged."""
    scale = SIDE / max(photo.size)
    small = photo.convert("RGB").resize([max(1, round(side * scale)) for side in photo.size])
    left, top, right, bottom = (edge * scale for edge in view.box)
    window = left, top, right, bottom
    return plots.picture(np.asarray(small), values, window, look, METHODS[query.method].signed)
