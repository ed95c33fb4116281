"""What a training says, written into its run's folder: information, steps, tests, checkpoints."""

import dataclasses
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from resnet.data.source import Source
from resnet.devices import device_name
from resnet.errors import Refused
from resnet.files import replace_file
from resnet.runs.jobs import Status
from resnet.runs.records import CONFIDENCE, SAMPLE_SIZE, sample_rows
from resnet.runs.store import Run
from resnet.runs.weights import CHECKPOINT_EVERY_S, save_checkpoint, weights_of
from resnet.train import distributed
from resnet.train.feeds import moments
from resnet.train.loop import BatchTested, EpochTested, Event, StepsTaken
from resnet.train.recipes import Recipe
from resnet.train.state import State

log = logging.getLogger(__name__)


def check_same(run: Run, data: Source) -> None:
    """Refused where the data are not those that the run began with."""
    if not len(run.steps()):
        return
    for kind, images in (("training", len(data.train_labels)), ("test", len(data.test_labels))):
        if (before := run.info().get(f"{kind.removesuffix('ing')}_images", images)) != images:
            raise Refused(
                f"This run began with {before} {kind} images of {data.name}, and now there are {images}. "
                "Start a new run."
            )
    if run.info().get("fingerprint", data.fingerprint) != data.fingerprint:
        raise Refused(f"This run began with other training images of {data.name}. Start a new run.")


def note_info(run: Run, data: Source, layers: list[str], recipe: Recipe, device: str) -> None:
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
        rows = sample_rows(len(data.test_labels)).tolist()
        samples = data.sample(rows).resized(min(SAMPLE_SIZE, data.size))
        packed = io.BytesIO()
        labels = data.test_labels.numpy().astype(np.int32)
        np.savez_compressed(packed, labels=labels, images=samples.test_images.permute(0, 2, 3, 1).numpy())
        replace_file(run.path / "test.npz", packed.getvalue())


def record(
    run: Run,
    wish: Callable[[], str | None],
    state: State,
    events: Iterator[Event],
    before: tuple[int, int],
    epochs: float,
    status: Status,
) -> Status:
    """Append what `fit` yields until it ends or `wish` gives the state that is asked for; the status then.

    Steps recorded after the checkpoint by a worker that was killed are run again but not written again: the
    training is deterministic, so nothing recorded is lost or doubled.
    """
    (recorded, tested), saved, ended = before, time.monotonic(), "finished"
    kept = {1, *(math.ceil(epochs * share) for share in (0.25, 0.5, 0.75))}
    for event in events:
        if isinstance(event, StepsTaken):
            _append_steps(run, event.rows[event.rows["step"] > recorded])
        elif isinstance(event, EpochTested) and event.epoch > tested:
            _append_test(run, event)
        if status.phase != (phase := "testing" if isinstance(event, BatchTested) else "training"):
            run.write_status(status := dataclasses.replace(status, phase=phase))
        if time.monotonic() - saved > CHECKPOINT_EVERY_S or isinstance(event, EpochTested):
            save_checkpoint(run, state)
            saved = time.monotonic()
        if isinstance(event, EpochTested) and event.epoch in kept:
            replace_file(run.path / f"epoch-{event.epoch:04}.safetensors", save(weights_of(state.tensors())))
        if (asked := distributed.broadcast_object(wish)) is not None:
            ended = asked
            break
    save_checkpoint(run, state)
    return dataclasses.replace(status, state=ended, phase="")


def _append_steps(run: Run, rows: np.ndarray) -> None:
    _append(run.path / "steps.bin", rows.tobytes())


def _append_test(run: Run, event: EpochTested) -> None:
    """The predictions first: a line in epochs.jsonl says that they are there."""
    row, result = np.zeros(1, run.prediction_type()), event.result
    row["epoch"], row["predicted"] = event.epoch, result.predicted
    row["confidence"] = np.round(result.confidence * CONFIDENCE)
    _append(run.path / "predictions.bin", row.tobytes())
    line = {"epoch": event.epoch, "step": event.step, "test_loss": result.loss, "test_accuracy": result.accuracy}
    log.info("Epoch %d, step %d: test accuracy %.2f %%", event.epoch, event.step, 100 * result.accuracy)
    _append(run.path / "epochs.jsonl", json.dumps(line).encode() + b"\n")


def _append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)
