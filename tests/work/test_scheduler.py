"""Order, budget, one computation for all, cancelling, forgetting: with workers in this process that tests hold back."""

import time
from collections.abc import Iterator

import pytest

from resnet.errors import Refused
from resnet.work import scheduler as module
from resnet.work.contract import Cost, Progress, Request
from resnet.work.process import Answer
from resnet.work.scheduler import Scheduler, WorkFailed
from tests.support.tiny import until
from tests.support.work import Held, Killable

GB = 1e9


@pytest.fixture
def made() -> Iterator[Scheduler]:
    Held.gates.clear()
    Held.runs.clear()
    scheduler = Scheduler(budget=1 * GB, keep=25, worker=Killable)
    yield scheduler
    scheduler.close()
    for gate in Held.gates.values():
        gate.set()


def running(made: Scheduler, request: Request) -> bool:
    view = made.view(request)
    return view is not None and view.place == 0 and view.text != ""


def finish(made: Scheduler, request: Held) -> None:
    request.gates[request.name].set()
    assert made.wait(request, 20)


def test_all_who_ask_the_same_get_one_computation(made: Scheduler) -> None:
    for client in ("a", "b", "c"):
        made.ask(Held("one"), client)
    finish(made, Held("one"))
    made.ask(Held("one"), "late")
    assert made.result(Held("one")) == "result of one"
    assert Held.runs == ["one"]


def test_work_waits_for_memory_in_order_and_is_told_its_place(made: Scheduler) -> None:
    large, larger, small = Held("large", 0.7 * GB), Held("larger", 0.8 * GB), Held("small", 0.1 * GB)
    for request in (large, larger, small):
        made.ask(request, "a")
        until(lambda: running(made, large))
    views = [made.view(request) for request in (large, larger, small)]
    assert [view and view.place for view in views] == [0, 1, 2], "the small one fits, but is not first"
    assert Held.runs == ["large"]
    finish(made, large)
    until(lambda: running(made, larger) and running(made, small))
    assert made.budget < (0.7 + 0.8 + 0.1) * GB


def test_no_more_work_at_once_than_the_budget(made: Scheduler) -> None:
    with pytest.raises(Refused, match=r"Received 1\.5 GB\. Choose a smaller batch or net: 1 GB at most"):
        made.ask(Held("huge", 1.5 * GB), "a")
    assert made.view(Held("huge", 1.5 * GB)) is None


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """Workers that take nothing by themselves."""
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "_serve", lambda self, slot: None)
        made = Scheduler(budget=1 * GB, worker=Killable)
    yield made
    made.close()


def take(still: Scheduler, slot: int) -> Request | None:
    """What that worker takes now."""
    ticket = still._next(slot)
    if ticket is None:
        return None
    ticket.slot, ticket.progress = slot, Progress(0.5)
    return ticket.request


def test_nothing_passes_by_what_waits_for_memory(still: Scheduler) -> None:
    large, larger, small = Held("large", 0.7 * GB), Held("larger", 0.8 * GB), Held("small", 0.1 * GB)
    for request in (large, larger, small):
        still.ask(request, "a")
    assert [take(still, 1), take(still, 0), take(still, 1)] == [None, large, None]
    still._tickets.pop(large)
    assert [take(still, 1), take(still, 0), take(still, 1)] == [None, larger, small]


def test_nothing_starts_beside_what_measures_time(still: Scheduler) -> None:
    first, timing, later = Held("first"), Held("timing", alone=True), Held("later")
    for request in (first, timing, later):
        still.ask(request, "a")
    assert [take(still, 0), take(still, 1)] == [first, None]
    still._tickets.pop(first)
    assert [take(still, 0), take(still, 1)] == [timing, None]
    still._tickets.pop(timing)
    assert take(still, 0) == later


def test_short_work_does_not_wait_behind_long_work(made: Scheduler) -> None:
    long, longer, short = Held("long", seconds=60), Held("longer", seconds=90), Held("short")
    made.ask(long, "a")
    until(lambda: running(made, long))
    made.ask(longer, "b")
    made.ask(short, "c")
    finish(made, short)
    assert not made.done(long)
    assert (view := made.view(longer)) is not None
    assert view.place == 1


def test_what_measures_time_runs_alone(made: Scheduler) -> None:
    first, timing, later = Held("first"), Held("timing", alone=True), Held("later")
    made.ask(first, "a")
    until(lambda: running(made, first))
    made.ask(timing, "a")
    made.ask(later, "a")
    assert Held.runs == ["first"]
    finish(made, first)
    until(lambda: running(made, timing))
    assert not running(made, later)
    finish(made, timing)
    finish(made, later)


def test_what_nobody_waits_for_is_cancelled(made: Scheduler) -> None:
    long, next_one, shared = Held("long", seconds=60), Held("next", seconds=60), Held("shared", seconds=60)
    made.ask(long, "a")
    until(lambda: running(made, long))
    for client, request in [("a", next_one), ("a", shared), ("b", shared)]:
        made.ask(request, client)
    made.keep("a", [long])
    assert made.view(next_one) is None
    assert made.waits(shared, "b")
    assert not made.waits(shared, "a")
    made.leave("a", long)
    assert made.view(long) is None
    until(lambda: running(made, shared))  # so the first worker is free again
    assert Held.runs == ["long", "shared"]
    assert not made.done(long)


def test_light_work_that_nobody_waits_for_is_finished(made: Scheduler) -> None:
    made.ask(Held("light"), "a")
    until(lambda: running(made, Held("light")))
    made.keep("a")
    finish(made, Held("light"))
    assert made.result(Held("light")) == "result of light"


def test_clients_that_have_gone_wait_for_nothing() -> None:
    Held.gates.clear()
    here = {"a", "b"}
    made = Scheduler(alive=here.__contains__, worker=Killable)
    long = Held("long", seconds=60)
    made.ask(long, "a")
    made.ask(long, "b")
    until(lambda: running(made, long))
    here.remove("a")
    until(lambda: not made.waits(long, "a"))
    assert running(made, long)
    here.remove("b")
    until(lambda: made.view(long) is None)
    made.close()


def test_the_newest_results_are_kept(made: Scheduler) -> None:
    for name in ("one", "two", "three"):  # 10 bytes each, 25 are kept
        made.ask(Held(name), "a")
        finish(made, Held(name))
        if name == "two":
            made.result(Held("one"))  # used later than two
    assert [made.done(Held(name)) for name in ("one", "two", "three")] == [True, False, True]
    made.forget(Held("three"))
    assert not made.done(Held("three"))


def test_errors_reach_whoever_asked_and_are_forgotten(made: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    for request in (Held("refused"), Held("broken")):
        made.ask(request, "a")
        finish(made, request)
    with pytest.raises(Refused, match="No refused"):
        made.result(Held("refused"))
    with pytest.raises(WorkFailed, match="ZeroDivisionError: broken") as failed:
        made.result(Held("broken"))
    assert "in run" in str(failed.value)
    monkeypatch.setattr(module, "ERROR_S", 0.0)
    assert not made.done(Held("refused")), "one can try again"
    made.ask(Held("one"), "a")
    finish(made, Held("one"))
    assert made.done(Held("one"))


def test_a_worker_that_breaks_goes_on_with_the_next(monkeypatch: pytest.MonkeyPatch, made: Scheduler) -> None:
    def broken(*_: object) -> Iterator[Answer]:
        raise OSError("no more processes")

    with monkeypatch.context() as patch:
        patch.setattr(Killable, "answers", broken)
        made.ask(Held("one"), "a")
        assert made.wait(Held("one"), 20)
    with pytest.raises(WorkFailed, match="no more processes"):
        made.result(Held("one"))
    made.ask(Held("two"), "a")
    finish(made, Held("two"))
    assert made.result(Held("two")) == "result of two"


def test_predictions_follow_the_pace_of_the_machine(made: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Held("first", seconds=0.01)
    assert made.expected(first) == made.cost(first) == Cost(1e6, 0.01)
    made.ask(first, "a")
    until(lambda: running(made, first))
    time.sleep(module.PACE_FROM_S)
    finish(made, first)
    assert made.expected(first).seconds > 2 * 0.01, "it took twenty times as long"
    assert made.cost(first).seconds == 0.01


def test_a_closed_scheduler_starts_nothing(made: Scheduler) -> None:
    made.ask(Held("first", seconds=60), "a")
    made.ask(Held("second", seconds=60), "a")
    until(lambda: running(made, Held("first", seconds=60)))
    made.close()
    Held.gates["first"].set()
    assert made.view(Held("second", seconds=60)) is None
    assert Held.runs == ["first"]
