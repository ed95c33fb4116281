"""Export: the net as source code, ONNX, weights, a description or tables."""

import streamlit as st

from pages.ui import pretrained, state, widgets, work
from pages.ui.cached import exported, files
from resnet.errors import Refused
from resnet.exports.forms import EXPORTERS, ONNX_OPSET, ONNX_OPSETS, file_name, size_text
from resnet.nets.spec import NetSpec
from resnet.work.requests import Exported

SHOWN = 20_000  # characters of a file


def show(spec: NetSpec, name: str) -> None:
    exporter = EXPORTERS[name]
    st.caption(exporter.reading)
    if reason := exporter.reason(spec):
        st.warning(f"{reason} Choose another form, or another net.")
        return
    with widgets.show_errors(Refused):
        (show_file if exporter.needs_weights else show_text)(spec, name)


def show_text(spec: NetSpec, name: str) -> None:
    content = exported(name, spec)
    st.download_button(
        label(spec, name, len(content)), content, file_name(name, spec), EXPORTERS[name].mime, type="primary"
    )
    text = content.decode()
    st.code(text[:SHOWN], "python" if EXPORTERS[name].suffix.endswith(".py") else None)
    if len(text) > SHOWN:
        st.caption(f"The first {SHOWN:,} characters of {len(text):,}.")


def show_file(spec: NetSpec, name: str) -> None:
    """A file with weights may be large, so the server sends it from the disk."""
    chosen = pretrained.field(spec, "export.weights")
    if chosen is None:
        return
    opset = ONNX_OPSET
    if name == "onnx":
        opset = st.selectbox(
            "Opset", ONNX_OPSETS, ONNX_OPSETS.index(ONNX_OPSET), key="export.opset",
            help="The version of ONNX's operators. Older runtimes read only older opsets.",
        )  # fmt: skip
    request = Exported(name, spec, chosen.weights, files().name, opset)
    path = work.result(request, "Write the file")
    if path is None:
        return
    if not path.exists():
        st.info("The file has been removed to make room for others.")
        if st.button("Write it again"):
            work.again(request)
        return
    address = f"files/{path.name}/{file_name(name, spec)}"
    st.link_button(label(spec, name, path.stat().st_size), address, type="primary", icon=":material/download:")


def label(spec: NetSpec, name: str, size: int) -> str:
    return f"Download {file_name(name, spec)} ({size_text(size)})"


current = state.net()
controls, result = st.columns([1, 2.2], gap="large")
with controls:
    widgets.net_field(current, "export.net")
    titles = {name: exporter.title for name, exporter in EXPORTERS.items()}
    chosen = st.radio("As", list(titles), key="export.as", format_func=titles.__getitem__)
with result:
    show(current, chosen)
