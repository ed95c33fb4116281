"""What nets say of their test images at an epoch: confusion matrices, accuracy by class, pictures."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from pages.ui import widgets
from resnet.data.photos import picture_image
from resnet.plots import runs as run_plots
from resnet.plots.theme import PLAIN
from resnet.runs.answers import Answers
from resnet.runs.curves import class_accuracy, hardest

CLASSES = 30  # bars shown at once
STYLE = """<style>
.rx-pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 12px }
.rx-pictures figure { margin: 0; font-size: 13px; line-height: 1.4 }
.rx-pictures img { width: 64px; height: 64px; image-rendering: pixelated; border-radius: 4px; display: block }
.rx-pictures span { display: block; overflow-wrap: anywhere; border-left: 4px solid transparent; padding-left: 4px }
.rx-wrong { text-decoration: underline wavy #dc2626; font-weight: 600 }
</style>"""


@dataclass(frozen=True, eq=False)
class Verdict:
    """A net's answers, and how it is named and coloured here."""

    name: str
    color: str
    answers: Answers


def matrices(found: Sequence[Verdict], places: Sequence[st.delta_generator.DeltaGenerator]) -> None:
    for number, (made, place) in enumerate(zip(found, places, strict=True)):
        own = made.answers
        with place:
            text = (
                f"{made.name}: {(~own.right).sum():,} of {len(own.labels):,} test images are off the diagonal. A row "
                "is a true class, a column what the net says; colour: share of the true class, one scale for all nets."
            )
            widgets.chart(run_plots.confusion_chart(own.matrix, own.class_names), text, f"replay.confusion.{number}")


def classes(found: Sequence[Verdict]) -> None:
    same = [made for made in found if made.answers.class_names == found[0].answers.class_names]
    shares = [class_accuracy(made.answers.matrix) for made in same]
    order = hardest(shares[0], CLASSES)
    bars = {made.name: values[order] for made, values in zip(same, shares, strict=True)}
    text = f"Share of each class's test images that the net gets right, the hardest class for {same[0].name} on top."
    if len(shares[0]) > CLASSES:
        text += f" The {CLASSES} hardest of {len(shares[0])} classes."
    names = [same[0].answers.class_names[row] for row in order]
    widgets.chart(run_plots.class_chart(names, bars, [made.color for made in same]), text, "replay.classes")


def pictures(found: Sequence[Verdict]) -> None:
    alike = [made for made in found if made.answers.same_tests(found[0].answers)]
    rows = found[0].answers.rows
    tiles = np.arange(len(rows))
    if st.toggle("Only pictures that a net gets wrong", key="replay.wrong"):
        tiles = tiles[~np.all([made.answers.right[rows] for made in alike], axis=0)]
    st.html(STYLE + f'<div class="rx-pictures">{"".join(_tile(alike, tile) for tile in tiles.tolist())}</div>')
    nets = ", then ".join(f":{'orange' if made.color == PLAIN else 'blue'}[{made.name}]" for made in alike)
    st.caption(
        f"{len(tiles)} of {len(rows)} test images from all over the test set, in bold their true classes; below "
        f"what each net says at this epoch ({nets}) and its softmax. ✓ right; ✗ wrong, underlined."
    )
    if len(alike) < len(found):
        st.caption(f"Only nets with the test images of {found[0].name} are shown.")


def _tile(found: Sequence[Verdict], tile: int) -> str:
    """A picture, its true class, and a line for each net."""
    first = found[0].answers
    row = int(first.rows[tile])
    true = html.escape(first.class_names[first.labels[row]])
    image = f'<img src="data:image/png;base64,{_png(first.pictures[tile])}" alt="{true}">'
    return f"<figure>{image}<span><b>{true}</b></span>{''.join(_answer(made, row) for made in found)}</figure>"


def _answer(made: Verdict, row: int) -> str:
    own = made.answers
    mark, kind = ("✓", "rx-right") if own.right[row] else ("✗", "rx-wrong")
    said = f"{mark} {html.escape(own.class_names[own.predicted[row]])} {100 * own.confidence[row]:.0f} %"
    return (
        f'<span class="{kind}" style="border-left-color: {made.color}" title="{html.escape(made.name)}">{said}</span>'
    )


def _png(picture: np.ndarray) -> str:
    """A picture (S, S, C) uint8 as base64 of a PNG."""
    out = io.BytesIO()
    picture_image(picture).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
