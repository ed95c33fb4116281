"""The process that trains one run: takes its lock, goes on from its checkpoint, records to the end or a request."""

import dataclasses
import logging
import os
import threading
import time
from pathlib import Path

import torch
from filelock import Timeout

from resnet.errors import Refused
from resnet.files import DISK_FULL
from resnet.nets.model import weight_layers
from resnet.runs.jobs import ACTIVE, Status, unknown_fields
from resnet.runs.prepare import prepare, take_device
from resnet.runs.queue import Line
from resnet.runs.store import Run
from resnet.runs.weights import load_checkpoint
from resnet.runs.writer import check_same, note_info, record
from resnet.train import distributed
from resnet.train.loop import fit
from resnet.train.state import State

LOCK_PATIENCE_S = 10  # outlasts a start that marks the run, and a look that began before it
STOP_PATIENCE_S = 3  # for a step to end before a stop ends the process
OUT_OF_MEMORY = "The device ran out of memory. Try a smaller batch, smaller images or a smaller net."
log = logging.getLogger(__name__)


def work(path: Path, alone: bool = False) -> Status:
    """Train the run in `path` to its end, a request, or an error that the status then tells.

    `alone`: this process does nothing else, so that a stop may end it in the middle of a long step.
    """
    run = Run(path)
    _check_there(run)  # for taking the lock would make the folder
    try:
        with run.lock().acquire(timeout=LOCK_PATIENCE_S):
            _check_there(run)  # it may have been deleted in the meantime
            return _work(run, alone)
    except Timeout:
        raise Refused(f"{run.id} is being trained by another process.") from None


def _check_there(run: Run) -> None:
    if not (run.path / "run.json").is_file():
        raise Refused(f"There is no run in {run.path}.")


class _Watch(threading.Thread):
    """Looks for a request while the training computes; `wish` is the state asked for, "gone" without a folder."""

    def __init__(self, run: Run, alone: bool) -> None:
        super().__init__(daemon=True, name="watch")
        self.run_folder, self.alone, self.ended = run, alone, threading.Event()

    @property
    def wish(self) -> str | None:
        if not (self.run_folder.path / "run.json").is_file():
            return "gone"
        return self.run_folder.requested()

    def run(self) -> None:
        since: float | None = None
        while self.alone and not self.ended.wait(0.2):
            wish = self.wish
            since = (since or time.monotonic()) if wish in ("stopped", "gone") else None
            if since and time.monotonic() - since > STOP_PATIENCE_S:
                if wish == "stopped":
                    self.run_folder.write_status(dataclasses.replace(self.run_folder.status(), state=wish, phase=""))
                os._exit(0)  # frees all memory; the checkpoint and the records are whole at any moment


def _work(run: Run, alone: bool) -> Status:
    status = dataclasses.replace(run.status(), state="queued", message="", phase="")
    watch = _Watch(run, alone)
    watch.start()
    try:
        for part in run.path.glob(".*.part"):
            part.unlink(missing_ok=True)  # left by a kill
        status = _train(run, watch, status)
    except Refused as error:
        status = _failed(run, str(error))
    except (torch.OutOfMemoryError, MemoryError):
        status = _failed(run, OUT_OF_MEMORY)
    except OSError as error:
        status = _failed(run, _about_files(error))
    except Exception as error:
        log.exception("Training failed")
        words = f"The training stopped with an error ({type(error).__name__}); worker.log has the details."
        memory = "can't allocate memory" in str(error)
        if distributed.size() > 1 and not memory:
            return _left_alone(run)
        status = _failed(run, OUT_OF_MEMORY if memory else words)
    finally:
        watch.ended.set()
    if watch.wish == "gone":
        raise Refused(f"The folder of {run.id} was removed while it trained; its process ends.")
    return run.write_status(status)


def help_with(run: Run) -> str:
    """Train as another of torchrun's processes: the same steps as the first one's `work`, which alone records.

    Gives the state that the run ends in.
    """
    try:
        device = take_device(run.job)
        _, recipe, feed, state = prepare(run, device, "")
        _broadcast(state)
        for _ in fit(state, feed, recipe):
            if (wish := distributed.broadcast_object(lambda: None)) is not None:
                return wish
        return "finished"
    except Refused as error:
        if run.status().state in ACTIVE:  # nobody has told it yet
            run.write_status(_failed(run, f"Process {distributed.rank()} of {distributed.size()}: {error}"))
        raise


def _left_alone(run: Run) -> Status:
    """The status after an error between the processes; one that could tell why it ended has written it."""
    status = run.status()
    if status.state != "failed":
        words = f"One of the {distributed.size()} processes ended (killed, out of memory, or an error in its output)."
        message = f"{words} Resume goes on from the records."
        status = run.write_status(dataclasses.replace(status, state="crashed", message=message, phase=""))
    return status


def _about_files(error: OSError) -> str:
    if error.errno in DISK_FULL:
        return "The disk is full. Make room and press Resume: the run goes on from its last checkpoint."
    return f"A file could not be written or read: {error.strerror or error}."


def _failed(run: Run, message: str) -> Status:
    return dataclasses.replace(run.status(), state="failed", message=message, phase="")


def _train(run: Run, watch: _Watch, status: Status) -> Status:
    if unknown := unknown_fields((run.path / "run.json").read_text()):
        raise Refused("The recipe has fields that this version of the program does not know.", ", ".join(unknown))
    device = take_device(run.job)
    if (wish := _wait_for_turn(run, watch, dataclasses.replace(status, device=device))) is not None:
        return dataclasses.replace(status, state=wish)
    status = dataclasses.replace(status, state="running", phase="loading data", device=device)
    run.write_status(status)
    before = str(run.info().get("precision") or "") if len(run.steps()) else ""
    data, recipe, feed, state = prepare(run, device, before)
    check_same(run, data)
    note_info(run, data, list(weight_layers(state.model)), recipe, device)
    recorded = run.cut_torn()
    load_checkpoint(run, state, recorded, feed.per_epoch)
    _broadcast(state)
    steps, phase = recipe.total_steps(feed.per_epoch), "compiling" if recipe.compile else "training"
    status = run.write_status(dataclasses.replace(status, steps=steps, phase=phase))
    return record(run, lambda: watch.wish, state, fit(state, feed, recipe), recorded, steps / feed.per_epoch, status)


def _broadcast(state: State) -> None:
    """All processes continue as the first one does."""
    state.step = distributed.broadcast_object(lambda: state.step)
    momenta = [buffer for held in state.optimizer.state.values() for buffer in held.values()]
    distributed.broadcast_([*state.model.state_dict().values(), *momenta, *state.average.values()])


def _wait_for_turn(run: Run, watch: _Watch, status: Status) -> str | None:
    """Wait until the device is this run's; the state that was asked for in the meantime."""
    line, processor = Line(run, status.device), "CPU" if status.device == "cpu" else "GPU"
    while (place := line.place()) > 0:
        words = "next" if place == 1 else f"number {place}"
        if (message := f"Waiting for the {processor} ({words} in line).") != status.message:
            status = run.write_status(dataclasses.replace(status, message=message))
        if watch.ended.wait(0.5) or (wish := watch.wish) is not None:
            return wish
    return None
