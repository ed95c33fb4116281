"""Start: words before torch, and a net with its figures."""

import subprocess
import sys

import pytest

from resnet.costs.profiler import profile
from resnet.files import ROOT
from resnet.nets.spec import PRESETS
from tests.support.pages import field, fine, open_page, texts


def test_the_first_words_are_on_screen_before_torch_is_imported() -> None:
    """The Start page's spinner is where it begins to import; before it there must be words and no torch."""
    code = """
import runpy, sys, streamlit as st
said = []
st.markdown = said.append
st.spinner = lambda text: sys.exit(7 if said and "torch" not in sys.modules else 1)
runpy.run_path("pages/start/start.py")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert result.returncode == 7, result.stderr


@pytest.mark.parametrize("name", ["ResNet-20", "ResNet-50"])
def test_a_net_to_begin_with_shows_its_figures(name: str) -> None:
    app = open_page("start/start.py")
    field(app, "button_group", "start.net").set_value(name).run()
    figures = {metric.label: metric.value for metric in fine(app).metric}
    assert figures["Parameters"] == f"{profile(PRESETS[name]).params:,}"
    assert figures["Depth"] == str(PRESETS[name].depth)
    assert f"Take {name} with you" in texts(app)
