"""What the pages of the analyses share: which nets, on which images, and how a result is shown."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.ui import state, widgets, work
from pages.ui.cached import analysis_reasons, data_changed
from pages.ui.lab.nets import NEW, Shown, nets_field
from resnet.analysis.analyses import ANALYSES
from resnet.analysis.contract import Analysis
from resnet.data import dataset as datasets
from resnet.errors import Refused
from resnet.nets.spec import PRESETS, twins
from resnet.work.analysing import NOISE, OWN, Analysed
from resnet.work.predict import batch_limit
from resnet.work.weights import Model

DEPTHS = tuple(PRESETS[name] for name in ("ResNet-20", "ResNet-56", "ResNet-110"))
AS_BUILT = "as built"
NORMS = {AS_BUILT: "as built", "batch": "batch norm", "group": "group norm", "none": "no norm"}
STARTS = {AS_BUILT: "as built", "zero": "zero-init", "skip": "SkipInit"}


class Drawn(NamedTuple):
    """A figure and the sentence that says what to look for in it."""

    figure: go.Figure
    caption: str


Draw = Callable[[pd.DataFrame], Iterable[Drawn]]
Options = Callable[[str], Mapping[str, object]]


def page(draws: Mapping[str, Draw], options: Options = lambda key: {}, trained: bool = False) -> None:
    """A whole page: the fields on the left, on the right the question, the figures and how to read them.

    `draws` are the analyses of the page by their keys, of which the visitor chooses one. Each gets the table of its
    analysis, of several nets, while it grows. `options(key)` draws fields of the page's own, for the analysis.
    A page of `trained` nets offers no others.
    """
    show(view({key: ANALYSES[key].title for key in draws}), draws, options, trained)


def show(key: str, draws: Mapping[str, Draw], options: Options = lambda key: {}, trained: bool = False) -> None:
    """One of the analyses of a page."""
    draw = draws[key]
    controls, result = st.columns([1, 2.6], gap="large")
    request = None
    with controls, widgets.show_errors(Refused):
        request = asked(key, options, trained)
    with result, widgets.show_errors(Refused):
        entry = ANALYSES[key]
        explained(entry)
        if request is None:
            st.info("Choose a net to which this applies.")
        elif (table := work.result(request, draw=lambda table: charts(draw(table), f"why.{key}"))) is not None:
            charts(draw(table), f"why.{key}")
            st.caption(f"**Look for this.** {entry.look}")
            with st.expander("The numbers"):
                widgets.table(table, {})


def view(titles: Mapping[str, str]) -> str:
    """Which of the page's views, by their keys and titles; the only one where there is no other."""
    first, *others = titles
    if not others:
        return first
    chosen = st.segmented_control(
        "View", list(titles), default=first, required=True, wrap=True, label_visibility="collapsed",
        format_func=titles.__getitem__, **widgets.linked("view"),
    )  # fmt: skip
    return chosen or first


def explained(entry: Analysis) -> None:
    """What to think of before the figure is seen, and behind it the formula and the paper."""
    introduced(entry.question, entry.expect, entry.formula, entry.paper)


def introduced(question: str, expect: str, formula: str, paper: str) -> None:
    """As `explained`, of what is no entry of ANALYSES."""
    st.markdown(f"**{question}**")
    with st.expander("What would you expect?"):
        st.markdown(expect)
    with st.expander("Formula and source"):
        st.markdown(f"{formula}\n\n{paper}")


def asked(key: str, options: Options = lambda key: {}, trained: bool = False) -> Analysed | None:
    """The fields of nets and images; None without a net. Refused."""
    entry, above = ANALYSES[key], st.container()
    seed = seed_field()
    with above:
        shown = trained_nets() if trained else nets(seed)
    reasons = {each.title: analysis_reasons(each.model)[key] for each in shown}
    for title, reason in reasons.items():
        if reason:
            st.info(f"{title} is left out. {reason}")
    shown = [each for each in shown if not reasons[each.title]]
    if not shown:
        return None
    models = tuple(each.model for each in shown)
    source = _source(shown)
    own = tuple(options(key).items())
    count = _count(entry, key, models, source, own)
    changed = 0.0 if source in (NOISE, OWN) else data_changed(source)
    if "seed" in entry.options:
        own = (*own, ("seed", seed))
    return Analysed(key, models, source, count, seed, own, changed)


def seed_field() -> int:
    """Drawn before what it decides."""
    text = "Draws the weights of untrained nets, the noise, and what the analysis draws."
    return int(st.number_input("Seed", 0, 2**31 - 1, step=1, help=text, **widgets.linked("seed")))


def nets(seed: int) -> list[Shown]:
    """One to four nets: trained ones as they are, untrained ones with the chosen norm and start."""
    offered = list(dict.fromkeys(net for spec in (state.net(), *DEPTHS) for net in twins(spec)))
    shown = nets_field(state.linked("nets"), "why.nets", offered, seed)
    state.link(nets=state.widget("why.nets", []))
    if not any(each.id.startswith(f"{NEW}:") for each in shown):
        return shown
    text = "Of the untrained nets. Without batch norm much of what is said of residual nets is reversed."
    norm = st.selectbox("Norm", list(NORMS), format_func=NORMS.__getitem__, help=text, **widgets.linked("norm"))
    text = (
        "Of the branches of untrained residual nets: a last norm or a factor that is 0 makes a block the identity. "
        "Fixup (arXiv 1901.09321) sets its classifier to 0 as well, so at its start no other layer has a gradient; "
        "SkipInit shows what it does to the branches."
    )
    start = st.selectbox("Start", list(STARTS), format_func=STARTS.__getitem__, help=text, **widgets.linked("start"))
    return [_switched(each, norm, start) if each.id.startswith(f"{NEW}:") else each for each in shown]


def trained_nets() -> list[Shown]:
    """One to four nets that have learned something, at first a recorded one and its plain twin."""
    shown = nets_field(state.linked("nets"), "why.trained", deepest=True)
    state.link(nets=state.widget("why.trained", []))
    return shown


def _switched(shown: Shown, norm: str, start: str) -> Shown:
    spec = shown.model.described
    if norm != AS_BUILT:
        spec = replace(spec, norm=norm)
    if start != AS_BUILT and not spec.plain:
        spec = replace(spec, zero_init=start == "zero", skip_init=start == "skip")
    return shown._replace(model=shown.model._replace(spec=spec))


def _source(shown: list[Shown]) -> str:
    """Where the images come from."""
    specs = [each.model.spec for each in shown]
    titles = {OWN: "test images of the nets' own data"} if all(each.run for each in shown) else {}
    titles[NOISE] = "Gaussian noise"
    if all(spec and (spec.classes, spec.in_channels, spec.frames) == (10, 3, 0) for spec in specs):
        titles |= {name: f"test images of {name}" for name in datasets.available()}
    usual, before, held = next(iter(titles)), state.result("why.usual"), state.widget("images")
    state.set_result("why.usual", usual)
    if held is not None and (held == before or held not in titles):  # nobody has chosen it, or it is gone
        state.set_widgets({"images": usual})
    return st.selectbox("Images", list(titles), format_func=titles.__getitem__, **widgets.linked("images"))


def _count(
    entry: Analysis, key: str, models: tuple[Model, ...], source: str, options: tuple[tuple[str, object], ...]
) -> int:
    """How many images; at first the largest power of two that is light work, else the smallest. Refused."""
    limit = entry.images if entry.together else min(map(batch_limit, models))
    sizes = [size for size in (entry.images >> step for step in range(5)) if 2 <= size <= limit] or [limit]
    light = (size for size in sizes if Analysed(key, models, source, size, 0, options).cost().light)
    first = next(light, sizes[0] if entry.together else sizes[-1])
    label = "Images" if entry.together else "Images in the batch"
    return int(st.number_input(label, 2, limit, first, key=f"why.count.{key}.{limit}.{first}"))


def charts(drawn: Iterable[Drawn], key: str) -> None:
    """The figures one below the other."""
    for number, (figure, caption) in enumerate(drawn):
        widgets.chart(figure, caption, f"{key}.{number}")
