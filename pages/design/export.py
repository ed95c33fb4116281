"""Export: the net as source code, ONNX, weights, a description or tables."""

import streamlit as st

from pages.ui import pretrained, state, widgets
from pages.ui.cached import exported
from resnet.errors import Refused
from resnet.exports.forms import EXPORTERS, file_name, size_text
from resnet.nets.spec import NetSpec

SHOWN = 20_000  # characters of a file


def show(spec: NetSpec, name: str) -> None:
    exporter = EXPORTERS[name]
    st.caption(exporter.reading)
    if reason := exporter.reason(spec):
        st.warning(f"{reason} Choose another form, or another net.")
        return
    weights = pretrained.field(spec, "export.weights") if exporter.needs_weights else ("", None)
    if weights is None or (exporter.needs_weights and not st.toggle("Write the file", key=f"export.write.{name}")):
        return
    with widgets.show_errors(Refused):
        content = exported(name, spec, *weights)
        label = f"Download {file_name(name, spec)} ({size_text(len(content))})"
        st.download_button(label, content, file_name(name, spec), exporter.mime, type="primary")
        if not exporter.needs_weights:
            text = content.decode()
            st.code(text[:SHOWN], "python" if exporter.suffix.endswith(".py") else None)
            if len(text) > SHOWN:
                st.caption(f"The first {SHOWN:,} characters of {len(text):,}.")


current = state.net()
controls, result = st.columns([1, 2.2], gap="large")
with controls:
    widgets.net_field(current, "export.net")
    titles = {name: exporter.title for name, exporter in EXPORTERS.items()}
    chosen = st.radio("As", list(titles), key="export.as", format_func=titles.__getitem__)
with result:
    show(current, chosen)
