"""The menu of weights for a net: untrained, a run's, torchvision's, or a file of the visitor's."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from pages.ui import state, widgets, work
from pages.ui.cached import files, is_downloaded
from resnet.errors import Refused
from resnet.limits import WEIGHTS_MB
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.work import spool
from resnet.work.requests import Fitting
from resnet.work.weights import Weights, kept_epochs, of_run
from resnet.zoo.fitting import Report
from resnet.zoo.hub import WeightsEnum, download, megabytes, offered

UNTRAINED, DRAWN, FILE = "untrained, seed 0", "drawn anew, by the seed", "my own file"


class Chosen(NamedTuple):
    """Weights that were chosen, how images are prepared for them if that is known, and what they are, in words."""

    weights: Weights
    inputs: Inputs | None
    title: str


def field(spec: NetSpec, key: str, fixed: bool = False) -> Chosen | None:
    """The chosen weights for the net; None before there are any.

    `fixed`: for a training, where the data give classes and channels, so that weights for others are loaded in part.
    """
    alike = (run for run in runs.every() if _alike(run.job.net, spec) and run.checkpoint_step())
    trained = {title: weights for run in alike for title, weights in _of_run(run).items()}
    theirs = {f"torchvision's {version}": Weights("torchvision", version) for version in offered(spec.name)}
    label, none = ("Weights to begin with", DRAWN) if fixed else ("Weights", UNTRAINED)
    chosen = st.selectbox(label, [none, *trained, *theirs, FILE], key=key)
    if chosen == none:
        return Chosen(Weights("seed", "0"), None, none)
    with widgets.show_errors(Refused):
        if chosen in theirs and not downloaded(offered(spec.name)[theirs[chosen].name], spec.name):
            return None
        title, weights = _file(key) if chosen == FILE else (chosen, {**trained, **theirs}[chosen])
        return _fitting(spec, Chosen(weights, None, title), key, fixed) if weights else None
    return None


def _alike(one: NetSpec, other: NetSpec) -> bool:
    """Whether the nets differ at most in what they read and in their classes."""
    same = {name: getattr(other, name) for name in ("classes", "in_channels", "image_size")}
    return replace(one, **same) == other


def _of_run(run: Run) -> dict[str, Weights]:
    """The run's weights by their titles: the newest, and those that it kept after an epoch."""
    kept = {f"run {run.id}, after epoch {epoch}": of_run(run, epoch) for epoch in kept_epochs(run)}
    return {f"run {run.id}": of_run(run), **kept}


def downloaded(weights: WeightsEnum, title: str) -> bool:
    """Whether torchvision's file for the net of that title is here; a button fetches it. Refused where that fails."""
    if is_downloaded(weights):
        return True
    size = f"{megabytes(weights):,.0f} MB from PyTorch's server, kept where torch.hub keeps its files."
    st.caption(f"{title}: {size}")
    if not st.button("Download", icon=":material/download:", key=f"pretrained.{title}.{weights.name}"):
        return False
    bar = st.progress(0.0, "Connecting …")
    for done, total in download(weights):
        bar.progress(done / total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    return True


def _file(key: str) -> tuple[str, Weights | None]:
    text = "Weights of this net: safetensors, or a file that torch.save wrote (.pt, .pth, .ckpt, .bin)"
    file = st.file_uploader(text, key=f"{key}.file", max_upload_size=WEIGHTS_MB)
    if file is None:
        return "", None
    return f"the file {file.name}", Weights("file", str(spool.put(Path(files().name), file.getbuffer())))


def _fitting(spec: NetSpec, chosen: Chosen, key: str, fixed: bool) -> Chosen | None:
    """The weights where they fit the net, or where the visitor wants what fits of them."""
    found = work.result(Fitting(spec, chosen.weights), "Read the weights")
    if found is None:
        return None
    report, partial = found.report, False
    if report and not report.fits and report.fitting:
        partial = st.toggle("Load all that fits", fixed, key=f"{key}.partial")
        if not fixed and report.changes:
            _adapt(spec, report)
    if report and not (report.fits or partial):
        _tell(replace(report, loaded=()))
        return None
    if report:
        _tell(report)
    return Chosen(replace(chosen.weights, partial=partial), found.inputs, chosen.title)


def _adapt(spec: NetSpec, report: Report) -> None:
    words = " and ".join(f"{value} {NAMES[name]}" for name, value in report.changes.items())
    if st.button(f"Make the net so: {words}", icon=":material/tune:"):
        state.set_net(replace(spec, **report.changes))
        st.rerun()


NAMES = {"classes": "classes", "in_channels": "channels"}


def _tell(report: Report) -> None:
    text = " ".join(report.sentences())
    (st.caption if report.fits else st.warning if report.loaded else st.error)(text)
    if report.misfits:
        with st.expander(f"{len(report.misfits)} entries that do not fit"):
            widgets.table(report.table(), {})
