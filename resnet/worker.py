"""The process that trains one run: takes its lock, goes on from its checkpoint, records to the end or a request."""

import dataclasses
import json
import logging
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
from resnet.runs import Run, RunError, Status, replace_file
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
log = logging.getLogger(__name__)


def load_data(run: Run) -> Dataset:
    """The run's data set at its net's image size. DataError with a sentence."""
    job = run.job
    read = load_offered if job.only_offered else load
    return read(job.data, size=job.net.image_size, train=job.train_images)


def load_model(run: Run) -> ResNet:
    """The run's net with the weights of its checkpoint, on the CPU. RunError where it has none yet."""
    path = run.path / "checkpoint.safetensors"
    if not path.exists():
        raise RunError(f"{run.id} has no checkpoint yet. The first one comes within {CHECKPOINT_EVERY_S} seconds.")
    model = build(run.job.net)
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 (not a dict)
        model.load_state_dict({name.removeprefix("model."): file.get_tensor(name) for name in names})
    return model


def work(path: Path) -> Status:
    """Train the run in `path` to its end, a request, or an error that the status then tells."""
    run = Run(path)
    try:
        with run.lock().acquire(timeout=10):
            return _work(run)
    except Timeout:
        raise RunError(f"{run.id} is being trained by another process.") from None


def _work(run: Run) -> Status:
    status = Status("running", phase="loading data")
    try:
        status = _train(run, status)
    except (DataError, RecipeError, DivergedError, RunError) as error:
        status = _failed(run, str(error))
    except torch.OutOfMemoryError:
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
    if job.threads:
        torch.set_num_threads(job.threads)
    run.write_status(status)
    data = load_data(run)
    if (data.channels, data.classes) != (job.net.in_channels, job.net.classes):
        raise RunError(
            f"The net reads {job.net.in_channels} channels and tells {job.net.classes} classes apart; "
            f"{data.name} has {data.channels} channels and {data.classes} classes."
        )
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
    kind = run.record_type()
    recorded, tested = len(run.steps()), len(run.epochs())
    _cut(run.path / "steps.bin", recorded * kind.itemsize)
    _cut_torn_line(run.path / "epochs.jsonl")
    saved, ended = time.monotonic(), "finished"
    with open(run.path / "steps.bin", "ab", buffering=0) as steps, open(run.path / "epochs.jsonl", "ab", 0) as epochs:
        for record in records:
            if isinstance(record, StepRecord) and record.step > recorded:
                steps.write(np.array([tuple(vars(record).values())], kind).tobytes())
            elif isinstance(record, EpochRecord) and record.epoch > tested:
                epochs.write(json.dumps(vars(record)).encode() + b"\n")
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


def _cut(path: Path, size: int) -> None:
    with open(path, "ab") as file:
        file.truncate(size)


def _cut_torn_line(path: Path) -> None:
    text = path.read_bytes() if path.exists() else b""
    _cut(path, text.rfind(b"\n") + 1)


def save_checkpoint(run: Run, state: State) -> None:
    """Replace the checkpoint by the state at its step."""
    replace_file(run.path / "checkpoint.safetensors", save(state.tensors(), {"step": str(state.step)}))
