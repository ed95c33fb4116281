"""The app in a process of its own, and visitors who do what browsers do: open pages and keep them up to date."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from pages.ui import navigation
from resnet.files import ROOT

REPORTED = "Something went wrong on this page"  # pages/ui/server.py says it of every unexpected exception
FIRST, *OTHERS = [path.stem for paths in navigation.found().values() for path in paths]
PAGES = ["", *OTHERS]  # as the address names them
START_S = ANSWER_S = 60.0
DONE = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_WITH_COMPILE_ERROR)


@dataclass
class App:
    """A running app: its process, its address, and the file that it logs to."""

    process: psutil.Process
    port: int
    log: Path

    def megabytes(self) -> float:
        """The process's memory (RSS), its children's left out."""
        return self.process.memory_info().rss / 1e6

    def childrens_megabytes(self) -> float:
        sizes = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(child.memory_info().rss)
        return sum(sizes) / 1e6

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_stcore/health", timeout=5).status == 200
        except OSError:
            return False


@contextlib.contextmanager
def app(folder: Path, *options: str, root: Path = ROOT, **environment: str) -> Iterator[App]:
    """`streamlit run app.py` in `root`, with its runs and its log in `folder`, from its first answer on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"RESNET_RUNS_DIR": str(folder / "runs")} | environment
    address = ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1"]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", *address, *options]
    log = folder / "app.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=root, env=os.environ | own, stdout=out, stderr=out)
    try:
        started = App(psutil.Process(process.pid), port, log)
        end = time.monotonic() + START_S
        while not started.answers():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the app did not start: {log.read_text()}")
            time.sleep(0.05)
        yield started
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Visit:
    """A page that was opened: seconds to its first element and to its last, the boxes that it shows, its refreshes."""

    page: str
    begun: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    seconds: float = 0.0
    alerts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # what no page should show; fragments add theirs later
    refreshes: list[float] = field(default_factory=list)  # seconds of each
    received: int = 0  # bytes

    def see(self, element: Element) -> None:
        self.first = self.first or time.perf_counter() - self.begun
        kind = element.WhichOneof("type")
        if kind == "alert":
            self.alerts.append(element.alert.body)
        if kind == "exception":
            self.errors.append(f"{element.exception.type}: {element.exception.message}")
        elif kind == "alert" and REPORTED in element.alert.body:
            self.errors.append(element.alert.body)


class Visitor:
    """One browser tab. What refreshes itself is asked for at its interval until the next page is opened."""

    def __init__(self, connection: websockets.ClientConnection, tasks: asyncio.TaskGroup) -> None:
        self._connection, self._tasks = connection, tasks
        self._timers: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self.visit, self._page_hash, self._refreshed = Visit(""), "", 0.0
        self._begun, self._done = False, asyncio.Event()  # whether the page's run has begun and ended

    async def open(self, page: str, query: str = "") -> Visit:
        """Open /page?query and wait until it is drawn; TimeoutError after a minute."""
        self.visit, self._begun = Visit(page), False
        self._done.clear()
        await self._ask(query_string=query, page_name=page)
        async with asyncio.timeout(ANSWER_S):
            await self._done.wait()
        return self.visit

    async def read(self) -> None:
        """Take what the server sends, until the connection is lost."""
        while True:
            message = await self._connection.recv(decode=False)
            self.visit.received += len(message)
            self._take(ForwardMsg.FromString(message))

    def leave(self) -> None:
        """Stop asking for what refreshes itself."""
        for fragment in list(self._timers):
            self._drop(fragment)

    async def _ask(self, **fields: Any) -> None:
        message = BackMsg()
        for name, value in fields.items():
            setattr(message.rerun_script, name, value)
        await self._connection.send(message.SerializeToString())

    async def _keep(self, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            self._refreshed = time.perf_counter()
            await self._ask(page_script_hash=self._page_hash, fragment_id=fragment, is_auto_rerun=True)

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session" and not message.metadata.run.fragment_ids:
            self.leave()
            self._begun, self._page_hash = True, message.new_session.page_script_hash
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            self.visit.see(message.delta.new_element)
        elif kind == "page_not_found":
            self.visit.errors.append("page not found")
        elif kind == "auto_rerun":
            self._set_timer(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self._drop(fragment)
        elif kind == "script_finished":
            self._finish(message.script_finished)

    def _set_timer(self, fragment: str, interval: float) -> None:
        if fragment not in self._timers or self._timers[fragment][0] != interval:
            self._drop(fragment)
            self._timers[fragment] = interval, self._tasks.create_task(self._keep(fragment, interval))

    def _drop(self, fragment: str) -> None:
        if fragment in self._timers:
            self._timers.pop(fragment)[1].cancel()

    def _finish(self, how: int) -> None:
        """A page that asks for another run of itself is drawn when that one ends."""
        if how == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            self.visit.refreshes.append(time.perf_counter() - self._refreshed)
        if how in DONE and self._begun and not self._done.is_set():
            self.visit.seconds = time.perf_counter() - self.visit.begun
            self._done.set()


@contextlib.asynccontextmanager
async def visitor(visited: App) -> AsyncIterator[Visitor]:
    """Somebody with the app open in a tab. An ExceptionGroup with ConnectionClosed where the server hangs up."""
    address = f"ws://127.0.0.1:{visited.port}/_stcore/stream"
    protocols = [websockets.Subprotocol("streamlit")]
    async with (
        websockets.connect(address, subprotocols=protocols, max_size=None, ping_interval=None) as connection,
        asyncio.TaskGroup() as tasks,
    ):
        somebody = Visitor(connection, tasks)
        reader = tasks.create_task(somebody.read())
        yield somebody
        somebody.leave()
        reader.cancel()
