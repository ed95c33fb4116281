"""The menu of weights for a net: untrained, a run's, torchvision's, or a file of the visitor's."""

import hashlib

import streamlit as st

from pages.ui import widgets
from resnet.errors import Refused
from resnet.limits import WEIGHTS_MB
from resnet.nets.model import ResNet, build
from resnet.nets.spec import PRESETS, NetSpec
from resnet.runs import store as runs
from resnet.runs.weights import load_model
from resnet.zoo.weights import download, downloaded, fit, load_torchvision, offered, read

UNTRAINED, FILE = "untrained, seed 0", "my own file"


def field(spec: NetSpec, key: str) -> tuple[str, ResNet] | None:
    """A name for the chosen weights and the net that holds them; None before there are any."""
    trained = {f"run {run.id}": run for run in runs.all_runs() if run.job.net == spec and run.checkpoint_step()}
    theirs = offered(spec.name) if PRESETS.get(spec.name) == spec else {}
    theirs = {f"torchvision's {version}": version for version in theirs}
    chosen = st.selectbox("Weights", [UNTRAINED, *trained, *theirs, FILE], key=key)
    with widgets.show_errors(Refused):
        if chosen in trained:
            return f"{chosen} {trained[chosen].checkpoint_step()}", load_model(trained[chosen])
        if chosen in theirs:
            return _torchvisions(spec, chosen, theirs[chosen])
        return _file(spec, key) if chosen == FILE else (UNTRAINED, build(spec))
    return None


def _torchvisions(spec: NetSpec, name: str, version: str) -> tuple[str, ResNet] | None:
    weights = offered(spec.name)[version]
    if not downloaded(weights):
        st.caption(f"{weights.meta['_file_size']:,.0f} MB from PyTorch's server, kept where torch.hub keeps its files.")
        if not st.button("Download", icon=":material/download:", key=f"pretrained.{name}"):
            return None
        bar = st.progress(0.0, "Connecting …")
        for done, total in download(weights):
            bar.progress(done / total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    return _fitted(spec, name, load_torchvision(weights))


def _file(spec: NetSpec, key: str) -> tuple[str, ResNet] | None:
    text = "Weights of this net: safetensors, or a state_dict that torch.save wrote (.pt, .pth)"
    file = st.file_uploader(text, key=f"{key}.file", max_upload_size=WEIGHTS_MB)
    if file is None:
        return None
    content = file.getvalue()
    return _fitted(spec, hashlib.sha256(content).hexdigest(), read(content))


def _fitted(spec: NetSpec, name: str, tensors: dict) -> tuple[str, ResNet] | None:
    """The net with these tensors, or what does not fit, key by key."""
    model = build(spec)
    report = fit(model, tensors)
    if not report.fits:
        st.error(f"These are not the weights of {spec.name}: what does not fit is listed, and nothing was loaded.")
    elif report.misfits:
        st.info("All weights of the net were loaded; the file holds more, which was left out.")
    if report.misfits:
        widgets.table(report.table(), {})
    return (name, model) if report.fits else None
