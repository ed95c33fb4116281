"""What the server does beside the pages: imports at its start, garbage collection, reports of errors."""

import gc
import logging
import re
import secrets
import threading
import time
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from resnet.work.worker import give_back

COLLECT_S = 15.0
DIGEST, NAME = re.compile(r"[0-9a-f]{64}"), re.compile(r"[a-z0-9][a-z0-9.-]*")
LOG = logging.getLogger(__name__)
_ready = threading.Event()
_ready.set()  # until `start`


def start() -> None:
    """Import what the pages need in a thread, so that the first page shows its words meanwhile; then collect."""
    _ready.clear()
    threading.Thread(target=_run, name="server", daemon=True).start()


def ready(timeout: float | None = 0.0) -> bool:
    """Whether the imports are done, after `timeout` seconds at most; None waits."""
    return _ready.wait(timeout)


def _run() -> None:
    gc.disable()  # nearly all that an import makes stays, and to look through it again and again takes a second
    try:
        _warm_up()
        _ready.set()
        _start_worker()
    except Exception:
        LOG.exception("The warm-up failed; the pages will import what they need.")
    _ready.set()
    gc.enable()
    gc.collect()
    gc.freeze()  # PyTorch leaves 600,000 objects that live as long as the process; no collection looks at them again
    while True:
        time.sleep(COLLECT_S)
        give_back()


def _warm_up() -> None:
    """Import torch and what the first visitors would wait for, and draw one net."""
    import pages.ui.editor
    import pages.ui.overlay
    import pages.ui.pretrained
    import pages.ui.replay  # noqa: F401
    from pages.ui.cached import net_profile
    from resnet.nets.spec import PRESETS, twins
    from resnet.plots.nets import net_diagram

    for net in twins(PRESETS["ResNet-20"]):
        net_diagram(net_profile(net).blocks(), net.plain).to_json()


def _start_worker() -> None:
    """Start the process of the heavy work with what Gradients shows first."""
    from pages.ui.cached import SERVER, scheduler
    from resnet.nets.spec import PRESETS, twins
    from resnet.work.analysing import NOISE, Analysed
    from resnet.work.weights import Model, Weights

    models = tuple(Model(net, Weights("seed", "0")) for net in twins(PRESETS["ResNet-20"]))
    scheduler().ask(Analysed("gradients", models, NOISE, 128), SERVER)


async def send_file(request: Request) -> Response:
    """An exported file: /files/SHA-256/NAME. Nothing but a file of that digest in the app's own folder."""
    from pages.ui.cached import files

    digest, name = request.path_params["digest"], request.path_params["name"]
    path = Path(files().name) / digest
    if not (DIGEST.fullmatch(digest) and NAME.fullmatch(name) and path.is_file()):
        return PlainTextResponse("This file is no longer here. Write it again on the Export page.", 404)
    return FileResponse(path, filename=name, media_type="application/octet-stream")


ROUTES = [Route("/files/{digest}/{name}", send_file)]


def report(error: Exception) -> bool:
    """Tell the visitor in a sentence, with a number under which the details are in the log; always True."""
    number = secrets.token_hex(4)
    LOG.error("Report %s", number, exc_info=error)
    st.error(
        f"Something went wrong on this page. Nothing of yours is lost: reload the page, or go on elsewhere. "
        f"To report it, name the number {number}, under which the server's log has the details.",
        icon=":material/bug_report:",
    )
    return True
