"""Pieces that several pages show."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.ui import state
from pages.ui.cached import net_profile
from resnet.data.photos import picture_image
from resnet.nets.codes import from_code, to_code
from resnet.nets.spec import PRESETS, NetSpec, plain_twin
from resnet.plots import nets as net_plots

PAGES = Path(__file__).parent.parent
ABREAST = 3  # nets beside each other
CIFAR_NETS = [PRESETS[name] for name in ("ResNet-20", "ResNet-32", "ResNet-44", "ResNet-56", "ResNet-110")]


def columns(count: int) -> list[DeltaGenerator]:
    """Places for that many nets, a few beside each other."""
    return [place for first in range(0, count, ABREAST) for place in st.columns(min(ABREAST, count))][:count]


def page_link(page: str, label: str, spec: NetSpec | None = None) -> None:
    """A link to pages/`page`, with the net it is to open with."""
    st.page_link(PAGES / page, label=label, query_params={"net": to_code(spec)} if spec else None)


def choice(
    label: str, options: Iterable[str], key: str, help: str | None = None, labels: dict[str, str] | None = None
) -> str:
    """One of a few options, all in sight; the first where the key has none of them yet."""
    names = list(options)
    if state.widget(key) not in names:
        state.set_widgets({key: names[0]})
    picked = st.segmented_control(
        label,
        names,
        key=key,
        help=help,
        required=True,
        wrap=True,
        format_func=lambda name: (labels or {}).get(name, name),
    )
    return picked or names[0]


def net_field(spec: NetSpec, key: str, nets: Iterable[NetSpec] = CIFAR_NETS) -> None:
    """A menu of the visitor's own net and others; choosing one makes it the visitor's net."""
    own = to_code(spec)
    codes = [own, *(code for code in map(to_code, nets) if code != own)]
    if state.widget(key) != own:
        state.set_widgets({key: own})
    st.selectbox(
        "Net",
        codes,
        key=key,
        on_change=lambda: state.set_net(from_code(state.widget(key))),
        format_func=lambda code: from_code(code).name,
    )
    page_link("design/build.py", "Edit this net on the Build page", spec)


def linked(name: str) -> dict[str, Any]:
    """Arguments of a widget whose value is in the address under that name, and lasts as long as the session."""
    return {"key": name, "bind": "query-params", "persist_state": "session"}


def chart(figure: go.Figure, caption: str, key: str, select: Literal["", "points", "box"] = "") -> Any:
    """A still figure and the sentence that says what to look for and where it comes from; a selection if asked for."""
    config = {"displaylogo": False, "displayModeBar": False}
    event = st.plotly_chart(
        figure, key=key, alt=caption, config=config, on_select="rerun" if select else "ignore",
        selection_mode=select or "points",
    )  # fmt: skip
    st.caption(caption)
    return event if select else None


def clicked(figure: go.Figure, caption: str, key: str, names: pd.Series) -> str:
    """A `chart` of boxes, and of the one that was clicked its entry of `names` (by point index), else ""."""
    event = chart(figure, caption, key, select="points")
    points = event["selection"]["points"] if event else []
    return str(names[points[0]["point_index"]]) if points else ""


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Pixels (C, H, W) uint8 as one would look at them: (H, W, 3)."""
    return np.asarray(picture_image(pixels.transpose(1, 2, 0)).convert("RGB"))


def table(data: pd.DataFrame, columns: Mapping[str, Any]) -> None:
    """A table in which no column is narrower than its numbers, whatever it showed before."""
    st.dataframe(data, hide_index=True, column_config=widths(data, columns))


DIGIT, MARGINS, WIDEST = 8, 20, 500  # pixels: of a digit, of both sides of a cell together, of a column


def widths(data: pd.DataFrame, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns, each as wide as its head or its widest cell: the grid itself measures some cells, and but once."""
    made = {}
    for name in map(str, data.columns):
        entry = columns.get(name, name)
        config: dict[str, Any] = {"label": entry} if isinstance(entry, str) else dict(entry or {})
        form = (config.get("type_config") or {}).get("format")
        texts = [config.get("label") or name, *(_cell(value, form) for value in data[name])]
        made[name] = config | {"width": min(WIDEST, MARGINS + math.ceil(DIGIT * max(map(_digits, texts))))}
    return made


def _digits(text: str) -> float:
    """About how many digits are as wide as the text."""
    return len(text) - sum(map(text.count, " .,:il")) / 2


def _cell(value: Any, form: str | None) -> str:
    """How the grid writes a value."""
    if pd.isna(value):
        return "None"
    if form == "localized":
        return f"{value:,}"
    if form and "%" in form:
        return form % value
    return str(round(value, 4) if isinstance(value, float) else value)


def amount(value: float) -> str:
    """Three digits, in full where a reader can take them in: 9.21, 13,700, 1.2e+20."""
    return f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= value < 1e15 else f"{value:.3g}"


def tiles(entries: Mapping[str, str]) -> None:
    """Figures in a row, each under its label."""
    with st.container(horizontal=True):
        for label, value in entries.items():
            st.metric(label, value, border=True, width="content")


def figures(spec: NetSpec) -> None:
    """Depth, params, MACs and FLOPs of a net, its plain twin's under them."""
    own, twin, name = net_profile(spec), net_profile(plain_twin(spec)), plain_twin(spec).name
    entries = [
        ("Depth", spec.depth, spec.depth, "Layers with weights on the longest path: the number in the name."),
        (
            "Parameters",
            own.params,
            twin.params,
            "Weights, biases, batch-norm scales and shifts; no running statistics.",
        ),
        ("MACs per image", own.macs, twin.macs, "Multiply-adds of convolutions and linear layers, nothing else."),
        ("FLOPs per image", own.flops, twin.flops, "2 x MACs: a multiply-add counts as two operations."),
    ]
    with st.container(horizontal=True):
        for label, value, twin_value, help_text in entries:
            note = None if spec.plain else f"{name}: {twin_value:,}"
            st.metric(
                label,
                f"{value:,}",
                note,
                delta_color="off",
                delta_arrow="off",
                help=help_text,
                border=True,
                width="content",
            )


FOLD_FROM = 20  # blocks


def diagram(spec: NetSpec, key: str, opens: bool = False) -> str:
    """The net's diagram and how to read it; where it `opens`, the stage whose box was clicked, else ""."""
    arcs = (
        "no arc goes over it, because a plain net has no shortcuts"
        if spec.plain
        else "an arc is the shortcut past it; look at where the arcs change their style, because there the map shrinks "
        "and the shortcut has to change its shape"
    )
    folds = sum(stage.blocks for stage in spec.stages) >= FOLD_FROM
    boxes = net_profile(spec).blocks(folded=folds)
    text = f"{spec.name} from left to right: a box is a block, taller where its feature map is larger, and {arcs}."
    text += " x N stands for N equal blocks." if folds else ""
    text += " Hover over a box for its shapes and costs; click it for its stage's layers." if opens else ""
    figure = net_plots.net_diagram(boxes, spec.plain)
    if not opens:
        chart(figure, text, key)
        return ""
    # A selection belongs to a net's boxes: another net is another chart.
    return clicked(figure, text, f"{key}.{to_code(spec)}", boxes.stage)


def mark(key: str) -> None:
    """A frame around the widget with that key: its entry has to be fixed."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", key)
    st.html(
        f"<style>.st-key-{name} {{ outline: 2px solid #dc2626; outline-offset: -2px; border-radius: 6px; }}</style>"
    )


@contextmanager
def show_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Show an error of these kinds as its text, never as a traceback."""
    try:
        yield
    except kinds as error:
        st.error(str(error))
