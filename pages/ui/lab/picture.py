"""Which picture the Saliency page explains: a sample photo, a test image of a data set, or an upload."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import streamlit as st
from PIL import Image, ImageOps

from pages.ui import state, widgets
from pages.ui.cached import data_info, opened_photo, photo_view
from pages.ui.lab.nets import KEY as NETS
from pages.ui.lab.nets import MOST as MOST_NETS
from pages.ui.lab.nets import Shown
from resnet.data import dataset as data
from resnet.data.formats import PHOTO_TYPES
from resnet.data.photos import picture_image, picture_view
from resnet.data.samples import SAMPLES
from resnet.data.views import MODES, View
from resnet.errors import Refused
from resnet.limits import PHOTO_MB
from resnet.runs import store as runs
from resnet.runs.records import SAMPLE_SIZE
from resnet.runs.store import Run

KEY = "lab.picture"  # of the id of the last picture that an address can hold
PHOTOS, TESTS, UPLOAD = "Photos", "Test images", "Upload"
THUMB, FEW, MOST = 96, 6, 24  # pixels a side; thumbnails in rows, and at all
EACH, CUT = "one of each", "lab.cut"


class Picked(NamedTuple):
    """The upright photo and what each net sees of it; `truth` are the class names that are right, if any is known.

    `id` is sample:NAME or data:DATA:ROW for the address, None of an upload; `cut` is one of MODES.
    """

    id: str | None
    title: str
    photo: Image.Image
    views: list[View]
    truth: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cut: str = "crop"

    def right(self, answer: str, class_names: Sequence[str]) -> bool | None:
        """Whether a class is a right answer; None where that is not known, or the net knows no right one."""
        return answer in self.truth if set(self.truth) & set(class_names) else None


class TestImages(NamedTuple):
    """Pictures (K, S, S, C) uint8 of a data set's test images, their labels (K,) and their rows in it (K,)."""

    pictures: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    class_names: Sequence[str]


def picture_field(shown: Sequence[Shown], wanted: str = "", cut: str = "") -> Picked:
    """The picture as each net sees it; `wanted` and `cut` are the address's. Refused for a file that is none.

    Until another is chosen or uploaded, it is the address's, else the first sample.
    """
    names = list(dict.fromkeys([*(net.run.job.data for net in shown if net.run), *data.available()]))
    _start(shown, names, wanted)
    if state.widget(CUT) is None:
        state.set_widgets({CUT: cut if cut in MODES else "crop"})
    kind = widgets.choice("Picture", [PHOTOS, TESTS, UPLOAD], "lab.picture.kind")
    file = None
    if kind == PHOTOS:
        _thumbnails({f"sample:{name}": (sample.title, _photo(name)) for name, sample in SAMPLES.items()})
    elif kind == TESTS:
        _tests_field(names)
    else:
        file = st.file_uploader(f"A photo: {PHOTO_TYPES}", key="lab.picture.file", max_upload_size=PHOTO_MB)
        st.caption("An uploaded photo is not in the link to this page.")
    if file is not None:
        return _of_photo(None, file.name, file.getvalue(), shown)
    return _picked(state.result(KEY), shown)


def linked_picture(shown: Sequence[Shown]) -> Picked:
    """A `picture_field` whose picture and cut are in the address."""
    [photo, *_], [cut, *_] = [*state.linked("photo"), ""], [*state.linked("cut"), ""]
    picked = picture_field(shown, photo, cut)
    state.link(photo=[picked.id or ""], cut=[picked.cut])
    return picked


def open_saliency(found: Sequence[Run]) -> None:
    """Go to Saliency with the nets of these runs, up to four, and a test image of the data of the first one."""
    state.set_widgets({NETS: [f"run:{run.id}" for run in found[:MOST_NETS]], "lab.picture.kind": TESTS})
    state.set_result(KEY, _id(found[0].job.data, ""))
    st.switch_page(widgets.PAGES / "insight" / "saliency.py")


def _start(shown: Sequence[Shown], names: list[str], wanted: str) -> None:
    """Which sample it is at first, or once the one that it was is gone."""
    asked = state.result(KEY, wanted)
    if asked in (_id(name, "") for name in names):
        asked += str(_test_images(_parts(asked)[1]).rows[0])
    if asked and _is_there(asked, names):
        chosen = asked
    else:
        if asked:
            st.warning(f"There is no picture {asked!r} here: its data may be missing, or it never was.")
        photo = all(net.model.channels in (1, 3) for net in shown)
        chosen = f"sample:{next(iter(SAMPLES))}" if photo else _id(names[0], _test_images(names[0]).rows[0])
    if state.widget("lab.picture.kind") is None:
        state.set_widgets({"lab.picture.kind": PHOTOS if chosen.startswith("sample:") else TESTS})
    state.set_result(KEY, chosen)


def _is_there(chosen: str, names: list[str]) -> bool:
    kind, name, row = _parts(chosen)
    try:
        return name in SAMPLES if kind == "sample" else name in names and row in map(str, _test_images(name).rows)
    except Refused:
        return False


def _parts(chosen: str) -> tuple[str, str, str]:
    """sample, NAME and "", or data, DATA and ROW."""
    kind, _, rest = chosen.partition(":")
    name, _, row = rest.rpartition(":") if kind == "data" else (rest, "", "")
    return kind, name, row


def _id(name: str, row: int | str) -> str:
    """With "" for the row, of the data's first picture."""
    return f"data:{name}:{row}"


def _picked(chosen: str, shown: Sequence[Shown]) -> Picked:
    kind, name, row = _parts(chosen)
    if kind == "sample":
        sample = SAMPLES[name]
        return _of_photo(chosen, sample.title, sample.path.read_bytes(), shown)._replace(truth=sample.shows)
    images = _test_images(name)
    [at] = np.flatnonzero(images.rows == int(row))
    picture, truth = images.pictures[at], images.class_names[images.labels[at]]
    views = [picture_view(picture, replace(net.model.frame, resize=1.0)) for net in shown]  # it was cut already
    return Picked(chosen, f"{truth}, test image {row} of {name}", picture_image(picture), views, (truth,))


def _of_photo(chosen: str | None, title: str, raw: bytes, shown: Sequence[Shown]) -> Picked:
    photo = opened_photo(raw)
    cut = widgets.choice("The net sees", MODES, CUT, labels=MODES)
    views = [photo_view(raw, net.model.frame, cut) for net in shown]
    if notes := photo.info["notes"]:
        st.caption(" ".join(notes))
    return Picked(chosen, title, photo.convert("RGB"), views, (), notes, cut)


def _tests_field(names: list[str]) -> None:
    """Test images of a data set, one of each class or those of one class."""
    name = st.selectbox("Data", names, key="lab.picture.data") if len(names) > 1 else names[0]
    images = _test_images(name)
    labels, first = np.unique(images.labels, return_index=True)
    wanted = st.selectbox("Class", [EACH, *labels.tolist()], key=f"lab.picture.class.{name}",
                          format_func=lambda label: label if label == EACH else images.class_names[label])  # fmt: skip
    found = (first if wanted == EACH else np.flatnonzero(images.labels == wanted)).tolist()
    chosen = [at for at, row in enumerate(images.rows) if _id(name, row) == state.result(KEY) and at not in found]
    _thumbnails({
        _id(name, images.rows[at]): (images.class_names[images.labels[at]], picture_image(images.pictures[at]))
        for at in [*chosen, *found][:MOST]
    })  # fmt: skip


def _test_images(name: str) -> TestImages:
    """Those in the folder of a run, where they are whole: the same on all machines; else those of the data. Refused."""
    stored = next(filter(None, (_stored(run) for run in runs.every() if run.job.data == name)), None)
    if stored and stored.pictures.shape[1] < SAMPLE_SIZE:
        return stored
    try:
        info = data_info(name)
    except Refused:  # they are not here, or stay on the disk
        if stored:
            return stored
        raise
    return TestImages(info.samples, info.sample_labels, np.arange(len(info.samples)), info.class_names)


def _stored(run: Run) -> TestImages | None:
    labels, rows, pictures = run.test_set()
    return TestImages(pictures, labels[rows], rows, run.class_names()) if len(pictures) else None


def _photo(name: str) -> Image.Image:
    return opened_photo(SAMPLES[name].path.read_bytes())


def _thumbnails(pictures: Mapping[str, tuple[str, Image.Image]]) -> None:
    """By their ids, titles and pictures, each with a button that chooses it; many are one row that scrolls."""
    with st.container(horizontal=True, gap="small", wrap=len(pictures) <= FEW):
        for each, (title, picture) in pictures.items():
            with st.container(width=THUMB, gap="xxsmall"):
                small = ImageOps.fit(picture.convert("RGB"), (THUMB, THUMB), Image.Resampling.BICUBIC)
                st.image(small, width=THUMB, alt=title)
                st.button(
                    title, key=f"lab.pick.{each}", type="primary" if each == state.result(KEY) else "secondary",
                    on_click=state.set_result, args=(KEY, each), width="stretch",
                )  # fmt: skip
