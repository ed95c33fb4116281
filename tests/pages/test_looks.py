"""Looks at runs, which all sessions share for a second: nobody sees as it was what a button has just changed."""

from collections import Counter

import pytest
from streamlit.testing.v1 import AppTest

from pages.ui import cached, live
from resnet.files import ROOT
from resnet.nets.spec import plain_twin
from resnet.runs import store as runs
from resnet.runs.jobs import Status
from resnet.runs.store import Run
from tests.support.tiny import TINY, job

pytestmark = pytest.mark.usefixtures("tiny_data")


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two paused runs without records, and looks that are kept until a button changes something."""
    monkeypatch.setattr(cached, "_forget_looks", lambda: None)
    made = runs.create_race(job(), [TINY, plain_twin(TINY)])
    for run in made:
        run.write_status(Status("paused"))
    return made


def open_train() -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "ui" / "main.py"), default_timeout=120).run()
    return fine(app.switch_page("../training/train.py").run())


def fine(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].value
    return app


def states(app: AppTest) -> list[str]:
    return [text.value.split("-badge[")[1].rstrip("]") for text in app.markdown if "-badge[" in text.value]


def test_each_refresh_looks_anew() -> None:
    assert 0.5 < cached.LOOK_S < live.REFRESH_S


def test_a_redraw_asks_each_run_once(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, status = Counter[str](), Run.status

    def counted(run: Run) -> Status:
        asked[run.id] += 1
        return status(run)

    monkeypatch.setattr(Run, "status", counted)
    assert states(open_train()) == ["paused"] * 2
    assert asked == dict.fromkeys([run.id for run in pair], 1)


def test_who_resumes_sees_the_runs_start(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "start", lambda *found: [run.write_status(Status("starting")) for run in found])
    app = open_train()
    app.button(key="live.resume").click().run()
    assert states(fine(app)) == ["starting"] * 2


@pytest.mark.parametrize(("what", "doing"), [("pause", "Pausing"), ("stop", "Stopping")])
def test_a_request_is_written_for_runs_that_go_on_and_told(what: str, doing: str, pair: list[Run]) -> None:
    pair[0].write_status(Status("running", phase="training", steps=48, device="cpu"))
    with pair[0].lock():
        app = open_train()
        app.button(key=f"live.{what}").click().run()
    assert [toast.value for toast in fine(app).toast] == [f"{doing} after this step."]
    assert [run.requested() is not None for run in pair] == [True, False]
