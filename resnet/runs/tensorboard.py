"""A run as TensorBoard event files: scalars by step and epoch, and figures of each layer."""

import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from resnet.runs.curves import Digest, Strip, strip
from resnet.runs.store import Run
from resnet.train.figures import BY_LAYER, FIGURES, SCALARS

POINTS = 500  # of each layer's curves; TensorBoard itself shows 1,000
FILE_NAME = "events.out.tfevents.0.resnet-explorer"
Scalars = tuple[int, dict[str, float]]  # step, value by tag


def scalars(run: Run) -> Iterator[Scalars]:
    """Every step's train/loss, train/accuracy and train/lr, every epoch's test/loss and test/accuracy, in 0..1.

    By layer grad_norm/LAYER and update_to_weight/LAYER: geometric means over equal groups of steps, on their last.
    """
    records = run.steps()
    for row in records[["step", *SCALARS]]:
        yield int(row["step"]), {FIGURES[name].tag: row[name] for name in SCALARS}
    for epoch in run.epochs().to_dict("records"):
        yield epoch["step"], {"test/loss": epoch["test_loss"], "test/accuracy": epoch["test_accuracy"]}
    digest = Digest().grown(records)
    for name in BY_LAYER if len(records) else ():
        yield from _by_layer(strip(digest, name, POINTS), [f"{FIGURES[name].tag}/{layer}" for layer in run.layers()])


def _by_layer(made: Strip, tags: Sequence[str]) -> Iterator[Scalars]:
    for step, values in zip(made.ends, 10**made.log10.T, strict=True):
        yield int(step), dict(zip(tags, values, strict=True))


def write(run: Run, folder: Path) -> Path:
    """FOLDER/<run id>/events..., the place that `tensorboard --logdir FOLDER` reads; replaces the one that is there."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter  # slow to import

    path = folder / run.id / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    times = run.created() + np.cumsum(run.steps()["seconds"], dtype=np.float64)  # without pauses
    writer = RecordWriter(str(path))
    writer.write(Event(wall_time=run.created(), file_version="brain.Event:2").SerializeToString())
    for step, values in scalars(run):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        time = times[min(step, len(times)) - 1] if len(times) else run.created()
        writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())
    writer.close()
    return path


def zipped(found: Sequence[Run]) -> bytes:
    """The event files of runs in one archive, a folder for each run."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in found:
            path = write(run, Path(folder))
            archive.write(path, path.relative_to(folder))
    return out.getvalue()
