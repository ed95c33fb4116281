"""Lesions: what is left of a trained net with blocks cut, halved, dropped or in another order."""

from collections.abc import Iterator

import pandas as pd
import streamlit as st

from pages.ui import analysis, norms, state, widgets, work
from pages.ui.analysis import Drawn
from pages.ui.cached import breakable, net_profile, photo_view
from pages.ui.lab.nets import Shown
from resnet.analysis.analyses import ANALYSES
from resnet.data.samples import SAMPLES
from resnet.errors import Refused
from resnet.nets.blocks import MODES
from resnet.plots import lesions as plots
from resnet.plots.attribution import COLOURS, Look, overlay, whole
from resnet.plots.nets import net_diagram
from resnet.work.analysing import OWN, Analysed, Broken
from resnet.work.explaining import Answers, Maps, Picture, Query
from resnet.work.weights import Model

HAND = "hand"
CUT = {"cut": "cut the block (y = x)", "shortcut": "cut its branch", "branch": "cut its shortcut (y = F(x))"}


def one(frame: pd.DataFrame) -> Iterator[Drawn]:
    said = []
    for net, rows in frame.groupby("net", sort=False):
        whole, cut = rows.accuracy.iloc[0], rows[rows["mode"] == "cut"].accuracy
        if len(cut):
            said.append(f"{net} has {whole:.1%}, and with one block cut {cut.median():.1%} in the middle of all cuts")
    yield Drawn(plots.lesion_bars(frame), f"Accuracy with one block broken. {'; '.join(said)}.")


def dropped(frame: pd.DataFrame) -> Iterator[Drawn]:
    text = "Error with several blocks cut at random: each draw a dot, and their means with the standard deviation."
    yield Drawn(plots.error_curve(frame, "deleted", "deleted", "blocks cut"), text)


def shuffled(frame: pd.DataFrame) -> Iterator[Drawn]:
    text = "Error with blocks swapped inside their stages: 1 is the order of training, each draw a dot."
    yield Drawn(plots.error_curve(frame, "swaps", "tau", "Kendall's tau of the blocks' order"), text)


def by_hand() -> None:
    """Blocks broken by a click."""
    controls, result = st.columns([1, 2.6], gap="large")
    with controls, widgets.show_errors(Refused):
        shown = [net for net in analysis.trained_nets() if net.run]
        text = "What a click on a block does."
        mode = st.radio("Break", list(CUT), format_func=CUT.__getitem__, help=text, **widgets.linked("break"))
    with result, widgets.show_errors(Refused):
        st.markdown(f"**{ANALYSES['lesions'].question}**")
        if not shown:
            st.info("Choose a trained run.")
            return
        cuts = _clicked(shown[0], str(mode))
        _left(shown, cuts)


def _clicked(net: Shown, mode: str) -> dict[str, str]:
    """The broken blocks: those of the address, and a click in the diagram breaks or mends one."""
    spec = net.model.described
    boxes = net_profile(spec).blocks()
    names = boxes.name[boxes.stage.str.startswith("stage")].tolist()
    pairs = [entry.partition(":") for entry in state.linked("cuts")]
    cuts = {name: how for name, _, how in pairs if name in names and how in MODES}
    drawn = net_diagram(boxes, spec.plain, broken=list(cuts))
    text = f"{spec.name}: click a block to break it, and again to mend it. Broken ones are red."
    clicked = widgets.clicked(drawn, text, f"lesions.{net.id}.{state.result('lesions.turn', 0)}", boxes.name)
    if clicked in names:
        cuts = {name: how for name, how in cuts.items() if name != clicked} | (
            {} if cuts.get(clicked) == mode else {clicked: mode}
        )
        _set(cuts)
    if cuts and st.button("Put all back", icon=":material/healing:"):
        _set({})
    return cuts


def _set(cuts: dict[str, str]) -> None:
    """Into the address, and ask for what is left; the next chart has no selection."""
    state.set_result("lesions.ask", True)
    state.link(cuts=[f"{name}:{how}" for name, how in cuts.items()])
    state.set_result("lesions.turn", state.result("lesions.turn", 0) + 1)
    st.rerun()


def _left(shown: list[Shown], cuts: dict[str, str]) -> None:
    """Accuracy and loss of each net, and on demand its gradients."""
    asked, broken = [], []
    for net in shown:
        can = breakable(net.model)
        mine = tuple((name, how) for name, how in cuts.items() if how in can.get(name, ()))
        if cannot := [f"{name} ({CUT[how]})" for name, how in cuts.items() if (name, how) not in mine]:
            st.info(f"{net.title} stays whole where it has no such part: {', '.join(cannot)}.")
        asked.append(Broken(net.model, mine))
        broken.append(net.model._replace(cuts=mine))
    if state.result("lesions.ask"):
        state.set_result("lesions.ask", False)
        for request in asked:
            work.ask(request)
    if not work.ready(asked, "Test them"):
        return
    for net, request, column in zip(shown, asked, st.columns(max(2, len(shown))), strict=False):
        with column, widgets.show_errors(Refused):
            if left := work.result(request):
                st.metric(
                    f"{net.title}, accuracy on {left.images:,} images", f"{left.accuracy:.1%}",
                    f"{100 * (left.accuracy - left.whole_accuracy):+.1f} points", border=True,
                )  # fmt: skip
                st.caption(f"Loss {left.loss:.3g}; whole, {left.whole_loss:.3g}.")
    if st.toggle("Gradients of these nets", **widgets.linked("gradients")):
        table = work.result(Analysed("gradients", tuple(broken), OWN, 64))
        if table is not None:
            analysis.charts(norms.draw(table), "lesions.gradients")
    if st.toggle("Grad-CAM by these nets", **widgets.linked("cam")):
        _cams(shown, broken)


def _cams(shown: list[Shown], broken: list[Model]) -> None:
    """Grad-CAM of a sample photo by the broken nets, for the class that each whole net names."""
    name = st.selectbox("Photo", list(SAMPLES), format_func=lambda name: SAMPLES[name].title, **widgets.linked("photo"))
    raw = SAMPLES[name].path.read_bytes()
    seen = [photo_view(raw, model.frame, "crop").pixels for model in broken]
    pictures = tuple(map(Picture.of, seen))
    answers = work.result(Answers(tuple(net.model for net in shown), pictures), "Classify it")
    if not answers:
        return
    classes = [answer.top(1)[0] for answer in answers]
    asked = zip(broken, pictures, classes, strict=True)
    queries = tuple(
        Query(model, picture, "grad-cam", list(model.layers().values())[-1], target) for model, picture, target in asked
    )
    maps = work.result(Maps(queries), "Explain it")
    if maps is None:
        return
    high = max(float(abs(each).max()) for each in maps) or 1.0
    for place, (net, column) in enumerate(zip(shown, st.columns(max(2, len(shown))), strict=False)):
        with column:
            ground, said = widgets.rgb(seen[place]), net.class_names[classes[place]]
            figure = overlay(ground, maps[place], whole(ground), Look(COLOURS[0], 0.55, high))
            text = f"{net.title} with the blocks broken: Grad-CAM for “{said}”, which the whole net names."
            widgets.chart(figure, text, f"lesions.cam.{place}")


DRAWS = {"lesions": one, "drops": dropped, "shuffles": shuffled}
key = analysis.view({HAND: "By hand"} | {name: ANALYSES[name].title for name in DRAWS})
if key == HAND:
    by_hand()
else:
    analysis.show(key, DRAWS, trained=True)
