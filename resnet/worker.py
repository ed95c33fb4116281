"""The process that trains one run: takes its lock, goes on from its checkpoint, records to the end or a request."""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from safetensors import safe_open
from safetensors.torch import save

from resnet.data import DataError, Dataset, load, load_offered
from resnet.model import ResNet, build, weight_layers
from resnet.runs import Run, RunError, Status, replace_file, threads_for
from resnet.trainer import (
    DivergedError,
    EpochRecord,
    Recipe,
    RecipeError,
    State,
    StepRecord,
    devices,
    fit,
    steps_per_epoch,
)

CHECKPOINT_EVERY_S = 20
LOCK_PATIENCE_S = 10  # outlasts the instants for which readers hold the lock
log = logging.getLogger(__name__)


def load_data(run: Run) -> Dataset:
    """The run's data set at its net's image size. DataError with a sentence."""
    job = run.job
    read = load_offered if job.only_offered else load
    return read(job.data, size=job.net.image_size, train=job.train_images)


def load_model(run: Run) -> ResNet:
    """The run's net with the weights of its checkpoint, on the CPU. RunError where it has none yet."""
    path = run.path / "checkpoint.safetensors"
    if run.checkpoint_step() is None:
        raise RunError(f"{run.id} has no checkpoint yet. The first one comes within {CHECKPOINT_EVERY_S} seconds.")
    model = build(run.job.net)
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 (not a dict)
        weights = {name.removeprefix("model."): file.get_tensor(name) for name in names}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise RunError(f"The checkpoint of {run.id} holds the weights of another net.") from None
    return model


def work(path: Path) -> Status:
    """Train the run in `path` to its end, a request, or an error that the status then tells."""
    run = Run(path)
    _check_there(run)  # for taking the lock would make the folder
    try:
        with run.lock().acquire(timeout=LOCK_PATIENCE_S):
            _check_there(run)  # it may have been deleted in the meantime
            return _work(run)
    except Timeout:
        raise RunError(f"{run.id} is being trained by another process.") from None


def _check_there(run: Run) -> None:
    if not (run.path / "run.json").is_file():
        raise RunError(f"There is no run in {run.path}.")


def _work(run: Run) -> Status:
    status = Status("running", phase="loading data")
    try:
        for part in run.path.glob(".checkpoint.*.part"):
            part.unlink(missing_ok=True)  # left by a kill
        status = _train(run, status)
    except (DataError, RecipeError, DivergedError, RunError) as error:
        status = _failed(run, str(error))
    except (torch.OutOfMemoryError, MemoryError):
        status = _failed(run, "The device ran out of memory. Try a smaller batch or a smaller net.")
    except OSError as error:
        status = _failed(run, f"A file could not be written or read: {error.strerror or error}.")
    except Exception as error:
        log.exception("Training failed")
        status = _failed(
            run, f"The training stopped with an error ({type(error).__name__}); worker.log has the details."
        )
    run.write_status(status)
    return status


def _failed(run: Run, message: str) -> Status:
    return dataclasses.replace(run.status(), state="failed", message=message, phase="")


def _train(run: Run, status: Status) -> Status:
    job, recipe = run.job, Recipe(**run.job.recipe)
    device = devices()[0] if job.device == "auto" else job.device
    if device not in devices():
        raise RunError(f"This machine has no device {device!r}. It has {', '.join(devices())}.")
    if job.threads > 0:
        torch.set_num_threads(min(job.threads, threads_for(1)))
    run.write_status(status)
    data = load_data(run)
    _check_data(run, data)
    model = build(job.net, recipe.seed, device)
    _note_info(run, data, list(weight_layers(model)))
    state = State(model, recipe)
    if (step := run.checkpoint_step()) is not None:
        with safe_open(run.path / "checkpoint.safetensors", "pt", device) as file:
            state.load({name: file.get_tensor(name) for name in file.keys()}, step)  # noqa: SIM118
    steps = recipe.epochs * steps_per_epoch(len(data.train_labels), recipe.batch)
    status = dataclasses.replace(status, steps=steps, device=device, phase="training")
    run.write_status(status)
    return _record(run, state, fit(state, data, recipe), status)


def _check_data(run: Run, data: Dataset) -> None:
    """RunError where the run's net cannot read the data, or where they are not those that it began with."""
    net, images = run.job.net, len(data.train_labels)
    if (data.channels, data.classes) != (net.in_channels, net.classes):
        raise RunError(
            f"The net reads {net.in_channels} channels and tells {net.classes} classes apart; "
            f"{data.name} has {data.channels} channels and {data.classes} classes."
        )
    if len(run.steps()) and (before := run.info.get("train_images", images)) != images:
        raise RunError(
            f"This run began with {before} training images of {data.name}, and now there are {images}. Start a new run."
        )


def _note_info(run: Run, data: Dataset, layers: list[str]) -> None:
    info = {
        "layers": layers,
        "class_names": data.class_names,
        "source": data.source,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "train_images": len(data.train_labels),
        "test_images": len(data.test_labels),
        "torch": torch.__version__,
    }
    replace_file(run.path / "info.json", json.dumps(info))


def _record(run: Run, state: State, records: Iterator[StepRecord | EpochRecord | None], status: Status) -> Status:
    """Append what `fit` yields until it ends or a request comes.

    Steps recorded after the checkpoint by a worker that was killed are run again but not written again: the
    training is deterministic, so nothing recorded is lost or doubled.
    """
    kind, (recorded, tested) = run.record_type(), _cut_torn(run)
    saved, ended = time.monotonic(), "finished"
    with open(run.path / "steps.bin", "ab") as steps, open(run.path / "epochs.jsonl", "ab") as epochs:
        for record in records:
            if isinstance(record, StepRecord) and record.step > recorded:
                steps.write(np.array([tuple(vars(record).values())], kind).tobytes())
                steps.flush()
            elif isinstance(record, EpochRecord) and record.epoch > tested:
                epochs.write(json.dumps(vars(record)).encode() + b"\n")
                epochs.flush()
            if status.phase != (phase := "training" if record else "testing"):
                run.write_status(status := dataclasses.replace(status, phase=phase))
            if time.monotonic() - saved > CHECKPOINT_EVERY_S or isinstance(record, EpochRecord):
                save_checkpoint(run, state)
                saved = time.monotonic()
            if (wish := run.requested()) is not None:
                ended = wish
                break
    save_checkpoint(run, state)
    return dataclasses.replace(status, state=ended, phase="")


def _cut_torn(run: Run) -> tuple[int, int]:
    """Cut off records that a kill or a full disk tore; the last step and the last epoch of those that are left."""
    steps, tests = run.steps(), run.path / "epochs.jsonl"
    _cut(run.path / "steps.bin", steps.nbytes)
    _cut(tests, (tests.read_bytes() if tests.exists() else b"").rfind(b"\n") + 1)
    return int(steps["step"].max(initial=0)), max(run.epochs().epoch, default=0)


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def save_checkpoint(run: Run, state: State) -> None:
    """Replace the checkpoint by the state at its step; DivergedError, and the old one stays, where it is not finite."""
    tensors = state.tensors()
    if not all(value.isfinite().all() for value in tensors.values()):
        raise DivergedError(f"The weights are no longer finite at step {state.step}. Try a lower learning rate.")
    replace_file(run.path / "checkpoint.safetensors", save(tensors, {"step": str(state.step)}))
