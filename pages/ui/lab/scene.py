"""What the Saliency page shows: nets, a picture, what they say of it, and what is asked of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import streamlit as st

from pages.ui import widgets
from pages.ui.lab.nets import Shown
from pages.ui.lab.picture import Picked
from resnet.attribution.methods import METHODS
from resnet.plots.attribution import COLOURS, Box, Look, whole
from resnet.work.explaining import Answer, Picture, Query

LAST, LIKELIEST, NOTHING = "the last block", "the likeliest", "nothing"
ON_PHOTO, AS_SEEN = "the photo", "what the net sees"


class Setting(NamedTuple):
    """What is asked of the nets, and how it is drawn."""

    method: str
    layer: str = LAST  # a label of `Model.layers`
    target: str = LIKELIEST  # a class's name
    against: str = NOTHING
    colours: str = COLOURS[0]
    opacity: float = 0.55
    ground: str = ON_PHOTO


@dataclass(frozen=True)
class Scene:
    """The nets, the picture as each of them sees it, what they say of it, and the setting."""

    shown: list[Shown]
    picked: Picked
    answers: list[Answer]
    setting: Setting

    @cached_property
    def photo(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.asarray(self.picked.photo.convert("RGB"))

    def target(self, index: int) -> int:
        """The class to explain in that net: the chosen one, or of a net that does not know it the likeliest."""
        found = self._class(index, self.setting.target)
        return self.answers[index].top(1)[0] if found is None else found

    def against(self, index: int) -> int | None:
        return self._class(index, self.setting.against)

    def _class(self, index: int, name: str) -> int | None:
        names = self.shown[index].class_names
        return names.index(name) if name in names else None

    def layer(self, index: int, label: str = "") -> str:
        """The module's name; the last one where the net has no layer of that label."""
        layers = self.shown[index].model.layers()
        return layers.get(label or self.setting.layer) or list(layers.values())[-1]

    def query(self, index: int, method: str = "", layer: str = "", pixels: np.ndarray | None = None) -> Query:
        """What is asked of that net; with another method, layer label or picture (C, S, S) where these are given."""
        seen = self.picked.views[index].pixels if pixels is None else pixels
        name = method or self.setting.method
        at = self.layer(index, layer) if METHODS[name].needs_layer else ""
        model = self.shown[index].model
        return Query(model, Picture.of(seen), name, at, self.target(index), self.against(index))

    def ground(self, index: int, pixels: np.ndarray | None = None) -> tuple[np.ndarray, Box]:
        """What a map of that net is drawn over (H, W, 3), and the part of it that the net sees."""
        view = self.picked.views[index]
        if pixels is None and self.setting.ground == ON_PHOTO:
            return self.photo, view.box
        seen = widgets.rgb(view.pixels if pixels is None else pixels)
        return seen, whole(seen)

    def look(self, maps: list[np.ndarray]) -> Look:
        """One scale for all of these maps."""
        high = max((float(np.abs(each).max()) for each in maps), default=0.0)
        return Look(self.setting.colours, self.setting.opacity, high or 1.0)

    def asked(self, index: int) -> str:
        """The logit that is explained, in words."""
        names, against = self.shown[index].class_names, self.against(index)
        rather = "" if against is None else f", rather than of “{names[against]}”"
        return f"the logit of “{names[self.target(index)]}”{rather}"


def setting_fields(shown: list[Shown]) -> Setting:
    """Method, layer, class and look, each in the address."""
    names, layers = shown[0].class_names, list(shown[0].model.layers())
    labels = {name: method.title for name, method in METHODS.items()}
    columns = st.columns(4)
    method = columns[0].selectbox("Method", list(METHODS), format_func=labels.__getitem__, **widgets.linked("method"))
    at_layer = METHODS[method].needs_layer
    help_text = "Where the method works at one. Later layers know more and see less sharply."
    layer = columns[1].selectbox(
        "Layer", [LAST, *layers[::-1]], disabled=not at_layer, help=help_text, **widgets.linked("layer")
    )
    target = columns[2].selectbox("Class to explain", [LIKELIEST, *names], **widgets.linked("class"))
    against = columns[3].selectbox(
        "Rather than", [NOTHING, *names], help="Explains the difference of two logits.", **widgets.linked("against")
    )
    with st.popover("Look", icon=":material/palette:"):
        ground = st.radio("Draw over", [ON_PHOTO, AS_SEEN], **widgets.linked("over"))
        opacity = st.slider("Opacity", 0.0, 1.0, 0.55, **widgets.linked("opacity"))
        text = "Signed maps are always red for, blue against."
        colours = st.selectbox("Colours", COLOURS, help=text, **widgets.linked("colours"))
    return Setting(method, layer, target, against, colours, opacity, ground)
