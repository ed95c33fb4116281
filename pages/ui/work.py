"""Heavy work on a page: asked for here, and shown as a button, as a place in line, as progress, or as done."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.ui.cached import scheduler
from resnet.work.contract import Request
from resnet.work.predict import in_turn

WAIT_S = 0.7  # light work is mostly done by then, and the page need not be drawn twice
POLL_S = 1.0
_asked: ContextVar[set[Request]] = ContextVar("asked")


@contextmanager
def page_run() -> Iterator[None]:
    """One run of a page: what the session waited for before it and no longer asks for is cancelled after it."""
    _asked.set(set())
    yield  # a run that is interrupted cancels nothing, for the next one follows at once
    scheduler().keep(_client(), _asked.get())


Draw = Callable[[Any], None]  # shows what is known of a result while it is computed


def result(request: Request, label: str = "Compute", draw: Draw | None = None) -> Any | None:
    """The request's result, None where `ready` says so. Raises what went wrong: Refused, mostly."""
    return scheduler().result(request) if ready([request], label, draw) else None


def known(request: Request) -> Any | None:
    """The result where somebody has asked for it and it is done. Raises as `result`."""
    return scheduler().result(request) if scheduler().done(request) else None


def ask(request: Request) -> None:
    """Put it in line, as a click on its button does. Refused as `ready`."""
    scheduler().ask(request, _client())


def follow(request: Request) -> None:
    """Put it in line without a click, for a visitor who follows what goes on. Refused as `ready`."""
    ask(request)
    _asked.get(set()).add(request)


def again(*requests: Request) -> None:
    """Put them in line though they are done, and draw the page anew."""
    for request in requests:
        scheduler().forget(request)
        ask(request)
    st.rerun()


def measured(request: Request, label: str) -> Any | None:
    """As `result`, with a button to measure again."""
    if scheduler().done(request) and st.button(f"{label} again", icon=":material/timer:"):
        again(request)
    return result(request, label)


def ready(requests: Collection[Request], label: str, draw: Draw | None = None) -> bool:
    """Whether all are done; if not, the page shows a button that starts them, or how far they are.

    Light work starts by itself, other work at a click; the button says what it will take. Refused where it takes more
    memory than the app may use.
    """
    missing = [request for request in requests if not scheduler().done(request)]
    if not missing:
        return True
    place = st.empty()
    wanted = in_turn(list(map(scheduler().cost, missing))).light or any(map(_waits, missing))
    if not wanted:
        expected = in_turn(list(map(scheduler().expected, missing)))
        if not place.button(f"{label} ({expected})", icon=":material/play_arrow:", type="primary"):
            return False
    for request in missing:
        ask(request)
    _asked.get(set()).update(missing)
    if all(scheduler().wait(request, WAIT_S / len(missing)) for request in missing):
        return True
    with place.container():
        st.fragment(_progress, run_every=POLL_S)(missing, draw)
    return False


def _progress(requests: list[Request], draw: Draw | None) -> None:
    """Of the first that is not done, with what is known of it; the page is drawn again when all are."""
    waiting = list(filter(_waits, requests))
    view = scheduler().view(waiting[0]) if waiting else None
    if view is None:
        st.rerun()
        return
    more = f" ({len(waiting)} to go)" if len(waiting) > 1 else ""
    where = f"Waiting for other computations: number {view.place} in line" if view.place else view.text
    st.progress(view.share, (where or "Starting …") + more)
    light = all(scheduler().cost(request).light for request in requests)
    if not light and st.button("Cancel", icon=":material/close:"):
        for request in requests:
            scheduler().leave(_client(), request)
        st.rerun()
    if draw and view.so_far is not None and len(view.so_far):  # a table has no truth value
        draw(view.so_far)


def _waits(request: Request) -> bool:
    return scheduler().waits(request, _client())


def _client() -> str:
    """This session's name."""
    context = get_script_run_ctx()
    return context.session_id if context else ""
