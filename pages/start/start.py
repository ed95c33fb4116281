"""Start: what this is, and a net that is already there."""

import streamlit as st

from pages.ui import widgets
from resnet.nets.spec import PRESETS, plain_twin

name = widgets.choice("A net to begin with", ("ResNet-20", "ResNet-56", "ResNet-18", "ResNet-50"), "start.net")
spec = PRESETS[name]
widgets.diagram(spec, "start.diagram")
widgets.figures(spec)

st.subheader("What to try next")
steps = [
    ("design/build.py", "Build", "Change its depth, width and shortcuts, and watch shapes and counts follow."),
    ("design/compare.py", "Compare", "Put nets side by side and see what exactly makes one of them cost more."),
    ("design/export.py", "Export", f"Take {name} with you: PyTorch or Keras source, ONNX, weights."),
    (
        "training/train.py",
        "Train",
        f"Let {name} race {plain_twin(spec).name} on CIFAR-10, or on drawn shapes without a network.",
    ),
    ("why/gradients.py", "Gradients", "Do a plain net's gradients vanish? Put the textbook sentence to the test."),
    ("insight/saliency.py", "Saliency", "Upload a photo and see the Grad-CAM of both twins side by side."),
]
for first in range(0, len(steps), 3):
    for column, (page, label, text) in zip(st.columns(3), steps[first : first + 3], strict=True):
        with column.container(border=True, height="stretch"):
            widgets.page_link(page, f"**{label}**", spec)
            st.caption(text)
