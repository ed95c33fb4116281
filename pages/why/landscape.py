"""Landscape: the loss around the weights of trained nets, along a line, over a plane, and where a training passed."""

from collections.abc import Iterator, Mapping
from functools import partial

import pandas as pd
import streamlit as st

from pages.ui import analysis, widgets, work
from pages.ui.analysis import Drawn
from pages.ui.lab.nets import distinct, where
from resnet.analysis.analyses import ANALYSES
from resnet.analysis.landscape import PAPER
from resnet.errors import Refused
from resnet.plots import landscape as plots
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.work.landscapes import PathOfTraining, Travelled
from resnet.work.weights import Model, kept_epochs

POINTS = {"line": (9, 17, 33), "surface": (9, 17, 31)}


def along(frame: pd.DataFrame) -> Iterator[Drawn]:
    centre = frame[frame.a == 0]
    said = "; ".join(f"{row.loss:.3g} in {row.net}" for row in centre.itertuples())
    text = "Loss along a random direction, each filter as long as the net's own: the same direction for twins."
    yield Drawn(plots.loss_lines(frame), f"{text} In the middle, the net's own: {said}.")


def over(frame: pd.DataFrame) -> Iterator[Drawn]:
    text = "Logarithm of the loss over two random directions, at the same levels for all nets. Finer as it goes."
    yield Drawn(plots.loss_contours(frame), text)
    yield Drawn(plots.loss_surfaces(frame), "The same as surfaces, which turn when they are dragged.")


def fields(key: str) -> Mapping[str, object]:
    points = st.select_slider("Points a side", POINTS[key], POINTS[key][1], key=f"landscape.points.{key}")
    span = st.select_slider("Distance", (0.25, 0.5, 1.0), 1.0, **widgets.linked("span"))
    return {"points": points, "span": span}


def path() -> None:
    """The path of one training in the plane of its own directions."""
    offered = {run.id: run for run in runs.trained() if len(_before(run)) > 1}
    controls, result = st.columns([1, 2.6], gap="large")
    request = None
    with controls, widgets.show_errors(Refused):
        request = _asked(offered) if offered else None
    with result, widgets.show_errors(Refused):
        analysis.introduced(
            "Did the training turn, or did it go straight down?",
            "The weights are hundreds of thousands of numbers. How much of their way through a whole training lies in "
            "a plane, and does the way cross the contours at right angles?",
            r"Principal components of $\theta_e - \bar\theta$ over the epochs $e$ whose weights were kept; the "
            r"loss is that at $\theta_{\text{last}} + a\,d_1 + b\,d_2$, with the last epoch's biases and norms.",
            PAPER,
        )
        if not offered:
            missing = "No run here has kept its weights after two epochs or more before its last."
            st.info(f"{missing} Train a net for three epochs or more.")
        elif request:
            draw = partial(_draw, request.model.plain)
            if (found := work.result(request, draw=draw)) is not None:
                draw(found)


def _asked(offered: Mapping[str, Run]) -> PathOfTraining:
    """Refused."""
    titles = distinct({key: f"{run.job.title} {where(run)}" for key, run in offered.items()})
    chosen = offered[st.selectbox("Training", list(titles), format_func=titles.__getitem__, **widgets.linked("path"))]
    points = st.select_slider("Points a side", POINTS["surface"], key="landscape.points.path")
    count = st.number_input("Images", 2, 1000, 100, key="landscape.images.path")
    return PathOfTraining(Model.of(chosen), tuple(_before(chosen)), int(count), int(points))


def _draw(plain: bool, found: Travelled) -> None:
    shares = f"{found.explained[0]:.0%} and {found.explained[1]:.0%}"
    text = (
        f"Contours of the loss, and the weights after epochs {', '.join(found.path.epoch)}. The two directions "
        f"hold {shares} of the variance of the kept weights; with so few of them, much is to be expected. The "
        "contours are those of the last epoch's norms, so an earlier epoch's own loss may be another."
    )
    widgets.chart(plots.path_in_plane(found.surface, found.path, found.explained, plain), text, "landscape.path")


def _before(run: Run) -> list[int]:
    """The epochs whose weights it kept, without the newest weights."""
    tested = run.epochs()
    newest = tested.epoch[tested.step == run.checkpoint_step()]
    return [epoch for epoch in kept_epochs(run) if epoch not in set(newest)]


DRAWS = {"line": along, "surface": over}
view = analysis.view({key: ANALYSES[key].title for key in DRAWS} | {"path": "Path of a training"})
if view == "path":
    path()
else:
    analysis.show(view, DRAWS, fields, trained=True)
