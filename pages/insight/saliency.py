"""Saliency: what nets look at in a photo, and whether their maps can be believed."""

import streamlit as st

from pages.ui import boxes, state, widgets, work
from pages.ui.cached import method_reasons
from pages.ui.lab.nets import Shown, classes_list, nets_field
from pages.ui.lab.picture import Picked, linked_picture
from pages.ui.lab.scene import Scene, setting_fields
from pages.ui.lab.views import VIEWS
from resnet.attribution.methods import METHODS
from resnet.errors import Refused
from resnet.work.explaining import Answers, Picture

BOXES = "boxes"


def show(view: str, shown: list[Shown], picked: Picked) -> None:
    """Asks the nets, and draws the view."""
    setting = setting_fields(shown)
    pictures = tuple(Picture.of(each.pixels) for each in picked.views)
    answers = work.result(Answers(tuple(net.model for net in shown), pictures), "Classify the picture")
    wrong = {net.title: reason for net in shown if (reason := method_reasons(net.model)[setting.method])}
    if wrong and view != "methods":
        for title, reason in wrong.items():
            st.info(f"{METHODS[setting.method].title} does not apply to {title}. {reason}")
    elif answers:
        VIEWS[view][1](Scene(shown, picked, answers, setting))


controls, result = st.columns([1, 2.6], gap="large")
picked = None
with controls, widgets.show_errors(Refused):
    shown = nets_field(state.linked("nets"))
    if shown:
        picked = linked_picture(shown)
        state.link(nets=[net.id for net in shown])
        classes_list(shown)
with result, widgets.show_errors(Refused):
    if picked:
        titles = {name: title for name, (title, _) in VIEWS.items()} | {BOXES: "Detection and segmentation"}
        view = st.segmented_control(
            "View", list(titles), default="nets", required=True, wrap=True, format_func=titles.__getitem__,
            **widgets.linked("view"),
        )  # fmt: skip
        if view == BOXES:
            boxes.show(picked.photo)
        else:
            show(view, shown, picked)
