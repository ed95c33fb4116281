"""How a page shows heavy work: the button with its price, the place in line, progress, the result, Cancel."""

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from pages.ui import work
from resnet.work.scheduler import Scheduler
from tests.support.pages import fine, press, texts
from tests.support.tiny import until
from tests.support.work import Held, Killable

LONG = Held("long", 3.5e9, 9.2)
BUTTON = "Compute (about 9 s, 3.5 GB)"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """Workers that the test holds back, and pages that do not wait for them."""
    Held.gates.clear()
    Held.runs.clear()
    LONG.__post_init__()
    made = Scheduler(worker=Killable)
    monkeypatch.setattr(work, "scheduler", lambda: made)
    monkeypatch.setattr(work, "WAIT_S", 0.0)
    yield made
    made.close()
    for gate in Held.gates.values():
        gate.set()


def page() -> None:
    import streamlit as st

    from pages.ui import widgets, work
    from resnet.errors import Refused
    from tests.support.work import Held

    names = st.session_state.get("names", ["long"])
    with work.page_run(), widgets.show_errors(Refused):
        requests = [Held(name, 3.5e9, 9.2) if name == "long" else Held(name) for name in names]
        if work.ready(requests, "Compute", lambda table: st.write(table)):
            for request in requests:
                st.write(work.known(request))


def opened(*names: str) -> AppTest:
    app = AppTest.from_function(page, default_timeout=30)
    app.session_state["names"] = list(names)
    return fine(app.run())


def bar(app: AppTest) -> str:
    return " ".join(each.proto.text for each in app.get("progress"))


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_long_work_is_a_button_with_its_price_then_progress_then_the_result(held: Scheduler) -> None:
    app = opened("long")
    assert labels(app) == [BUTTON]
    assert not Held.runs
    press(app, BUTTON)
    until(lambda: bool((view := held.view(LONG)) and view.text))
    fine(app.run())  # whatever else the visitor changes on the page
    assert bar(app) == "at long"
    assert app.dataframe[0].value["so far"].tolist() == ["long"]
    assert labels(app) == ["Cancel"]
    Held.gates["long"].set()
    held.wait(LONG, 20)
    assert "result of long" in texts(fine(app.run()))
    assert Held.runs == ["long"]


def test_cancel_brings_the_button_back(held: Scheduler) -> None:
    app = press(opened("long"), BUTTON)
    until(lambda: bool((view := held.view(LONG)) and view.text))
    press(fine(app.run()), "Cancel")
    assert held.view(LONG) is None
    assert labels(fine(app.run())) == [BUTTON]


def test_short_work_starts_by_itself(held: Scheduler) -> None:
    app = opened("short")
    assert labels(app) == []
    Held.gates["short"].set()
    held.wait(Held("short"), 20)
    assert "result of short" in texts(fine(app.run()))


def test_who_waits_is_told_the_place_in_line(held: Scheduler) -> None:
    held.ask(LONG, "somebody else")
    until(lambda: Held.runs == ["long"])
    held.ask(Held("before", 1e6, 60), "somebody else")
    held.ask(Held("short", 0.9e9), "somebody else")
    assert "number 3 in line" in bar(opened("short"))


def test_several_requests_are_one_button_and_count_down(held: Scheduler) -> None:
    app = press(opened("long", "short"), "Compute (about 10 s, 3.5 GB)")
    assert "(2 to go)" in bar(fine(app.run()))
    Held.gates["long"].set()
    held.wait(LONG, 20)
    assert "to go" not in bar(fine(app.run()))
    Held.gates["short"].set()
    held.wait(Held("short"), 20)
    assert "result of long" in texts(fine(app.run()))
    assert "result of short" in texts(app)


def test_a_page_that_asks_for_something_else_cancels_what_it_asked_for(held: Scheduler) -> None:
    app = press(opened("long"), BUTTON)
    until(lambda: Held.runs == ["long"])
    app.session_state["names"] = ["short"]
    fine(app.run())
    assert held.view(LONG) is None
    assert held.view(Held("short")) is not None


def test_somebody_elses_work_goes_on(held: Scheduler) -> None:
    app = press(opened("long"), BUTTON)
    held.ask(LONG, "somebody else")
    app.session_state["names"] = []
    fine(app.run())
    assert held.view(LONG) is not None


def test_a_refusal_is_a_sentence(held: Scheduler) -> None:
    app = opened("refused")
    Held.gates["refused"].set()
    held.wait(Held("refused"), 20)
    assert [error.value for error in fine(app.run()).error] == ["No refused."]
