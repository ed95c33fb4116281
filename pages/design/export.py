"""Export: the net as source code, ONNX, weights, a description or tables."""

import streamlit as st

from pages.ui import state, widgets
from pages.ui.cached import exported
from resnet import runs
from resnet.export import EXPORTERS, ExportError, file_name
from resnet.spec import NetSpec

UNTRAINED = "untrained, seed 0"
SHOWN = 20_000  # characters of a file


def size_text(size: int) -> str:
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def weights_field(spec: NetSpec) -> str:
    """The id of the run whose weights are to be written, "" for untrained ones."""
    trained = [run.id for run in runs.all_runs() if run.job.net == spec and run.checkpoint_step()]
    picked = st.selectbox("Weights", [UNTRAINED, *trained], key="export.weights")
    return "" if picked == UNTRAINED else picked


def show(spec: NetSpec, name: str) -> None:
    exporter = EXPORTERS[name]
    st.caption(exporter.reading)
    if reason := exporter.reason(spec):
        st.warning(f"{reason} Choose another form, or another net.")
        return
    run_id = weights_field(spec) if exporter.needs_weights else ""
    step = runs.find(run_id).checkpoint_step() or 0 if run_id else 0
    if exporter.needs_weights and not st.toggle("Write the file", key=f"export.{name}.{run_id}"):
        return
    with widgets.told(ExportError, runs.RunError):
        content = exported(name, spec, run_id, step)
        label = f"Download {file_name(name, spec)} ({size_text(len(content))})"
        st.download_button(label, content, file_name(name, spec), exporter.mime, type="primary")
        if not exporter.needs_weights:
            st.code(content.decode()[:SHOWN], "python" if name.endswith(("torch", "keras", "vision", "timm")) else None)


st.title("Export")
current = state.net()
controls, result = st.columns([1, 2.2], gap="large")
with controls:
    widgets.net_field(current, "export.net")
    titles = {name: exporter.title for name, exporter in EXPORTERS.items()}
    chosen = st.radio("As", list(titles), key="export.as", format_func=titles.__getitem__)
with result:
    show(current, chosen)
