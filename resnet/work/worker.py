"""The process that does the scheduler's work: `python -m resnet.work.worker` reads requests and writes results.

Both ends are this program, so the pickles in the pipes are its own. The process does one request after the other and
ends with its input, which closes when the server ends, however that happens.
"""

import ctypes
import gc
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Queue
from typing import IO, Any

from resnet.errors import Refused
from resnet.work.contract import Progress, Request

PROGRESS, DONE, REFUSED, FAILED = "progress", "done", "refused", "failed"
NICE = 5  # the pages of the server come first
MARGIN = 400_000_000  # bytes beyond the prediction: code that is imported for the first time, stacks of threads


def answers(request: Request) -> Iterator[tuple[str, Any]]:
    """PROGRESS with how far it is, again and again; then DONE with the result, or what went wrong."""
    work = request.run()
    try:
        while True:
            yield PROGRESS, Progress(*next(work))
    except StopIteration as end:
        yield DONE, end.value
    except Refused as error:
        yield REFUSED, error
    except MemoryError:
        yield REFUSED, _too_large()
    except Exception as error:  # noqa: BLE001 - the scheduler hands it on to whoever asked
        kind = (REFUSED, _too_large()) if "can't allocate memory" in str(error) else (FAILED, traceback.format_exc())
        yield kind


def _too_large() -> Refused:
    return Refused("This took more memory than predicted, and was ended.", None, "a smaller batch or net")


@contextmanager
def memory_limit(size: float) -> Iterator[None]:
    """Inside, this process can get no more than so many bytes beyond what it holds; on Linux only."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_held() + round(size) + MARGIN, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int:
    """Bytes of this process's data, as RLIMIT_DATA counts them."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))


def give_back() -> None:
    """Free cycles, and return free memory to the system where the C library can (glibc)."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def listen(requests: IO[bytes], waiting: Queue) -> None:
    """Read requests until the input ends, and then end the process, whatever it is at: nobody waits any more."""
    with suppress(EOFError):
        while True:
            waiting.put(pickle.load(requests))  # noqa: S301 - this program wrote it
    os._exit(0)


def serve(waiting: Queue, results: IO[bytes]) -> None:
    """Write the answers to one request with its bytes after the other."""
    while True:
        request, size = waiting.get()
        with memory_limit(size):
            for kind, value in answers(request):
                # The value is packed by itself, so that the other end knows its size.
                pickle.dump((kind, pickle.dumps(value)), results)
                results.flush()
        value = request = None
        give_back()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no result
    if hasattr(os, "nice"):
        os.nice(NICE)
    requests: Queue = Queue()
    threading.Thread(target=listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    serve(requests, channel)
