"""Pieces that several pages show."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from pages.ui import state
from pages.ui.cached import net_profile
from resnet import plots
from resnet.spec import PRESETS, NetSpec, from_code, plain_twin, to_code

PAGES = Path(__file__).parent.parent
CIFAR_NETS = [PRESETS[name] for name in ("ResNet-20", "ResNet-32", "ResNet-44", "ResNet-56", "ResNet-110")]


def page_link(page: str, label: str, spec: NetSpec | None = None) -> None:
    """A link to pages/`page`, with the net it is to open with."""
    st.page_link(PAGES / page, label=label, query_params={"net": to_code(spec)} if spec else None)


def choice(
    label: str, options: Iterable[str], key: str, help: str | None = None, labels: dict[str, str] | None = None
) -> str:
    """One of a few options, all in sight; the first where the key has no value yet."""
    names = list(options)
    if state.widget(key) is None:
        state.set_widgets({key: names[0]})
    picked = st.segmented_control(
        label, names, key=key, help=help, required=True, format_func=lambda name: (labels or {}).get(name, name)
    )
    return picked or names[0]


def net_field(spec: NetSpec, key: str) -> None:
    """A menu of the visitor's own net and the CIFAR presets; choosing one makes it the visitor's net."""
    own = to_code(spec)
    codes = [own, *(code for code in map(to_code, CIFAR_NETS) if code != own)]
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


def chart(figure: go.Figure, caption: str, key: str) -> None:
    """A still figure and the sentence that says what to look for and where it comes from."""
    st.plotly_chart(figure, key=key, alt=caption, config={"displaylogo": False, "displayModeBar": False})
    st.caption(caption)


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


def diagram(spec: NetSpec, key: str) -> None:
    """The net's diagram and how to read it."""
    arcs = (
        "no arc goes over it, because a plain net has no shortcuts"
        if spec.plain
        else "an arc is the shortcut past it; look at where the arcs change their style, because there the map shrinks "
        "and the shortcut has to change its shape"
    )
    figure = plots.net_diagram(net_profile(spec).blocks(), spec.plain)
    chart(
        figure,
        f"{spec.name} from left to right: a box is a block, taller where its feature map is larger, and {arcs}.",
        key,
    )


@contextmanager
def told(*kinds: type[Exception]) -> Iterator[None]:
    """Show an error of these kinds as its sentence, never as a traceback."""
    try:
        yield
    except kinds as error:
        st.error(str(error))
