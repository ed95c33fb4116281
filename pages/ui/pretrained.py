"""The menu of weights for a net: untrained, a run's, torchvision's, or a file of the visitor's."""

from pathlib import Path

import streamlit as st

from pages.ui import widgets, work
from pages.ui.cached import files, is_downloaded
from resnet.errors import Refused
from resnet.limits import WEIGHTS_MB
from resnet.nets.spec import PRESETS, NetSpec
from resnet.runs import store as runs
from resnet.work import spool
from resnet.work.requests import Fitting
from resnet.work.weights import Weights
from resnet.zoo.weights import download, offered

UNTRAINED, FILE = "untrained, seed 0", "my own file"


def field(spec: NetSpec, key: str) -> Weights | None:
    """The chosen weights; None before there are any."""
    trained = {f"run {run.id}": run for run in runs.all_runs() if run.job.net == spec and run.checkpoint_step()}
    theirs = offered(spec.name) if PRESETS.get(spec.name) == spec else {}
    theirs = {f"torchvision's {version}": version for version in theirs}
    chosen = st.selectbox("Weights", [UNTRAINED, *trained, *theirs, FILE], key=key)
    with widgets.show_errors(Refused):
        if chosen in trained:
            return Weights("run", trained[chosen].id, trained[chosen].checkpoint_step() or 0)
        if chosen in theirs:
            return Weights("torchvision", theirs[chosen]) if _downloaded(spec, chosen, theirs[chosen]) else None
        return _file(spec, key) if chosen == FILE else Weights("seed", "0")
    return None


def _downloaded(spec: NetSpec, name: str, version: str) -> bool:
    weights = offered(spec.name)[version]
    if is_downloaded(weights):
        return True
    st.caption(f"{weights.meta['_file_size']:,.0f} MB from PyTorch's server, kept where torch.hub keeps its files.")
    if not st.button("Download", icon=":material/download:", key=f"pretrained.{name}"):
        return False
    bar = st.progress(0.0, "Connecting …")
    for done, total in download(weights):
        bar.progress(done / total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    return True


def _file(spec: NetSpec, key: str) -> Weights | None:
    """The file where it fits the net; or what does not fit, key by key."""
    text = "Weights of this net: safetensors, or a state_dict that torch.save wrote (.pt, .pth)"
    file = st.file_uploader(text, key=f"{key}.file", max_upload_size=WEIGHTS_MB)
    if file is None:
        return None
    weights = Weights("file", str(spool.put(Path(files().name), file.getbuffer())))
    report = work.result(Fitting(spec, weights), "Read this file")
    if report is None:
        return None
    if not report.fits:
        st.error(f"These are not the weights of {spec.name}: what does not fit is listed, and nothing was loaded.")
    elif report.misfits:
        st.info("All weights of the net were loaded; the file holds more, which was left out.")
    if report.misfits:
        widgets.table(report.table(), {})
    return weights if report.fits else None
