"""A run is a folder that one worker process writes and everybody else only reads.

run.json         what is trained: net, data, recipe, group of twins (written once)
start.safetensors   weights that the net begins with, where it does not begin with drawn ones (written once)
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
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from resnet.errors import Refused
from resnet.files import DISK_FULL, FOLDERS, ROOT, replace_file
from resnet.nets.spec import NetSpec
from resnet.runs import children
from resnet.runs.jobs import ACTIVE, Job, Status
from resnet.runs.records import Records

START_LIMIT_S = 120  # a worker that has not taken its lock by then never will
START = "start.safetensors"
SHIPPED = ROOT / "assets" / "runs"  # recorded runs that come with the program


def runs_folder() -> Path:
    """$RESNET_RUNS_DIR, or resnet-explorer/runs in the user's data folder."""
    if named := os.environ.get("RESNET_RUNS_DIR"):
        return Path(named).expanduser()
    return FOLDERS.user_data_path / "runs"


@dataclass(frozen=True)
class Run(Records):
    """One run's folder, read anew at each call. Refused where the folder is not one."""

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def job(self) -> Job:
        try:
            return Job.from_json((self.path / "run.json").read_text())
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(f"{self.id} cannot be read as a run. {error}") from None

    def created(self) -> float:
        """Seconds since 1970, 0 for a run that is being deleted."""
        try:
            return (self.path / "run.json").stat().st_mtime
        except OSError:
            return 0.0

    def lock(self) -> FileLock:
        return FileLock(self.path / "worker.lock", is_singleton=False)

    def alive(self) -> bool:
        """True while a worker holds the lock; the system lets go of it whatever ends the worker.

        A lock that may not be touched (a read-only folder, another user's run) counts as held, so that the status is
        believed.
        """
        if not (self.path / "worker.lock").exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def status(self) -> Status:
        """As the worker wrote it, but "crashed" where it says active and no worker lives.

        Testing a free lock means holding it for an instant, so it is not tested while a worker may be about to take it:
        of a run that is starting, the process is asked. One that says queued or running and has no worker gets one only
        by a start, which marks it as starting first.
        """
        ended = children.ended(self.path)  # asked first, for a worker may end well in between
        status = self._written_status()
        if status.state in ("queued", "running"):
            return status if self.alive() else self.status_without_worker()
        return _without_worker(status, ended)

    def status_without_worker(self) -> Status:
        """As `status`, for one who has seen that no worker holds the lock."""
        ended, status = children.ended(self.path), self._written_status()
        return _without_worker(status, ended)

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

    def recorded_steps(self) -> int:
        """The number of whole step records, from the file's size alone."""
        try:
            return (self.path / "steps.bin").stat().st_size // self.record_type().itemsize if self.layers() else 0
        except OSError:
            return 0

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
            raise Refused("A run can be asked to pause or stop.", repr(what))
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

    def look(self) -> "Snapshot":
        """All that a page shows of the run, asked for once."""
        return Snapshot(
            run=self,
            job=self.job,
            status=self.status(),
            info=self.info(),
            layers=self.layers(),
            tests=self.tests(),
            epochs=self.epochs(),
            recorded_steps=self.recorded_steps(),
            checkpoint_step=self.checkpoint_step(),
        )

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


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a run's folder said at one moment; the fields are what the methods of `Run` gave."""

    run: Run
    job: Job
    status: Status
    info: dict[str, Any]
    layers: list[str]
    tests: list[dict[str, Any]]
    epochs: pd.DataFrame
    recorded_steps: int
    checkpoint_step: int | None

    @property
    def active(self) -> bool:
        return self.status.state in ACTIVE


def _without_worker(status: Status, ended: dict[float, bool]) -> Status:
    """ "crashed" where it says active, unless the worker may still come."""
    if status.state not in ACTIVE or (status.state == "starting" and _may_come(status, ended)):
        return status
    message = "The training process ended without an error message (killed, or out of memory)."
    if status.state == "starting":
        message = "The training process did not start; worker.log in the run's folder may say why."
    return dataclasses.replace(status, state="crashed", message=f"{message} Resume goes on from its records.")


def _may_come(status: Status, ended: dict[float, bool]) -> bool:
    """A worker that this process started is asked; for another's the clock has to do, which may be set anew."""
    if (over := ended.get(status.updated)) is not None:
        return not over
    return abs(time.time() - status.updated) < START_LIMIT_S


def create(job: Job, start: Path | None = None) -> Run:
    """A new run's folder, not yet started; `start` is a safetensors file with weights by the net's own names.

    Refused for a net that reads no images.
    """
    if job.net.frames:
        rule = "The data sets here are images, and this net reads clips or volumes."
        raise Refused(rule, f"{job.net.frames} frames", "a net with 0 frames")
    name = re.sub(r"[^a-z0-9]+", "-", job.net.name.lower()).strip("-")
    run = Run(_new_folder(f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"))
    run.write_status(Status("stopped", "It has not been started yet."))
    if start:
        shutil.copyfile(start, run.path / START)
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


def create_race(job: Job, nets: Sequence[NetSpec], start: Path | None = None) -> list[Run]:
    """The job's run for each of the nets instead of its own, not yet started: one group.

    The first one begins with the weights in `start`, as the job says; the others with drawn ones.
    """
    group = secrets.token_hex(4)
    first, *others = (dataclasses.replace(job, net=net, group=group) for net in nets)
    return [create(first, start), *(create(other.alone() if job.start else other) for other in others)]


def race_of(run: Run) -> list[Run]:
    """The runs of the run's race, itself among them: the residual nets first, then the older ones."""
    others = every() if run.job.group else [run]
    same = [other for other in others if other.job.group == run.job.group]
    return sorted(same or [run], key=lambda other: (other.job.net.plain, other.created(), other.id))


def find(run_id: str) -> Run:
    """The run of that name. Refused for a name that is no run in the runs folder, whatever it holds."""
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,120}", run_id)
    for folder in (runs_folder(), SHIPPED) if named else ():
        if (folder / run_id / "run.json").is_file():
            run = Run(folder / run_id)
            run.job  # noqa: B018 (tells what is wrong with it)
            return run
    raise Refused(f"There is no run named {run_id[:60]!r} in the runs folder.")


def trained() -> list[Run]:
    """Those of `every` that have weights to look at."""
    return [run for run in every() if run.checkpoint_step() and run.info()]


def every() -> list[Run]:
    """All runs, the newest first, then the recorded ones."""
    return [*all_runs(), *shipped()]


def all_runs() -> list[Run]:
    """Every readable run of the runs folder, the newest first."""
    return sorted(_runs_in(runs_folder()), key=lambda run: run.created(), reverse=True)


def shipped() -> list[Run]:
    """The recorded runs that come with the program, by name."""
    return sorted(_runs_in(SHIPPED), key=lambda run: run.id)


def recorded_twins() -> list[Run]:
    """Of `shipped` the nets that were trained beside their plain twins, and these."""
    found = shipped()
    plain = {run.job.group for run in found if run.job.net.plain}
    return [run for run in found if run.job.group in plain]


def _runs_in(folder: Path) -> list[Run]:
    found = [Run(path.parent) for path in folder.glob("*/run.json")] if folder.is_dir() else []
    return [run for run in found if _readable(run)]


def _readable(run: Run) -> bool:
    try:
        return bool(run.job)
    except Refused:
        return False
