"""A run is a folder that one worker process writes and everybody else only reads.

run.json         what is trained: net, data, recipe, group of twins (written once)
status.json      state, message, process (replaced whole)
checkpoint.safetensors   weights, momentum and the step that they belong to (replaced whole)
request          "pause" or "stop", for the worker to take
worker.lock      held by the worker as long as it lives, whatever kills it

and the records, whose files `records` describes.
"""

import dataclasses
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from resnet.devices import cores
from resnet.errors import Refused
from resnet.files import DISK_FULL, FOLDERS, ROOT, replace_file
from resnet.nets.spec import NetSpec
from resnet.runs.jobs import ACTIVE, Job, Status
from resnet.runs.records import Records

START_LIMIT_S = 120  # a worker that has not taken its lock by then never will
SHIPPED = ROOT / "assets" / "runs"  # recorded runs that come with the program
# For glibc, which else gives what a training step frees back to the system, and in the next step gets it anew page by
# page: a tenth of ResNet-18's time on a CPU. And pages of 2 MiB where Linux has them: with 4 KiB, finding them takes a
# twentieth of ResNet-20's. Other C libraries ignore these.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_children: dict[tuple[Path, float], subprocess.Popen] = {}  # by run and the time of the status it was started with


def runs_folder() -> Path:
    """$RESNET_RUNS_DIR, or resnet-explorer/runs in the user's data folder."""
    if named := os.environ.get("RESNET_RUNS_DIR"):
        return Path(named).expanduser()
    return FOLDERS.user_data_path / "runs"


@dataclass(frozen=True)
class Run(Records):
    """One run's folder. Refused where the folder is not one."""

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def job(self) -> Job:
        try:
            return Job.from_json((self.path / "run.json").read_text())
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(f"{self.id} cannot be read as a run. {error}") from None

    @property
    def created(self) -> float:
        """Seconds since 1970, 0 for a run that is being deleted."""
        try:
            return (self.path / "run.json").stat().st_mtime
        except OSError:
            return 0.0

    def lock(self) -> FileLock:
        return FileLock(self.path / "worker.lock", is_singleton=False)

    def alive(self, patience_s: float = 0) -> bool:
        """True while a worker holds the lock; the system lets go of it whatever ends the worker.

        Another reader's look takes the lock for an instant; `patience_s` outlasts it. A lock that may not be
        touched (a read-only folder, another user's run) counts as held, so that the status is believed.
        """
        if not (self.path / "worker.lock").exists():
            return False
        try:
            with self.lock().acquire(timeout=patience_s, poll_interval=0.01):
                return False
        except (Timeout, OSError):
            return True

    def status(self) -> Status:
        """As the worker wrote it, but "crashed" where it says active and no worker lives."""
        _bury()
        status = self._written_status()
        return status if status.state not in ACTIVE or self.alive() else self.status_without_worker()

    def status_without_worker(self) -> Status:
        """As `status`, for one who knows that no worker holds the lock."""
        ended, status = _bury(), self._written_status()  # read anew: the worker may have ended well a moment ago
        if status.state not in ACTIVE or (status.state == "starting" and self._may_come(status, ended)):
            return status
        message = "The training process ended without a word (killed, or out of memory)."
        if status.state == "starting":
            message = "The training process did not come up; worker.log in the run's folder may say why."
        return dataclasses.replace(status, state="crashed", message=f"{message} Resume goes on from its records.")

    def _may_come(self, status: Status, ended: set[tuple[Path, float]]) -> bool:
        """A worker that this process started is asked; for another's the clock has to do, which may be set anew."""
        if (key := (self.path, status.updated)) in _children:
            return key not in ended
        return abs(time.time() - status.updated) < START_LIMIT_S

    def _written_status(self) -> Status:
        try:
            return Status.from_json((self.path / "status.json").read_text())
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            return Status("failed", "Its status file is missing or damaged; what was recorded can still be read.")

    def write_status(self, status: Status) -> Status:
        """The status as written, with its time and host; on a full disk in the place of the old one."""
        status = dataclasses.replace(status, updated=time.time(), host=socket.gethostname())
        path, text = self.path / "status.json", json.dumps(dataclasses.asdict(status))
        try:
            replace_file(path, text)
        except OSError as error:
            if error.errno not in DISK_FULL or not path.exists():
                raise
            with open(path, "r+") as file:  # its block is there already
                file.write(text.ljust(path.stat().st_size))
        return status

    def checkpoint_step(self) -> int | None:
        """The step that the checkpoint belongs to, None where there is none that can be read."""
        try:
            with safe_open(self.path / "checkpoint.safetensors", "pt") as file:
                return int(file.metadata()["step"])
        except (OSError, SafetensorError, TypeError, KeyError, ValueError):
            return None

    def request(self, what: str) -> None:
        """Ask a living worker to "pause" or "stop"; it does so after its current step."""
        if what not in ("pause", "stop"):
            raise Refused(f"A run can be asked to pause or stop. Received {what!r}.")
        replace_file(self.path / "request", what)

    def requested(self) -> str | None:
        """The state that a request asks for, None without one or for one in other words."""
        try:
            return {b"pause": "paused", b"stop": "stopped"}.get((self.path / "request").read_bytes())
        except OSError:
            return None

    @property
    def shipped(self) -> bool:
        """True for a recorded run that came with the program and can only be looked at."""
        return self.path.parent == SHIPPED

    def delete(self, patience_s: float = 20) -> None:
        """Stop the worker if there is one and remove the folder for good."""
        if self.shipped:
            raise Refused(f"{self.id} came with the program and cannot be deleted.")
        if self.alive():
            self.request("stop")
        try:
            with self.lock().acquire(timeout=patience_s):
                (self.path / "run.json").unlink(missing_ok=True)  # a worker that is coming up then finds no run
        except Timeout:
            raise Refused(f"{self.id} is still busy. Try again when it has stopped.") from None
        shutil.rmtree(self.path, ignore_errors=True)


def _bury() -> set[tuple[Path, float]]:
    """The workers of this process that have ended; asking for their exit status leaves no zombie."""
    return {key for key, child in list(_children.items()) if child.poll() is not None}


def create(job: Job) -> Run:
    """A new run's folder, not yet started. Refused for a net that reads no images."""
    if job.net.frames:
        rule = "The data sets here are images, and this net reads clips or volumes."
        raise Refused(rule, f"{job.net.frames} frames", "a net with 0 frames")
    name = re.sub(r"[^a-z0-9]+", "-", job.net.name.lower()).strip("-")
    run = Run(_new_folder(f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"))
    run.write_status(Status("stopped", "It has not been started yet."))
    replace_file(run.path / "run.json", job.to_json())
    return run


def _new_folder(name: str) -> Path:
    """A folder in the runs folder that nobody else has: the name with four random digits."""
    runs_folder().mkdir(parents=True, exist_ok=True)
    while True:
        path = runs_folder() / f"{name}-{secrets.token_hex(2)}"
        with suppress(FileExistsError):  # two of one second may draw the same digits
            path.mkdir()
            return path


def start_race(
    nets: Sequence[NetSpec],
    data: str,
    recipe: dict[str, Any],
    train_images: int | None = None,
    device: str = "auto",
    threads: int = 0,
    only_offered: bool = True,
    stream: bool = False,
) -> list[Run]:
    """Create and start a run per net: one group with the same data and recipe that shares the cores equally."""
    group, threads = secrets.token_hex(4), threads or cores(len(nets))
    job = Job(nets[0], data, recipe, train_images, device, threads, group, only_offered, stream)
    started = [create(dataclasses.replace(job, net=net)) for net in nets]
    start(*started)
    return started


def find(run_id: str) -> Run:
    """The run of that name. Refused for a name that is no run in the runs folder, whatever it holds."""
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,120}", run_id)
    for folder in (runs_folder(), SHIPPED) if named else ():
        if (folder / run_id / "run.json").is_file():
            run = Run(folder / run_id)
            run.job  # noqa: B018 (tells what is wrong with it)
            return run
    raise Refused(f"There is no run named {run_id[:60]!r} in the runs folder.")


def trained(plain: bool) -> list[Run]:
    """Residual or plain runs that have weights to look at, the newest first, then the recorded ones."""
    return [
        run for run in [*all_runs(), *shipped()] if run.job.net.plain == plain and run.checkpoint_step() and run.info
    ]


def all_runs() -> list[Run]:
    """Every readable run of the runs folder, the newest first."""
    return sorted(_runs_in(runs_folder()), key=lambda run: run.created, reverse=True)


def shipped() -> list[Run]:
    """The recorded runs that come with the program, by name."""
    return sorted(_runs_in(SHIPPED), key=lambda run: run.id)


def _runs_in(folder: Path) -> list[Run]:
    found = [Run(path.parent) for path in folder.glob("*/run.json")] if folder.is_dir() else []
    return [run for run in found if _readable(run)]


def _readable(run: Run) -> bool:
    try:
        return bool(run.job)
    except Refused:
        return False


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
        _children[run.path, status.updated] = subprocess.Popen(
            [sys.executable, "-m", "resnet", "work", str(run.path.resolve())],
            cwd=ROOT,
            env=KEEP_MEMORY | dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **detached,
        )


def next_ticket() -> int:
    """1, 2, 3, ... for all programs on the runs folder; no clock can turn the order round."""
    folder = runs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".ticket.lock"):
        try:
            last = int((folder / ".ticket").read_text())
        except (OSError, ValueError):
            last = max((run.status().ticket for run in all_runs()), default=0)
        replace_file(folder / ".ticket", str(last + 1))
    return last + 1


def jobs_per_device() -> int:
    """How many races or single runs may train at once on a device: $RESNET_JOBS, or 1."""
    named = os.environ.get("RESNET_JOBS", "")
    return max(1, int(named)) if named.isdecimal() else 1


def place_in_line(run: Run, device: str) -> int:
    """0 when it is the run's turn on this machine's `device`, 1 when it is the next, and so on."""
    own, host = run.status().ticket, socket.gethostname()
    ahead = set()
    for other in all_runs() if own else []:
        status = other.status()
        here = status.host == host and status.device in (device, "")  # "" while it is coming up
        if status.state in ACTIVE and here and status.ticket < own:
            ahead.add(status.ticket or other.id)
    return max(0, len(ahead) - jobs_per_device() + 1)


def wait(runs: list[Run], poll_s: float = 0.5) -> Iterator[list[Status]]:
    """The statuses of runs, again and again until none is active."""
    while True:
        statuses = [run.status() for run in runs]
        yield statuses
        if not any(status.state in ACTIVE for status in statuses):
            return
        time.sleep(poll_s)
