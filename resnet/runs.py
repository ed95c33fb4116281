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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from resnet.codes import from_dict, to_dict
from resnet.spec import NetSpec

STATES = ("starting", "running", "paused", "stopped", "finished", "failed", "crashed")
ACTIVE = ("starting", "running")
START_LIMIT_S = 120  # a worker that has not taken its lock by then never will
TEST_COLUMNS = {"epoch": int, "step": int, "test_loss": float, "test_accuracy": float}
_children: dict[tuple[Path, float], subprocess.Popen] = {}  # by run and the time of the status it was started with


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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind: Any = dict if field.name == "recipe" else field.type
            if not isinstance(getattr(self, field.name), kind):
                name = getattr(kind, "__name__", kind)
                raise RunError(f"A run's {field.name} must be {name}. Received {getattr(self, field.name)!r}.")

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

    @staticmethod
    def from_json(text: str) -> "Status":
        """ValueError or TypeError where the text is no status."""
        status = Status(**json.loads(text))
        words = (status.state, status.message, status.phase, status.device)
        if not all(isinstance(word, str) for word in words) or status.state not in STATES:
            raise ValueError("A status has a state that this program knows, and its words are text.")
        return dataclasses.replace(status, steps=max(0, int(status.steps)), updated=float(status.updated))


def replace_file(path: Path, content: str | bytes) -> None:
    """Write so that a reader sees the old or the new content, never a part."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        _replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _replace(part: Path, path: Path, patience_s: float = 2) -> None:
    """os.replace; Windows refuses it as long as somebody reads the old file."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return os.replace(part, path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
        time.sleep(0.02)


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
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(f"{self.id} cannot be read as a run. {error}") from None

    @property
    def info(self) -> dict[str, Any]:
        """layers, class_names, source, mean, std, train_images, test_images, torch; {} before the data are read."""
        try:
            info = json.loads((self.path / "info.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return info if isinstance(info, dict) else {}

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
        status, gone = self._written_status(), _bury()
        if status.state not in ACTIVE or self.alive():
            return status
        status = self._written_status()  # the worker may have ended well between the two looks
        waiting = status.state == "starting" and abs(time.time() - status.updated) < START_LIMIT_S
        if status.state not in ACTIVE or (waiting and (self.path, status.updated) not in gone):
            return status
        message = "The training process ended without a word (killed, or out of memory)."
        if status.state == "starting":
            message = "The training process did not come up; worker.log in the run's folder may say why."
        return dataclasses.replace(status, state="crashed", message=f"{message} Resume goes on from its records.")

    def _written_status(self) -> Status:
        try:
            return Status.from_json((self.path / "status.json").read_text())
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            return Status("failed", "Its status file is missing or damaged; what was recorded can still be read.")

    def write_status(self, status: Status) -> Status:
        """The status as written, with its time."""
        status = dataclasses.replace(status, updated=time.time())
        replace_file(self.path / "status.json", json.dumps(dataclasses.asdict(status)))
        return status

    @property
    def layers(self) -> list[str]:
        """Names of the weight layers whose gradient norms are recorded."""
        layers = self.info.get("layers")
        return [str(name) for name in layers] if isinstance(layers, list) else []

    def record_type(self) -> np.dtype:
        columns = [(name, "<f4") for name in ("loss", "accuracy", "lr", "seconds")]
        return np.dtype([("step", "<i4"), *columns, ("norms", "<f4", (len(self.layers),))])

    def steps(self) -> np.ndarray:
        """All whole step records, a structured array in step order: step, loss, accuracy, lr, seconds, norms."""
        kind, path = self.record_type(), self.path / "steps.bin"
        if not kind["norms"].shape[0]:
            return np.empty(0, kind)  # without info.json nobody knows a record's size
        try:
            return np.fromfile(path, kind, path.stat().st_size // kind.itemsize)
        except OSError:
            return np.empty(0, kind)

    def epochs(self) -> pd.DataFrame:
        """One row per tested epoch: epoch, step, test_loss, test_accuracy."""
        try:
            lines = (self.path / "epochs.jsonl").read_bytes().splitlines()
        except OSError:
            lines = []
        rows = [row for line in lines if (row := _test_row(line))]
        return pd.DataFrame(rows, columns=list(TEST_COLUMNS)).astype(TEST_COLUMNS)

    def to_csv(self) -> str:
        """Every step, with the test figures on the step that they were taken at and a column per layer's norm."""
        records = self.steps()
        names = [name for name in records.dtype.names or () if name != "norms"]
        frame = pd.DataFrame({name: records[name] for name in names})
        norms = pd.DataFrame(records["norms"], columns=[f"grad_norm {name}" for name in self.layers])
        frame = frame.join(norms).merge(self.epochs(), on="step", how="left")
        return frame.to_csv(index=False)

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
            raise RunError(f"A run can be asked to pause or stop. Received {what!r}.")
        replace_file(self.path / "request", what)

    def requested(self) -> str | None:
        """The state that a request asks for, None without one or for one in other words."""
        try:
            return {b"pause": "paused", b"stop": "stopped"}.get((self.path / "request").read_bytes())
        except OSError:
            return None

    def delete(self, patience_s: float = 20) -> None:
        """Stop the worker if there is one and remove the folder for good."""
        if self.alive():
            self.request("stop")
        try:
            with self.lock().acquire(timeout=patience_s):
                (self.path / "run.json").unlink(missing_ok=True)  # a worker that is coming up then finds no run
        except Timeout:
            raise RunError(f"{self.id} is still busy. Try again when it has stopped.") from None
        shutil.rmtree(self.path, ignore_errors=True)


def _test_row(line: bytes) -> dict[str, float] | None:
    """A line of epochs.jsonl, None where a kill or a full disk tore it."""
    try:
        row = json.loads(line)
        return {name: kind(row[name]) for name, kind in TEST_COLUMNS.items()}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _bury() -> set[tuple[Path, float]]:
    """The workers of this process that have ended; asking for their exit status leaves no zombie."""
    return {key for key, child in list(_children.items()) if child.poll() is not None}


def threads_for(workers: int) -> int:
    """CPU threads for each of several workers that share the cores; half the threads each beats taking turns 1.16x."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def create(job: Job) -> Run:
    """A new run's folder, not yet started. RunError for a net that reads no images."""
    if job.net.frames:
        rule = "The data sets here are images, and this net reads clips or volumes."
        raise RunError(f"{rule} Received {job.net.frames} frames. Choose a net with 0 frames.")
    name = re.sub(r"[^a-z0-9]+", "-", job.net.name.lower()).strip("-")
    path = runs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{secrets.token_hex(2)}"
    path.mkdir(parents=True)
    run = Run(path)
    run.write_status(Status("starting"))
    replace_file(path / "run.json", job.to_json())
    return run


def start_race(
    nets: Sequence[NetSpec],
    data: str,
    recipe: dict[str, Any],
    train_images: int | None = None,
    device: str = "auto",
    threads: int = 0,
    only_offered: bool = True,
) -> list[Run]:
    """Create and start a run per net: one group with the same data and recipe that shares the cores equally."""
    group, threads = secrets.token_hex(4), threads or threads_for(len(nets))
    started = [create(Job(net, data, recipe, train_images, device, threads, group, only_offered)) for net in nets]
    for run in started:
        start(run)
    return started


def find(run_id: str) -> Run:
    """The run of that name. RunError for a name that is no run in the runs folder, whatever it holds."""
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,120}", run_id)
    if not named or not (runs_folder() / run_id / "run.json").is_file():
        raise RunError(f"There is no run named {run_id[:60]!r} in the runs folder.")
    run = Run(runs_folder() / run_id)
    run.job  # noqa: B018 (tells what is wrong with it)
    return run


def trained(plain: bool) -> list[Run]:
    """Residual or plain runs that have weights to look at, the newest first."""
    return [run for run in all_runs() if run.job.net.plain == plain and run.checkpoint_step() and run.info]


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
    if run.alive(patience_s=1) or run.status().state == "finished":
        raise RunError(f"{run.id} is {run.status().state}; there is nothing to start.")
    (run.path / "request").unlink(missing_ok=True)
    status = run.write_status(dataclasses.replace(run.status(), state="starting", message=""))
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with open(run.path / "worker.log", "ab") as log:
        _children[run.path, status.updated] = subprocess.Popen(
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
