"""The process that trains one run: takes its lock, goes on from its checkpoint, records to the end or a request."""

import dataclasses
import io
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from safetensors import safe_open
from safetensors.torch import save

from resnet.data.dataset import Dataset
from resnet.devices import device_name
from resnet.errors import Refused
from resnet.files import DISK_FULL, replace_file, sync_file
from resnet.nets.model import ResNet, build, weight_layers
from resnet.runs.prepare import prepare, take_device
from resnet.runs.records import CONFIDENCE, SAMPLE_SIZE, sample_rows
from resnet.runs.store import ACTIVE, Run, Status, place_in_line
from resnet.train import distributed
from resnet.train.feeds import moments
from resnet.train.loop import DivergedError, EpochRecord, Progress, State, StepRecord, fit
from resnet.train.recipes import Recipe
from resnet.train.streaming import Folder

CHECKPOINT_EVERY_S = 20
LOCK_PATIENCE_S = 10  # outlasts the instants for which readers hold the lock
STOP_PATIENCE_S = 3  # for a step to end before a stop ends the process
OUT_OF_MEMORY = "The device ran out of memory. Try a smaller batch, smaller images or a smaller net."
log = logging.getLogger(__name__)


def load_model(run: Run, epoch: int | None = None) -> ResNet:
    """The run's net on the CPU with the weights that were tested: the last ones, or those kept after an epoch.

    Refused where it has none yet.
    """
    path = run.path / "checkpoint.safetensors" if epoch is None else run.checkpoints().get(epoch)
    if path is None or (epoch is None and run.checkpoint_step() is None):
        raise Refused(f"{run.id} has no checkpoint yet. The first one comes within {CHECKPOINT_EVERY_S} seconds.")
    model = build(run.job.net)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    try:
        model.load_state_dict(weights_of(tensors) if epoch is None else tensors)
    except RuntimeError:
        raise Refused(f"The checkpoint of {run.id} holds the weights of another net.") from None
    return model


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
        _, recipe, feed, state = prepare(run.job, device, "")
        _spread(state)
        for _ in fit(state, feed, recipe):
            if (wish := distributed.agreed(lambda: None)) is not None:
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
    device = take_device(run.job)
    if (wish := _wait_for_turn(run, watch, dataclasses.replace(status, device=device))) is not None:
        return dataclasses.replace(status, state=wish)
    status = dataclasses.replace(status, state="running", phase="loading data", device=device)
    run.write_status(status)
    before = str(run.info.get("precision") or "") if len(run.steps()) else ""
    data, recipe, feed, state = prepare(run.job, device, before)
    _check_same(run, data)
    _note_info(run, data, list(weight_layers(state.model)), recipe, device)
    recorded = run.cut_torn()
    _load_checkpoint(run, state, recorded, feed.per_epoch)
    _spread(state)
    steps, phase = recipe.total_steps(feed.per_epoch), "compiling" if recipe.compile else "training"
    status = run.write_status(dataclasses.replace(status, steps=steps, phase=phase))
    return _record(run, watch, state, fit(state, feed, recipe), recorded, steps / feed.per_epoch, status)


def _spread(state: State) -> None:
    """All processes continue as the first one does."""
    state.step = distributed.agreed(lambda: state.step)
    momenta = [buffer for held in state.optimizer.state.values() for buffer in held.values()]
    distributed.spread([*state.model.state_dict().values(), *momenta, *state.average.values()])


def _wait_for_turn(run: Run, watch: _Watch, status: Status) -> str | None:
    """Wait until the device is this run's; the state that was asked for in the meantime."""
    while (place := place_in_line(run, status.device)) > 0:
        words = "next" if place == 1 else f"number {place}"
        if (message := f"Waits for the {status.device}: {words} in line.") != status.message:
            status = run.write_status(dataclasses.replace(status, message=message))
        if watch.ended.wait(0.5) or (wish := watch.wish) is not None:
            return wish
    return None


def _load_checkpoint(run: Run, state: State, recorded: tuple[int, int], per_epoch: int) -> None:
    """Continue from the checkpoint, or from the beginning where the records before it were lost with a disk."""
    step = run.checkpoint_step()
    if step is None or step > recorded[0] or (step - 1) // per_epoch > recorded[1]:
        return
    device = str(next(state.model.parameters()).device)
    with safe_open(run.path / "checkpoint.safetensors", "pt", device) as file:
        state.load({name: file.get_tensor(name) for name in file.keys()}, step)  # noqa: SIM118


def _check_same(run: Run, data: Dataset | Folder) -> None:
    """Refused where the data are not those that the run began with."""
    images = len(data.train_labels)
    if not len(run.steps()):
        return
    if (before := run.info.get("train_images", images)) != images:
        raise Refused(
            f"This run began with {before} training images of {data.name}, and now there are {images}. Start a new run."
        )
    if run.info.get("fingerprint", data.fingerprint) != data.fingerprint:
        raise Refused(f"This run began with other training images of {data.name}. Start a new run.")


def _note_info(run: Run, data: Dataset | Folder, layers: list[str], recipe: Recipe, device: str) -> None:
    mean, std = moments(data, recipe)
    info = {
        "layers": layers,
        "class_names": data.class_names,
        "source": data.source,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "train_images": len(data.train_labels),
        "test_images": len(data.test_labels),
        "fingerprint": data.fingerprint,
        "precision": recipe.precision,
        "hardware": device_name(device) + (f", {distributed.size()} processes" if distributed.size() > 1 else ""),
        "torch": torch.__version__,
    }
    replace_file(run.path / "info.json", json.dumps(info))
    if not (run.path / "test.npz").exists():
        samples = _some_tests(data).resized(min(SAMPLE_SIZE, data.size))
        packed = io.BytesIO()
        labels = data.test_labels.numpy().astype(np.int32)
        np.savez_compressed(packed, labels=labels, images=samples.test_images.permute(0, 2, 3, 1).numpy())
        replace_file(run.path / "test.npz", packed.getvalue())


def _some_tests(data: Dataset | Folder) -> Dataset:
    """The same with the test images of `sample_rows` only."""
    rows = sample_rows(len(data.test_labels))
    if isinstance(data, Folder):
        return data.sample(rows.tolist())
    return dataclasses.replace(data, train_images=data.train_images[:1], test_images=data.test_images[rows])


def _record(
    run: Run,
    watch: _Watch,
    state: State,
    records: Iterator[Progress],
    before: tuple[int, int],
    epochs: float,
    status: Status,
) -> Status:
    """Append what `fit` yields until it ends or a request comes.

    Steps recorded after the checkpoint by a worker that was killed are run again but not written again: the
    training is deterministic, so nothing recorded is lost or doubled.
    """
    kind, (recorded, tested) = run.record_type(), before
    saved, ended = time.monotonic(), "finished"
    kept = {1, *(math.ceil(epochs * share) for share in (0.25, 0.5, 0.75))}
    for record in records:
        if isinstance(record, list):
            _append_steps(run, kind, [step for step in record if step.step > recorded])
        elif isinstance(record, EpochRecord) and record.epoch > tested:
            _append_test(run, record)
        if status.phase != (phase := "training" if record else "testing"):
            run.write_status(status := dataclasses.replace(status, phase=phase))
        if time.monotonic() - saved > CHECKPOINT_EVERY_S or isinstance(record, EpochRecord):
            save_checkpoint(run, state)
            saved = time.monotonic()
        if isinstance(record, EpochRecord) and record.epoch in kept:
            replace_file(run.path / f"epoch-{record.epoch:04}.safetensors", save(weights_of(state.tensors())))
        if (wish := distributed.agreed(lambda: watch.wish)) is not None:
            ended = wish
            break
    save_checkpoint(run, state)
    return dataclasses.replace(status, state=ended, phase="")


def weights_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of `State.tensors` the weights that are tested, by the names of the model: the averages where there are any."""
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    averages = {name.removeprefix("average."): v for name, v in tensors.items() if name.startswith("average.")}
    return weights | averages  # counters are not averaged


def _append_steps(run: Run, kind: np.dtype, steps: list[StepRecord]) -> None:
    rows = np.array([tuple(vars(step).values()) for step in steps], kind)
    _append(run.path / "steps.bin", rows.tobytes())


def _append_test(run: Run, record: EpochRecord) -> None:
    """The predictions first: a line in epochs.jsonl says that they are there."""
    row = np.zeros(1, run.prediction_type())
    row["epoch"], row["predicted"] = record.epoch, record.predicted
    row["confidence"] = np.round(record.confidence * CONFIDENCE)
    _append(run.path / "predictions.bin", row.tobytes())
    line = {name: value for name, value in vars(record).items() if not isinstance(value, np.ndarray)}
    log.info("Epoch %d, step %d: test accuracy %.2f %%", record.epoch, record.step, 100 * record.test_accuracy)
    _append(run.path / "epochs.jsonl", json.dumps(line).encode() + b"\n")


def _append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


def save_checkpoint(run: Run, state: State) -> None:
    """Replace the checkpoint by the state at its step; DivergedError, and the old one stays, where it is not finite."""
    tensors = state.tensors()
    if not all(value.isfinite().all() for value in tensors.values()):
        raise DivergedError(f"The weights are no longer finite at step {state.step}. Try a lower learning rate.")
    for name in ("steps.bin", "predictions.bin", "epochs.jsonl"):
        if (run.path / name).exists():
            sync_file(run.path / name)  # a checkpoint is never ahead of the records
    replace_file(run.path / "checkpoint.safetensors", save(tensors, {"step": str(state.step)}))
