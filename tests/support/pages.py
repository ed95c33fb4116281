"""Pages in Streamlit's test runner: how the tests open them, find their widgets and read what they say."""

import base64

import numpy as np
from streamlit.testing.v1 import AppTest

from resnet.files import ROOT
from resnet.nets.spec import NetSpec, StageSpec

MAIN = ROOT / "pages" / "ui" / "main.py"
TINY = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=10, image_size=32)


def open_page(page: str, **address: str) -> AppTest:
    app = AppTest.from_file(str(MAIN), default_timeout=120).run()
    for name, value in address.items():
        app.query_params[name] = value
    app.switch_page(f"../{page}").run()
    return fine(app)


def fine(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].value
    return app


def address(app: AppTest, name: str = "net") -> str:
    """What the address holds under that name; AppTest gives a string or a list of one."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def texts(app: AppTest) -> str:
    """All that the page says in boxes and captions."""
    kinds = (app.error, app.warning, app.info, app.caption, app.markdown, app.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def numbers(values: list | dict) -> list:
    """A figure's numbers, which plotly writes as base64 where they came from an array."""
    if isinstance(values, list):
        return values
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()


def field(app: AppTest, kind: str, key: str):
    """The widget with that key, among those of one kind."""
    return next(widget for widget in app.get(kind) if widget.key and widget.key.startswith(key))


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    return fine(app)
