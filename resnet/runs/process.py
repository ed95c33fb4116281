"""Workers as processes: started, waited for."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from resnet.devices import cores
from resnet.errors import Refused
from resnet.files import ROOT
from resnet.nets.spec import NetSpec
from resnet.runs import children
from resnet.runs.jobs import ACTIVE, Job, Status
from resnet.runs.queue import next_ticket
from resnet.runs.store import Run, create_race

# For glibc, which else gives what a training step frees back to the system, and in the next step gets it anew page by
# page: a tenth of ResNet-18's time on a CPU. And pages of 2 MiB where Linux has them: with 4 KiB, finding them takes a
# twentieth of ResNet-20's. Other C libraries ignore these.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def race(job: Job, nets: Sequence[NetSpec], start_weights: Path | None = None) -> list[Run]:
    """Create and start the job's run for each of the nets, as `create_race`: one group on the same batches.

    They share the cores equally where the job has no number of threads.
    """
    made = create_race(dataclasses.replace(job, threads=job.threads or cores(len(nets))), nets, start_weights)
    start(*made)
    return made


def start(*found: Run) -> None:
    """Start or resume the runs' workers, processes that outlive this one; each race queues as one job.

    Refused where one of them lives, is done, or can only be looked at; then those before it are started.
    """
    tickets: dict[str, int] = {}
    for run in found:
        race = run.job.group or run.id
        tickets[race] = tickets.get(race) or next_ticket()
        _spawn(run, make_ready(run, tickets[race]))


def make_ready(run: Run, ticket: int = 0) -> Status:
    """Mark the run as starting while nobody else can, so that of two who start it one is refused."""
    if run.shipped:
        raise Refused(f"{run.id} came with the program and can only be looked at.")
    try:
        with run.lock().acquire(timeout=1, poll_interval=0.01):
            status = run.status_without_worker()
            if status.state in (*ACTIVE, "finished"):
                raise Refused(f"{run.id} is {status.state}; there is nothing to start.")
            (run.path / "request").unlink(missing_ok=True)
            return run.write_status(dataclasses.replace(status, state="starting", message="", ticket=ticket))
    except Timeout:
        raise Refused(f"{run.id} is {run.status().state}; there is nothing to start.") from None


def _spawn(run: Run, status: Status) -> None:
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with open(run.path / "worker.log", "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "resnet", "work", str(run.path.resolve())],
            cwd=ROOT,
            env=KEEP_MEMORY | dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **detached,
        )
    children.add(run.path, status.updated, worker)


def wait(runs: list[Run], poll_s: float = 0.5) -> Iterator[list[Status]]:
    """The statuses of runs, again and again until none is active."""
    while True:
        statuses = [run.status() for run in runs]
        yield statuses
        if not any(status.state in ACTIVE for status in statuses):
            return
        time.sleep(poll_s)
