"""The one door for heavy work inside the app: admitted within a budget, in order, once for all who ask, cancellable.

Work runs in processes of its own, so that it never holds up a page, gives its memory back and can be ended.
"""

import dataclasses
import math
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Protocol

from resnet.errors import Refused
from resnet.limits import RESULT_BYTES, WORK_BYTES
from resnet.work.contract import Cost, Progress, Request
from resnet.work.process import Answer, Process
from resnet.work.worker import DONE, FAILED, PROGRESS

FINISH_S = 30.0  # light work that nobody waits for may take so long
ERROR_S = 10.0
WATCH_S = 1.0
PACE_FROM_S = 0.2  # shorter work says little of this machine's speed


class WorkFailed(RuntimeError):
    """Work ended with an error that nobody expected; its text is the traceback."""


class Worker(Protocol):
    """`Process`, or what stands in for it."""

    def answers(self, request: Request, size: float) -> Iterator[Answer]: ...

    def kill(self) -> None: ...


class View(NamedTuple):
    """Work that is not done: its place in the line (1 is the next, 0 runs), how far it is (0 to 1), and with what."""

    place: int
    share: float
    text: str
    so_far: Any = None


@dataclasses.dataclass(eq=False)
class _Ticket:
    request: Request
    cost: Cost
    seconds: float  # expected
    clients: set[str]
    slot: int | None = None  # of the worker that does it
    started: float = 0.0
    progress: Progress | None = None

    @property
    def worth_finishing(self) -> bool:
        """Whether it goes on though nobody waits: somebody may ask again, and ending its process takes longer."""
        return self.slot is not None and self.cost.light and time.monotonic() - self.started < FINISH_S


class Scheduler:
    """Does requests for clients; a client is a name, and `alive(client)` says whether it still waits for anything.

    There are two workers. The second one takes light work while the first is busy, so that nobody waits behind a long
    computation for a short one. No work starts that does not fit into `budget` beside what runs, and none is passed by
    because it needs much memory. The newest results are kept, `keep` bytes of them.
    """

    def __init__(
        self,
        budget: float = WORK_BYTES,
        keep: float = RESULT_BYTES,
        alive: Callable[[str], bool] = lambda client: True,
        worker: Callable[[], Worker] = Process,
    ) -> None:
        self.budget, self._keep, self._alive = budget, keep, alive
        self._changed = threading.Condition()
        self._tickets: dict[Request, _Ticket] = {}  # in the order in which they were asked for
        self._results: OrderedDict[Request, tuple[Answer, float]] = OrderedDict()  # and when they came
        self._pace: dict[type, float] = {}  # seconds taken by seconds predicted, by kind of request
        self._closed = False
        self._workers = [worker(), worker()]
        for slot in range(len(self._workers)):
            threading.Thread(target=self._serve, args=(slot,), daemon=True, name=f"worker {slot}").start()
        threading.Thread(target=self._watch, daemon=True, name="scheduler").start()

    def cost(self, request: Request) -> Cost:
        """What the request is predicted to take; Refused where that is more memory than the budget."""
        cost = request.cost()
        if cost.bytes > self.budget:
            needed, choices = f"{cost.bytes / 1e9:,.1f} GB", f"a smaller batch or net: {self.budget / 1e9:g} GB at most"
            raise Refused("This needs more memory than the app may use.", needed, choices)
        return cost

    def expected(self, request: Request) -> Cost:
        """The same, with the seconds at the pace of this machine so far. Refused."""
        cost = self.cost(request)
        return cost._replace(seconds=cost.seconds * self._pace.get(type(request), 1.0))

    def ask(self, request: Request, client: str) -> None:
        """Put the request in line for the client, unless it is there or done. Refused as `cost`."""
        cost = self.cost(request)
        seconds = cost.seconds * self._pace.get(type(request), 1.0)
        with self._changed:
            if request not in self._results:
                self._tickets.setdefault(request, _Ticket(request, cost, seconds, set())).clients.add(client)
                self._changed.notify_all()

    def done(self, request: Request) -> bool:
        """Whether `result` has something to give; errors are forgotten after a while, so that one can try again."""
        with self._changed:
            answer, came = self._results.get(request, (None, 0.0))
            if answer and answer.kind != DONE and time.monotonic() - came > ERROR_S:
                del self._results[request]
            return request in self._results

    def result(self, request: Request) -> Any:
        """The result; raises Refused or WorkFailed where that is how it ended."""
        with self._changed:
            if request not in self._results:
                raise Refused("This result has made room for others.", None, "it again")
            answer, _ = self._results[request]
            self._results.move_to_end(request)
        if isinstance(answer.value, Refused):
            raise answer.value
        if answer.kind == FAILED:
            raise WorkFailed(answer.value)
        return answer.value

    def wait(self, request: Request, seconds: float) -> bool:
        """Wait until it is done, so many seconds at most; whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: request not in self._tickets, seconds)
        return self.done(request)

    def waits(self, request: Request, client: str) -> bool:
        """Whether the client waits for it."""
        ticket = self._tickets.get(request)
        return ticket is not None and client in ticket.clients

    def view(self, request: Request) -> View | None:
        """How far it is; None where it is done or cancelled."""
        with self._changed:
            ticket = self._tickets.get(request)
            if ticket is None:
                return None
            if ticket.slot is None:
                return View(self._waiting().index(ticket) + 1, 0.0, "")
        progress = ticket.progress or Progress(0.0)
        passed = (time.monotonic() - ticket.started) / max(ticket.seconds, 0.1)
        return View(0, max(progress.share, min(0.95, passed)), progress.text, progress.so_far)

    def keep(self, client: str, requests: Collection[Request] = ()) -> None:
        """The client waits for these alone from now on; what nobody waits for is cancelled."""
        with self._changed:
            for request, ticket in self._tickets.items():
                if request not in requests:
                    ticket.clients.discard(client)
            self._cancel()

    def leave(self, client: str, request: Request) -> None:
        """The client no longer waits for it."""
        with self._changed:
            if request in self._tickets:
                self._tickets[request].clients.discard(client)
            self._cancel()

    def forget(self, request: Request) -> None:
        """Drop its result, so that it is computed anew when it is next asked for."""
        with self._changed:
            self._results.pop(request, None)

    def close(self) -> None:
        """End all work and the processes that do it."""
        with self._changed:
            self._closed = True
            self._tickets.clear()
            self._changed.notify_all()
        for worker in self._workers:
            worker.kill()

    def _waiting(self) -> list[_Ticket]:
        return [ticket for ticket in self._tickets.values() if ticket.slot is None]

    def _running(self) -> list[_Ticket]:
        return [ticket for ticket in self._tickets.values() if ticket.slot is not None]

    def _next(self, slot: int) -> _Ticket | None:
        """What that worker starts now: the first in line that it may take, if that fits beside what runs."""
        running = self._running()
        first_can_soon = all(ticket.slot or ticket.progress is None for ticket in running)  # free, or starting
        if (slot and first_can_soon) or any(ticket.request.alone for ticket in running):
            return None
        for ticket in self._waiting():
            if slot and not ticket.cost.light:
                continue  # it waits for the first worker
            held = sum(other.cost.bytes for other in running)
            fits = held + ticket.cost.bytes <= self.budget and not (ticket.request.alone and running)
            return ticket if fits else None
        return None

    def _serve(self, slot: int) -> None:
        """A worker's thread: take a ticket, do it, note the result."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next(slot))
                if self._closed or (ticket := self._next(slot)) is None:
                    return
                ticket.slot, ticket.started = slot, time.monotonic()
                self._changed.notify_all()
            answer = self._do(ticket, self._workers[slot])
            with self._changed:
                if self._tickets.get(ticket.request) is ticket:
                    del self._tickets[ticket.request]
                    self._note(ticket, answer)
                self._changed.notify_all()

    def _do(self, ticket: _Ticket, worker: Worker) -> Answer:
        """The last answer; whatever goes wrong, for the worker's thread has to go on."""
        answer = Answer(FAILED, "The worker gave no answer.", 0)
        try:
            for answer in worker.answers(ticket.request, ticket.cost.bytes):
                if answer.kind == PROGRESS:
                    if ticket.progress is None:  # a new process takes a while to start
                        ticket.started = time.monotonic()
                    ticket.progress = answer.value
        except Exception:  # noqa: BLE001
            worker.kill()
            answer = Answer(FAILED, traceback.format_exc(), 0)
        return answer

    def _note(self, ticket: _Ticket, answer: Answer) -> None:
        """Keep the result, drop the oldest ones, learn this machine's pace."""
        self._results[ticket.request] = answer, time.monotonic()
        while len(self._results) > 1 and sum(kept.size for kept, _ in self._results.values()) > self._keep:
            self._results.popitem(last=False)
        taken, predicted = time.monotonic() - ticket.started, ticket.cost.seconds
        if taken > PACE_FROM_S and answer.kind == DONE and not ticket.request.alone:
            kind = type(ticket.request)
            self._pace[kind] = math.sqrt(self._pace.get(kind, 1.0) * taken / predicted)

    def _cancel(self) -> None:
        """Cancel what nobody waits for."""
        for ticket in list(self._tickets.values()):
            if not ticket.clients and not ticket.worth_finishing:
                del self._tickets[ticket.request]
                if ticket.slot is not None:
                    self._workers[ticket.slot].kill()
        self._changed.notify_all()

    def _watch(self) -> None:
        """Notice clients that have gone."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._closed, WATCH_S):
                for ticket in self._tickets.values():
                    ticket.clients = set(filter(self._alive, ticket.clients))
                self._cancel()
