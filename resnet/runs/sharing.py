"""A run handed on: tested on other pictures, and copied without what only a resume needs."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from resnet.data.dataset import Dataset
from resnet.data.walk import first_of
from resnet.errors import Refused
from resnet.files import replace_file
from resnet.nets.model import memory_format
from resnet.runs.jobs import ACTIVE
from resnet.runs.opened import open_run
from resnet.runs.prepare import check_net
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.train.feeds import Resident
from resnet.train.loop import evaluate
from resnet.train.narrow import accelerate

COPIED = ("run.json", "info.json", "tests.json", "steps.bin", "epochs.jsonl", "predictions.bin", "test.npz")


def test_on(run: Run, data: Dataset) -> dict[str, Any]:
    """Test the run's final weights on the test images of `data`, and note it in the run's tests.json.

    The answer: data, source, notes, images, accuracy, loss, step. Classes go by their names, as `_by_name` has it.
    Refused where the net cannot read the images, or does not know a class.
    """
    data = _by_name(data, run.class_names())
    check_net(run.job, data)
    trained, recipe = open_run(run), run.job.recipe
    precision = run.info().get("precision", "fp32")
    feed = Resident(data, recipe, torch.device("cpu"), memory_format(trained.model))
    feed.mean, feed.std = trained.moments
    result = evaluate(accelerate(trained.model, "cpu", precision), feed, precision, recipe.flip_test)
    found = {
        "data": Path(data.name).name,
        "source": data.source,
        "notes": list(data.notes),
        "images": len(data.test_labels),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "step": run.checkpoint_step(),
    }
    others = [test for test in run.tests() if test.get("data") != found["data"]]
    replace_file(run.path / "tests.json", json.dumps([*others, found]))
    return found


def _by_name(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """The data with the labels of a run whose classes have these names. Refused where it has no class of a test image.

    Data whose classes are called 0, 1, 2 and so on have no names: these are numbers of the run's classes.
    """
    if data.class_names == names:
        return data
    used = data.test_labels.unique().tolist()
    called = [data.class_names[label] for label in used]
    strange = [name for name in called if name not in names]
    numbered = set(data.class_names) == set(map(str, range(data.classes))) and max(map(int, called)) < len(names)
    if strange and not numbered:
        rule = f"The classes of this run are {first_of(names)}; {data.name} has pictures of {first_of(strange)}."
        raise Refused(rule, choices="pictures of the run's classes, under their names")
    table = torch.zeros(data.classes, dtype=torch.int64)
    table[used] = torch.tensor([int(name) if strange else names.index(name) for name in called])
    note = f"Its classes ({len(called)} of the run's {len(names)}) are matched by name."
    if strange:
        note = "Its classes have no names: their numbers are taken as those of the run's classes."
    return dataclasses.replace(data, class_names=names, test_labels=table[data.test_labels], notes=(*data.notes, note))


def share(run: Run, folder: Path, epochs: int = 2, half: bool = False) -> Run:
    """Copy the run into folder/<its id>, to be looked at: all its records, and its weights without momentum.

    Of the weights after epochs, `epochs` stay, in float16; with `half` the final ones are in
    float16 too. Refused while it trains, or where the copy exists.
    """
    status, step = run.status(), run.checkpoint_step()
    if status.state in ACTIVE or step is None:
        raise Refused(f"{run.id} is {status.state}. A run can be shared once it has ended or is paused.")
    target = folder / run.id
    if target.exists():
        raise Refused(f"{target} exists. Remove it, or choose another folder.")
    target.mkdir(parents=True)
    for name in COPIED:
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, target / name)
    replace_file(target / "status.json", json.dumps(dataclasses.asdict(status) | {"host": "", "ticket": 0}))
    final = load_model(run).state_dict()
    weights = {f"model.{name}": value for name, value in (_halves(final) if half else final).items()}
    replace_file(target / "checkpoint.safetensors", save(weights, {"step": str(step)}))
    kept = list(run.checkpoints().values())
    for path in [kept[index] for index in np.linspace(0, len(kept) - 1, min(epochs, len(kept))).astype(int)]:
        replace_file(target / path.name, save(_halves(load_file(path))))
    return Run(target)


def _halves(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
