"""Train a classifier: one generator of records, the same in the app, a terminal or a test.

Everything random is a function of (seed, step), so a run continues exactly from its weights, momentum and step.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnet.devices import autocast
from resnet.errors import Refused
from resnet.nets.layers import StochasticDepth
from resnet.nets.model import memory_format, weight_layers
from resnet.seeds import Stream, seed_of
from resnet.train import distributed
from resnet.train.feeds import Feed
from resnet.train.narrow import quicken
from resnet.train.recipes import Recipe

UNREAD = {"cuda": 64, "mps": 16}  # steps whose figures are fetched at once: each fetching waits for the device
WARM_STEPS = 3  # before a step is recorded as a CUDA graph
log = logging.getLogger(__name__)


class DivergedError(Refused):
    """The loss, a gradient or a weight is no longer a finite number."""


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step: mean cross-entropy and accuracy of its batch in train mode, and figures by layer.

    batch: a CRC-32 of the images, crops and flips; norms: L2 of dL/dW; updates: L2 of the step's change of W over
    that of W. Equal (seed, data, batch size) give equal `batch` at each step.
    """

    step: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    batch: int
    norms: np.ndarray
    updates: np.ndarray


@dataclass(frozen=True)
class EpochRecord:
    """The whole test set after an epoch, in eval mode; by image (N,) the class predicted and its softmax in 0..1."""

    epoch: int
    step: int
    test_loss: float
    test_accuracy: float
    predicted: np.ndarray
    confidence: np.ndarray


class State:
    """What a training is at a step: the model, its momentum, its average over steps, the number of steps done."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        # The fused SGD pairs weights and momentum by place in memory, so both get their layout here, before a load.
        self.model, self.step = model.to(memory_format=memory_format(model)), 0
        device = next(model.parameters()).device
        quicken(model, device, recipe.precision)
        self.lr = torch.zeros((), device=device)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        if recipe.momentum:  # zeros give the first step that PyTorch makes without any
            for parameter in model.parameters():
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.average = {name: value.detach().clone() for name, value in _floats(model)} if recipe.ema else {}

    def tensors(self) -> dict[str, Tensor]:
        """A copy on the CPU: weights and buffers as `model.*`, momentum as `momentum.*`, averages as `average.*`."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                named[f"momentum.{name}"] = buffer
        named |= {f"average.{name}": value for name, value in self.average.items()}
        plain = torch.contiguous_format
        return {name: value.detach().to("cpu", memory_format=plain, copy=True) for name, value in named.items()}

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from what `tensors` gave at `step`. RuntimeError where the names or shapes differ."""
        self.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        for name, parameter in self.model.named_parameters():
            if (saved := tensors.get(f"momentum.{name}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"].copy_(saved)
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        self.step = step


def _floats(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Weights and running statistics by name."""
    return [(name, value) for name, value in model.state_dict().items() if value.is_floating_point()]


@contextmanager
def _drawing(*key: int) -> Iterator[None]:
    """What layers draw here, as stochastic depth does, depends on the key alone; PyTorch's generators stay."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*key))
        yield


class Step:
    """One optimiser step that waits for no device: (inputs, lr, step) -> float (3 + 2 x layers,) on it.

    The figures are loss, accuracy, 1 if the step was not taken, norms and updates of `StepRecord`. Once the loss or
    a gradient is not finite, the weights stay as they are. On CUDA the fourth step is recorded as a graph and
    replayed from then on, because the thin nets' kernels are shorter than their launches.
    """

    def __init__(self, state: State, feed: Feed, recipe: Recipe, capture: "Capture | None" = None) -> None:
        self.state, self.feed, self.recipe = state, feed, recipe
        self.device = next(state.model.parameters()).device
        self.net: Callable[[Tensor], Tensor] = distributed.parallel(state.model)
        self.weights: list[Tensor] = [layer.get_parameter("weight") for layer in weight_layers(state.model).values()]
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        self.places = [places[id(weight)] for weight in self.weights]
        self.before = [torch.empty_like(weight) for weight in self.weights]
        self.drops = any(isinstance(module, StochasticDepth) for module in state.model.modules())
        self.unproven = recipe.compile
        if recipe.compile:
            self.net = torch.compile(self.net, dynamic=False)
        self.broken = torch.zeros((), device=self.device)  # 1 once something was not finite
        state.optimizer.found_inf = self.broken  # type: ignore[attr-defined] # the fused SGD then does nothing
        self.keep = torch.zeros((), device=self.device)
        graphable = self.device.type == "cuda" and not self.drops and distributed.size() == 1
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the shapes are the same at each step
        self.capture = capture or (_cuda_graph if graphable else None)
        self.replay: Callable[[], None] | None = None
        self.done = 0

    def __call__(self, inputs: tuple[Tensor, ...], lr: float, step: int) -> Tensor:
        self.state.lr.fill_(lr)
        self.keep.fill_(min(self.recipe.ema, (1 + step) / (10 + step)))  # the first weights are soon forgotten
        self.done += 1
        if self.capture is None or self.done <= WARM_STEPS:
            drawing = (
                _drawing(self.recipe.seed, Stream.DROPS, step, distributed.rank()) if self.drops else nullcontext()
            )
            with drawing, _aside() if self.capture is _cuda_graph else nullcontext():
                return self._proven(inputs) if self.unproven else self.run(inputs)
        if self.replay is None:
            self.inputs = tuple(value.clone() for value in inputs)
            self.replay = self.capture(self._recorded)
        for held, value in zip(self.inputs, inputs, strict=True):
            held.copy_(value)
        self.replay()
        return self.figures.clone()

    def _recorded(self) -> None:
        self.figures = self.run(self.inputs)

    def _proven(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The first compiled step; where the compiler fails, the same step and all others without it."""
        self.unproven = False
        buffers = {name: value.clone() for name, value in self.state.model.named_buffers()}
        try:
            return self.run(inputs)
        except Exception as error:  # noqa: BLE001 (compilers fail in many ways: none at hand, too old, a defect)
            log.warning("torch.compile failed, so the training goes on without it: %s", error)
        self.net = distributed.parallel(self.state.model)
        for name, value in self.state.model.named_buffers():
            value.copy_(buffers[name])
        return self.run(inputs)

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Forward, backward and the optimiser's step."""
        x, labels = self.feed.prepare(*inputs)
        with autocast(self.device, self.recipe.precision):
            logits = self.net(x)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self.state.model.zero_grad(set_to_none=True)
        loss.backward()
        accuracy = (logits.argmax(1) == labels).float().mean()
        head = distributed.mean_(torch.stack([loss.detach(), accuracy]))
        norms = torch._foreach_norm([p.grad for p in self.parameters if p.grad is not None])
        every = head[0] + torch.stack(norms).sum()
        self.broken.copy_(self.broken.maximum(1 - every.isfinite().float()))
        updates = self._update()
        self._average()
        return torch.cat([head, self.broken[None], torch.stack([norms[place] for place in self.places]), updates])

    @torch.no_grad()
    def _update(self) -> Tensor:
        """The optimiser's step; the L2 norm of each weight's change over that of the weight before."""
        torch._foreach_copy_(self.before, self.weights)
        lengths = torch.stack(torch._foreach_norm(self.before))
        self.state.optimizer.step()
        torch._foreach_sub_(self.before, self.weights)
        return torch.stack(torch._foreach_norm(self.before)) / lengths.clamp_min(1e-12)

    @torch.no_grad()
    def _average(self) -> None:
        if self.state.average:
            average, now = list(self.state.average.values()), [value for _, value in _floats(self.state.model)]
            torch._foreach_mul_(average, self.keep)
            torch._foreach_add_(average, torch._foreach_mul(now, 1 - self.keep))


Capture = Callable[[Callable[[], None]], Callable[[], None]]


@contextmanager
def _aside() -> Iterator[None]:
    """On another CUDA stream, as what is recorded later wants its first runs to be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Records what `step` does on the device, without doing it; the answer does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


Progress = list[StepRecord] | EpochRecord | None  # what `fit` gives


def fit(state: State, feed: Feed, recipe: Recipe) -> Iterator[Progress]:
    """Train from state.step to the end: records of one step or several, one per epoch, None between test batches.

    `state` is always that of the last record given. Raises DivergedError, before the weights take the step, where
    the loss or a gradient is not finite.
    """
    step, total = Step(state, feed, recipe), recipe.total_steps(feed.per_epoch)
    # A run that stopped between an epoch's last step and its test starts with that test.
    for epoch in range(max(0, state.step - 1) // feed.per_epoch, math.ceil(total / feed.per_epoch)):
        last = min(total, (epoch + 1) * feed.per_epoch)
        state.model.train()
        if state.step < last:
            yield from _steps(state, feed, recipe, step, last)
        for result in evaluate(state, feed, recipe):
            yield dataclasses.replace(result, epoch=epoch + 1) if result else None


def _steps(state: State, feed: Feed, recipe: Recipe, step: Step, last: int) -> Iterator[list[StepRecord]]:
    unread: list[tuple[int, float, int, Tensor]] = []
    total, device = recipe.total_steps(feed.per_epoch), next(state.model.parameters()).device
    clock, limit = time.perf_counter(), UNREAD.get(device.type, 1)
    for index, (inputs, batch) in enumerate(feed.inputs(state.step, last), state.step):
        lr = recipe.lr_at(index, total)
        unread.append((index + 1, lr, batch, step(inputs, lr, index)))
        if len(unread) < limit and index + 1 < last:
            continue
        figures = torch.stack([row[3] for row in unread]).cpu().numpy()  # waits for the device
        seconds = (time.perf_counter() - clock) / len(unread)
        taken = int(np.argmax(figures[:, 2])) if figures[:, 2].any() else len(unread)
        records = [_record(row, values, seconds) for row, values in zip(unread, figures, strict=True)]
        state.step += taken
        if taken:
            yield records[:taken]
        if taken < len(records):
            raise _diverged(records[taken], recipe)
        unread, clock = [], time.perf_counter()


def _record(row: tuple[int, float, int, Tensor], figures: np.ndarray, seconds: float) -> StepRecord:
    number, lr, batch, _ = row
    norms, updates = figures[3:].reshape(2, -1)
    return StepRecord(number, float(figures[0]), float(figures[1]), lr, seconds, batch, norms, updates)


def _diverged(record: StepRecord, recipe: Recipe) -> DivergedError:
    what, value = "The loss", record.loss
    if math.isfinite(value):
        what, value = "A gradient", float(record.norms.sum())
    words = f"{value}" if not math.isfinite(value) else "infinite"  # that of a norm layer, which is not recorded
    return DivergedError(f"{what} became {words} at step {record.step}. Try a learning rate below {recipe.lr:g}.")


def evaluate(state: State, feed: Feed, recipe: Recipe) -> Iterator[EpochRecord | None]:
    """The whole test set with the averaged weights where the recipe has them, after a None for each batch of it."""
    model, device = state.model, next(state.model.parameters()).device
    model.eval()
    labels = feed.test_labels
    losses, classes, shares = torch.zeros(3, len(labels), dtype=torch.float64)
    first = 0
    for number, x in enumerate(feed.tests()):
        part = slice(first, first := first + len(x))
        if number % distributed.size() == distributed.rank():
            with torch.no_grad(), autocast(device, recipe.precision):
                logits = functional_call(model, state.average, x).float()
                if recipe.flip_test:
                    logits = (logits + functional_call(model, state.average, x.flip(-1)).float()) / 2
            logits = logits.cpu()
            losses[part] = F.cross_entropy(logits, labels[part], reduction="none").double()
            shares[part], classes[part] = logits.softmax(1).double().max(1)
        yield None
    for values in (losses, classes, shares):
        distributed.sum_(values)
    predicted = classes.long()
    accuracy = (predicted == labels).double().mean().item()
    yield EpochRecord(0, state.step, losses.mean().item(), accuracy, predicted.numpy(), shares.numpy())
