"""Start: words before torch, and a net with its figures."""

import subprocess
import sys

import pytest

from resnet.costs.profiler import profile
from resnet.files import ROOT
from resnet.nets.spec import PRESETS
from tests.support.pages import field, fine, open_page, texts


def test_every_page_shows_its_words_before_torch_is_imported() -> None:
    """A process of its own, in which the imports at the server's start never end."""
    code = """
import sys, streamlit as st
from streamlit.testing.v1 import AppTest
from pages.ui import navigation, server
server.ready = lambda timeout=0.0: timeout is None and st.stop()
app = AppTest.from_file("pages/ui/main.py", default_timeout=60)
for name in navigation.HEADS:
    page, = navigation.PAGES.glob(f"*/{name}.py")
    app.switch_page(f"../{page.parent.name}/{page.name}").run()
    head = navigation.head(name)
    assert app.title[0].value == head.title and not app.exception
    assert head.words in ["", *(each.value for each in app.markdown)]
    assert "torch" not in sys.modules, name
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["ResNet-20", "ResNet-50"])
def test_a_net_to_begin_with_shows_its_figures(name: str) -> None:
    app = open_page("start/start.py")
    field(app, "button_group", "start.net").set_value(name).run()
    figures = {metric.label: metric.value for metric in fine(app).metric}
    assert figures["Parameters"] == f"{profile(PRESETS[name]).params:,}"
    assert figures["Depth"] == str(PRESETS[name].depth)
    assert f"Take {name} with you" in texts(app)
