"""ResNet Explorer: `streamlit run app.py`.

The script that draws every page is pages/ui/main.py. It stands below the folder `pages` because Streamlit takes a
folder of that name beside the script as its old kind of multipage app, and then greets the first deep link after a
start with "Page not found".
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import streamlit as st

from pages.ui import server


@contextlib.asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    server.start()
    yield


app = st.App(
    Path(__file__).parent / "pages" / "ui" / "main.py",
    lifespan=lifespan,
    routes=server.ROUTES,
    on_script_error=server.report,
)
