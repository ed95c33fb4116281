"""ResNet Explorer: `streamlit run app.py`.

The script that draws every page is pages/ui/main.py. It stands below the folder `pages` because Streamlit takes a
folder of that name beside the script as its old kind of multipage app, and then greets the first deep link after a
start with "Page not found".
"""

import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import streamlit as st


def warm_up() -> None:
    """Import torch and profile one net, so that the first visitor does not wait for it."""
    from resnet.costs.profiler import profile
    from resnet.nets.spec import PRESETS

    profile(PRESETS["ResNet-20"])


@contextlib.asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    threading.Thread(target=warm_up, daemon=True).start()
    yield


app = st.App(Path(__file__).parent / "pages" / "ui" / "main.py", lifespan=lifespan)
