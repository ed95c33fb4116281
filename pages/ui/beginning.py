"""The weights that a training begins with: where they come from, and how much of the net they hold still."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from pages.ui import pretrained, words, work
from pages.ui.cached import files
from resnet.nets.spec import NetSpec
from resnet.runs.jobs import Job
from resnet.work.requests import Beginning


class Begun(NamedTuple):
    """A file of weights, None for drawn ones, what they are in words, their pixels as `Job` has them; how to train."""

    path: Path | None = None
    words: str = ""
    pixels: tuple[tuple[float, ...], ...] = ()
    scratch: bool = False
    frozen: int = 0
    body_lr: float = 1.0

    def job(self, job: Job) -> Job:
        """The job, beginning so."""
        recipe = dataclasses.replace(job.recipe, frozen=self.frozen, body_lr=self.body_lr)
        return dataclasses.replace(job, recipe=recipe, start=self.words, pixels=self.pixels)

    def nets(self, race: list[NetSpec]) -> list[NetSpec]:
        """The nets of the race; with the first one again, where it also begins with drawn weights."""
        return [race[0], *race] if self.scratch else race


def field(net: NetSpec) -> Begun | None:
    """None before there are weights that fit the net."""
    chosen = pretrained.field(net, "train.weights", fixed=True)
    if chosen is None or chosen.weights.kind == "seed":
        return chosen and Begun()
    st.caption(f"{net.name} begins with these weights; all other nets of the race begin with drawn ones.")
    begun = work.result(Beginning(net, chosen.weights, chosen.title, files().name), "Read the weights")
    if begun is None:
        return None
    scratch = st.toggle(f"Also train {net.name} from scratch", True, key="train.scratch", persist_state="session")
    stages = range(len(net.stages) + 2)
    frozen = st.selectbox(
        "Frozen", stages, key="train.start.frozen", persist_state="session", format_func=_frozen,
        help="Frozen layers keep their weights, and their norms stay in eval mode. With all stages frozen only the "
        "head is trained.",
    )  # fmt: skip
    body_lr = st.number_input(
        "Learning rate of the body, of the head's", 0.0, 1.0, 0.1, step=0.05, format="%.3g", key="train.start.body_lr",
        persist_state="session", disabled=frozen == stages[-1],
        help="The head is drawn anew and learns fast; the body knows something already. 1 for one rate.",
    )  # fmt: skip
    if frozen == stages[-1]:
        st.caption(
            "Where crops, flips and all other augmentation are off, the body's features are computed once, and each "
            "epoch takes next to no time."
        )
    if begun.pixels:
        st.caption("Pixels are scaled by the mean and deviation that these weights were trained with.")
    return Begun(begun.path, begun.words, begun.pixels, scratch, frozen, 1.0 if frozen == stages[-1] else body_lr)


def _frozen(count: int) -> str:
    return words.frozen(count) if count else "nothing"
