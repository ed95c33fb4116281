"""The worker's process: what it says, and what becomes of it when work goes wrong."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet.errors import Refused
from resnet.files import ROOT
from resnet.work.contract import Progress
from resnet.work.process import Process
from resnet.work.worker import DONE, FAILED, PROGRESS, REFUSED
from tests.support.tiny import until
from tests.support.work import Misbehaving

linux = pytest.mark.skipif(sys.platform != "linux", reason="on Linux alone")


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.kill()


def last(process: Process, how: str, size: float = 1e6) -> tuple[str, object]:
    *_, answer = process.answers(Misbehaving(how), size)
    return answer.kind, answer.value


def test_it_tells_how_far_it_is_and_then_the_result(process: Process) -> None:
    *said, end = process.answers(Misbehaving("tell"), 1e6)
    assert [(answer.kind, answer.value) for answer in said] == [
        (PROGRESS, Progress(0.25, "first half")), (PROGRESS, Progress(0.75, "second half"))
    ]  # fmt: skip
    assert end.kind == DONE
    assert end.value not in (None, os.getpid())
    assert 0 < end.size < 100
    assert last(process, "tell") == (DONE, end.value), "one process does one request after the other"
    assert last(process, "print") == (DONE, end.value), "what is printed is no answer"


def test_errors_come_back_as_what_they_are(process: Process) -> None:
    kind, error = last(process, "refuse")
    assert kind == REFUSED
    assert str(error) == "A rule. Received something. Choose something else."
    kind, text = last(process, "break")
    assert kind == FAILED
    assert "ZeroDivisionError: nobody expected this" in str(text)


def test_a_process_that_dies_is_told_and_replaced(process: Process) -> None:
    _, before = last(process, "tell")
    kind, error = last(process, "die")
    assert kind == REFUSED
    assert "The process that computed this has ended" in str(error)
    kind, after = last(process, "tell")
    assert kind == DONE
    assert before != after


@linux
def test_nobody_gets_more_memory_than_was_predicted(process: Process) -> None:
    last(process, "take 4000")  # so that PyTorch's code is there
    _, pid = last(process, "tell")
    kind, error = last(process, f"take {10**9}", size=0.1e9)
    assert kind == REFUSED
    assert "more memory than predicted" in str(error)
    assert last(process, f"take {10**9}", size=1.1e9) == (DONE, pytest.approx(2.5e8))
    assert last(process, "tell") == (DONE, pid), "it has survived"
    held = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(held.split()[1]) < 900_000, "memory was not given back"  # kB


def test_killed_work_ends_at_once() -> None:
    process, found = Process(), []
    for answer in process.answers(Misbehaving("hang"), 1e6):
        found.append(answer)
        if len(found) == 2:
            threading.Thread(target=process.kill).start()
    assert found[-1].kind == REFUSED
    assert isinstance(found[-1].value, Refused)


@linux
def test_the_worker_ends_with_whoever_started_it() -> None:
    code = """
import os
from resnet.work.process import Process
from tests.support.tiny import until
from tests.support.work import Misbehaving
process = Process()
*_, answer = process.answers(Misbehaving("tell"), 1e6)
print(answer.value, flush=True)
for number, answer in enumerate(process.answers(Misbehaving("hang"), 1e6)):
    if number == 1:
        os._exit(0)  # in the middle of work, as after a crash
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    until(lambda: not is_there(int(result.stdout)))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # nobody may have asked for its exit status
