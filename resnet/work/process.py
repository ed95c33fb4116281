"""One worker's process, as the scheduler sees it: started when it is first used, and again after it has ended."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

from resnet.errors import Refused
from resnet.files import ROOT
from resnet.work.contract import Request
from resnet.work.worker import PROGRESS, REFUSED


class Answer(NamedTuple):
    """One of `worker.answers`, with the size of its value as it came through the pipe."""

    kind: str
    value: Any
    size: int


class Process:
    """Does one request at a time; only `kill` may be called meanwhile, from another thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def answers(self, request: Request, size: float) -> Iterator[Answer]:
        """What the worker says of the request, which may take `size` bytes; REFUSED where its process dies."""
        try:
            requests, results = self._pipes()
            pickle.dump((request, size), requests)
            requests.flush()
            kind = PROGRESS
            while kind == PROGRESS:
                kind, packed = pickle.load(results)  # noqa: S301 - this program wrote it
                yield Answer(kind, pickle.loads(packed), len(packed))  # noqa: S301
        except (EOFError, OSError, pickle.UnpicklingError):
            self.kill()
            rule = "The process that computed this has ended, perhaps because the machine has no memory left."
            yield Answer(REFUSED, Refused(rule, None, "a smaller batch or net, or try again"), 0)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """To the process and from it."""
        if self._process is None or self._process.poll() is not None:
            call = [sys.executable, "-m", "resnet.work.worker"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(call, cwd=ROOT, stdin=pipe, stdout=pipe, start_new_session=True)
        return cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)

    def kill(self) -> None:
        """End the process and those that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        if hasattr(os, "killpg") and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
