"""A run is a folder that one worker process writes and everybody else only reads.

run.json         what is trained: net, data, recipe, group of twins (written once)
info.json        what the worker learnt when it read the data: layers, class names, source
status.json      state, message, process (replaced whole)
steps.bin        one fixed-size record per step (appended; a torn last one is ignored)
epochs.jsonl     one line per epoch (likewise)
checkpoint.safetensors   weights, momentum and the step that they belong to (replaced whole)
request          "pause" or "stop", for the worker to take
worker.lock      held by the worker as long as it lives, whatever kills it
"""

import dataclasses
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from safetensors import safe_open

from resnet.spec import NetSpec, from_dict, to_dict

STATES = ("starting", "running", "paused", "stopped", "finished", "failed", "crashed")
ACTIVE = ("starting", "running")
START_LIMIT_S = 120  # a worker that has not taken its lock by then never will
_children: dict[Path, subprocess.Popen] = {}


class RunError(ValueError):
    """Something asked of a run that it cannot do, in a sentence for a person."""


def runs_folder() -> Path:
    """$RESNET_RUNS_DIR, or resnet-explorer/runs in the user's data folder."""
    if named := os.environ.get("RESNET_RUNS_DIR"):
        return Path(named).expanduser()
    home = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Application Support"}.get(sys.platform)
    base = home or os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "resnet-explorer" / "runs"


@dataclass(frozen=True)
class Job:
    """What a run trains, and how."""

    net: NetSpec
    data: str
    recipe: dict[str, Any]
    train_images: int | None = None  # a balanced part of the training set, None for all
    device: str = "auto"
    threads: int = 0  # CPU threads, 0 for all
    group: str = ""  # runs of one race share it
    only_offered: bool = True  # the data must be one that the data folder offers

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"net": to_dict(self.net)}, indent=1)

    @staticmethod
    def from_json(text: str) -> "Job":
        values = json.loads(text)
        return Job(**values | {"net": from_dict(values["net"])})


@dataclass(frozen=True)
class Status:
    """state is one of STATES, message a sentence or empty, updated in seconds since 1970."""

    state: str
    message: str = ""
    phase: str = ""  # while running: loading data, training, testing
    steps: int = 0  # in all, once the data are known
    device: str = ""
    updated: float = 0.0


def replace_file(path: Path, content: str | bytes) -> None:
    """Write so that a reader sees the old or the new content, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(part, path)


@dataclass(frozen=True)
class Run:
    """One run's folder. RunError where the folder is not one."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def job(self) -> Job:
        try:
            return Job.from_json((self.path / "run.json").read_text())
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self.id} cannot be read as a run: {error}.") from None

    @property
    def info(self) -> dict[str, Any]:
        """layers, class_names, source, mean, std, train_images, test_images, torch; {} before the data are read."""
        try:
            return json.loads((self.path / "info.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def created(self) -> float:
        return (self.path / "run.json").stat().st_mtime

    def lock(self) -> FileLock:
        return FileLock(self.path / "worker.lock", is_singleton=False)

    def alive(self) -> bool:
        """True while a worker holds the lock; the system lets go of it whatever ends the worker."""
        if not (self.path / "worker.lock").exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    def status(self) -> Status:
        """As the worker wrote it, but "crashed" where it says active and no worker lives."""
        try:
            status = Status(**json.loads((self.path / "status.json").read_text()))
        except (OSError, ValueError, TypeError):
            return Status("failed", "Its status file is missing or damaged; what was recorded can still be read.")
        if status.state not in ACTIVE or self.alive():
            return status
        child = _children.get(self.path)
        waiting = status.state == "starting" and time.time() - status.updated < START_LIMIT_S
        if waiting and (child is None or child.poll() is None):
            return status
        message = (
            "The training process ended without a word (killed, or out of memory). Resume goes on from its records."
        )
        return dataclasses.replace(status, state="crashed", message=message)

    def write_status(self, status: Status) -> None:
        status = dataclasses.replace(status, updated=time.time())
        replace_file(self.path / "status.json", json.dumps(dataclasses.asdict(status)))

    @property
    def layers(self) -> list[str]:
        """Names of the weight layers whose gradient norms are recorded."""
        return self.info.get("layers", [])

    def record_type(self) -> np.dtype:
        columns = [(name, "<f4") for name in ("loss", "accuracy", "lr", "seconds")]
        return np.dtype([("step", "<i4"), *columns, ("norms", "<f4", (len(self.layers),))])

    def steps(self) -> np.ndarray:
        """All whole step records, a structured array in step order: step, loss, accuracy, lr, seconds, norms."""
        kind, path = self.record_type(), self.path / "steps.bin"
        count = path.stat().st_size // kind.itemsize if path.exists() else 0
        return np.memmap(path, kind, "r", shape=(count,)) if count else np.empty(0, kind)

    def epochs(self) -> pd.DataFrame:
        """One row per tested epoch: epoch, step, test_loss, test_accuracy."""
        rows = []
        path = self.path / "epochs.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # torn by a kill
        return pd.DataFrame(rows, columns=["epoch", "step", "test_loss", "test_accuracy"])

    def to_csv(self) -> str:
        """Every step, with the test figures on the step that they were taken at and a column per layer's norm."""
        records = self.steps()
        names = [name for name in records.dtype.names or () if name != "norms"]
        frame = pd.DataFrame({name: records[name] for name in names})
        norms = pd.DataFrame(records["norms"], columns=[f"grad_norm {name}" for name in self.layers])
        frame = frame.join(norms).merge(self.epochs(), on="step", how="left")
        return frame.to_csv(index=False)

    def checkpoint_step(self) -> int | None:
        """The step that the checkpoint belongs to, None where there is none."""
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            return int(file.metadata()["step"])

    def request(self, what: str) -> None:
        """Ask a living worker to "pause" or "stop"; it does so after its current step."""
        if what not in ("pause", "stop"):
            raise RunError(f"A run can be asked to pause or stop. Received {what!r}.")
        replace_file(self.path / "request", what)

    def requested(self) -> str | None:
        """The state that a request asks for, None without one."""
        try:
            return {"pause": "paused"}.get((self.path / "request").read_text(), "stopped")
        except FileNotFoundError:
            return None

    def delete(self, patience_s: float = 20) -> None:
        """Stop the worker if there is one and remove the folder for good."""
        if self.alive():
            self.request("stop")
            try:
                with self.lock().acquire(timeout=patience_s):
                    pass
            except Timeout:
                raise RunError(f"{self.id} is still busy. Try again when it has stopped.") from None
        shutil.rmtree(self.path)


def threads_for(workers: int) -> int:
    """CPU threads for each of several workers that share the cores; half the threads each beats taking turns 1.16x."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def create(job: Job) -> Run:
    """A new run's folder, not yet started."""
    name = re.sub(r"[^a-z0-9]+", "-", job.net.name.lower()).strip("-")
    path = runs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{secrets.token_hex(2)}"
    path.mkdir(parents=True)
    (path / "run.json").write_text(job.to_json())
    run = Run(path)
    run.write_status(Status("starting"))
    return run


def find(run_id: str) -> Run:
    """The run of that name. RunError for a name that is no run in the runs folder, whatever it holds."""
    path = runs_folder() / run_id
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,120}", run_id) or not (path / "run.json").is_file():
        raise RunError(f"There is no run named {run_id[:60]!r} in the runs folder.")
    return Run(path)


def trained(plain: bool) -> list[Run]:
    """Residual or plain runs that have weights to look at, the newest first."""
    return [run for run in all_runs() if run.job.net.plain == plain and run.checkpoint_step()]


def all_runs() -> list[Run]:
    """Every readable run, the newest first."""
    folder = runs_folder()
    found = [Run(path.parent) for path in folder.glob("*/run.json")] if folder.is_dir() else []
    return sorted((run for run in found if _readable(run)), key=lambda run: run.created, reverse=True)


def _readable(run: Run) -> bool:
    try:
        return bool(run.job)
    except RunError:
        return False


def start(run: Run) -> None:
    """Start or resume the run's worker, a process that outlives this one. RunError where one lives or it is done."""
    state = run.status().state
    if run.alive() or state == "finished":
        raise RunError(f"{run.id} is {state}; there is nothing to start.")
    (run.path / "request").unlink(missing_ok=True)
    run.write_status(dataclasses.replace(run.status(), state="starting", message=""))
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with open(run.path / "worker.log", "ab") as log:
        _children[run.path] = subprocess.Popen(
            [sys.executable, "-m", "resnet", "work", str(run.path.resolve())],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **detached,
        )


def wait(runs: list[Run], poll_s: float = 0.5) -> Iterator[list[Status]]:
    """The statuses of runs, again and again until none is active."""
    while True:
        statuses = [run.status() for run in runs]
        yield statuses
        if not any(status.state in ACTIVE for status in statuses):
            return
        time.sleep(poll_s)
