"""Train a classifier: one generator of events, the same in the app, a terminal or a test.

Everything random is a function of (seed, step), so a run continues exactly from its weights, momentum and step.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnet.devices import autocast
from resnet.train import distributed
from resnet.train.feeds import Feed
from resnet.train.figures import MEASURED, measured_type, record_type
from resnet.train.recipes import Recipe
from resnet.train.state import DivergedError, State
from resnet.train.step import Step

UNREAD = {"cuda": 64, "mps": 16}  # steps whose figures are fetched at once: each fetching waits for the device


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The whole test set in eval mode: mean cross-entropy, accuracy in 0..1; by image (N,) the class predicted and its
    softmax in 0..1."""

    loss: float
    accuracy: float
    predicted: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class StepsTaken:
    """One optimiser step or several; rows: (steps,) of `figures.record_type`."""

    rows: np.ndarray


@dataclass(frozen=True)
class BatchTested:
    """One batch of the test that follows an epoch."""


@dataclass(frozen=True, eq=False)
class EpochTested:
    """All of the test that follows an epoch, which is counted from 1 and ends with step `step`."""

    epoch: int
    step: int
    result: Evaluation


Event = StepsTaken | BatchTested | EpochTested


def fit(state: State, feed: Feed, recipe: Recipe) -> Iterator[Event]:
    """Train from state.step to the end, with a test after each epoch.

    `state` is always that of the last event given. Raises DivergedError, before the weights take the step, where
    the loss or a gradient is not finite.
    """
    step, total = Step(state, feed, recipe), recipe.total_steps(feed.per_epoch)
    state.skipped.zero_()
    # A run that stopped between an epoch's last step and its test starts with that test.
    for epoch in range(max(0, state.step - 1) // feed.per_epoch, math.ceil(total / feed.per_epoch)):
        last = min(total, (epoch + 1) * feed.per_epoch)
        state.train_mode()
        if state.step < last:
            yield from _steps(state, feed, recipe, step, last)
        scores = []
        for part in _scores(state.model, feed, recipe.precision, recipe.flip_test, state.average):
            scores.append(part)
            yield BatchTested()
        yield EpochTested(epoch + 1, state.step, _summary(scores, feed.test_labels))


class _Taken(NamedTuple):
    """A step whose figures are still on the device."""

    step: int
    lr: float
    batch: int
    figures: Tensor


def _steps(state: State, feed: Feed, recipe: Recipe, step: Step, last: int) -> Iterator[StepsTaken]:
    unread: list[_Taken] = []
    total, limit = recipe.total_steps(feed.per_epoch), UNREAD.get(state.lr.device.type, 1)
    clock = time.perf_counter()
    for index, (inputs, batch) in enumerate(feed.inputs(state.step, last), state.step):
        lr = recipe.lr_at(index, total)
        unread.append(_Taken(index + 1, lr, batch, step(inputs, lr, index)))
        if len(unread) < limit and index + 1 < last:
            continue
        measured = _read(unread, len(step.layers.weights))
        rows = _rows(unread, measured, (time.perf_counter() - clock) / len(unread))
        taken = int(np.argmax(measured["skipped"])) if measured["skipped"].any() else len(rows)
        state.step += taken
        if taken:
            yield StepsTaken(rows[:taken])
        if taken < len(rows):
            raise _diverged(rows[taken], recipe)
        unread, clock = [], time.perf_counter()


def _read(unread: Sequence[_Taken], layers: int) -> np.ndarray:
    """(steps,) of `measured_type`; waits for the device."""
    return torch.stack([taken.figures for taken in unread]).cpu().numpy().view(measured_type(layers))[:, 0]


def _rows(unread: Sequence[_Taken], measured: np.ndarray, seconds: float) -> np.ndarray:
    """(steps,) of `record_type`, written by name."""
    rows = np.empty(len(unread), record_type(measured["norms"].shape[1]))
    for name in ("step", "lr", "batch"):
        rows[name] = [getattr(taken, name) for taken in unread]
    rows["seconds"] = seconds
    for name in MEASURED:
        rows[name] = measured[name]
    return rows


def _diverged(row: np.void, recipe: Recipe) -> DivergedError:
    what, value = "The loss", float(row["loss"])
    if math.isfinite(value):
        what, value = "A gradient", float(row["norms"].sum())
    words = f"{value}" if not math.isfinite(value) else "infinite"  # that of a norm layer, which is not recorded
    rule = f"{what} became {words} at step {row['step']}."
    return DivergedError(rule, choices=f"a learning rate below {recipe.lr:g}")


def evaluate(
    model: nn.Module, feed: Feed, precision: str = "fp32", flip: bool = False, average: dict[str, Tensor] | None = None
) -> Evaluation:
    """The model, which stays in eval mode, on the feed's whole test set.

    flip: the logits are the means of those of each image and of its mirror image; average: tensors by name that
    stand in for the model's own.
    """
    return _summary(list(_scores(model, feed, precision, flip, average or {})), feed.test_labels)


def _scores(model: nn.Module, feed: Feed, precision: str, flip: bool, average: dict[str, Tensor]) -> Iterator[Tensor]:
    """float64 (3, n) for each batch of the test set: by image its cross-entropy, the class predicted and its softmax.

    All are 0 where another process computes them.
    """
    model.eval()
    reader, first = feed.reader(model), 0
    average = {name: value for name, value in average.items() if name in reader.state_dict()}
    for number, x in enumerate(feed.tests()):
        labels = feed.test_labels[first : (first := first + len(x))]
        if number % distributed.size() != distributed.rank():
            yield torch.zeros(3, len(x), dtype=torch.float64)
            continue
        with torch.no_grad(), autocast(x.device, precision):
            logits = functional_call(reader, average, x).float()
            if flip:
                logits = (logits + functional_call(reader, average, x.flip(-1)).float()) / 2
        logits = logits.cpu()
        confidence, predicted = logits.softmax(1).double().max(1)
        loss = F.cross_entropy(logits, labels, reduction="none").double()
        yield torch.stack([loss, predicted.double(), confidence])


def _summary(scores: Sequence[Tensor], labels: Tensor) -> Evaluation:
    losses, classes, confidence = distributed.all_reduce_sum_(torch.cat(list(scores), dim=1))
    predicted = classes.long()
    accuracy = (predicted == labels).double().mean().item()
    return Evaluation(losses.mean().item(), accuracy, predicted.numpy(), confidence.numpy())
