"""Train a classifier on resident images: one generator of records, the same in the app, a terminal or a test.

Everything random is a function of (seed, step), so a run continues exactly from its weights, momentum and step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.data import Dataset, augment, normalise
from resnet.layers import StochasticDepth
from resnet.model import memory_format, weight_layers


class RecipeError(ValueError):
    """A rule that a recipe breaks."""


class DivergedError(ArithmeticError):
    """The loss, a gradient or a weight is no longer a finite number."""


def _one_cycle(progress: float) -> float:
    """Linear up to 1 over the first quarter, linear down to 0 (Smith & Topin, arXiv 1708.07120)."""
    return progress / 0.25 if progress < 0.25 else (1 - progress) / 0.75


def _steps(progress: float) -> float:
    """The paper's schedule: a tenth after 1/2, a hundredth after 3/4 (He 2015, 4.2: 32k and 48k of 64k)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _constant(progress: float) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"one-cycle": _one_cycle, "steps": _steps, "constant": _constant}


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with Nesterov momentum. RecipeError where a value is out of range."""

    epochs: int = 5
    batch: int = 128
    lr: float = 0.1  # the schedule's highest
    schedule: str = "one-cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True  # pad-4 crop and flip
    seed: int = 0
    precision: str = "auto"  # fp32, bf16, or bf16 where it is faster

    def __post_init__(self) -> None:
        whole = [("epochs", 1, 1000), ("batch", 2, 4096), ("seed", 0, 2**31)]
        for name, low, high in [*whole, ("lr", 1e-6, 10), ("momentum", 0, 0.999), ("weight_decay", 0, 1)]:
            value, kinds = getattr(self, name), int if (name, low, high) in whole else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "whole number" if kinds is int else "number"
                raise RecipeError(f"{name} must be a {kind} from {low:,} to {high:,}. Received {value!r}.")
        if not isinstance(self.augment, bool):
            raise RecipeError(f"augment must be true or false. Received {self.augment!r}.")
        for name, choices in [("schedule", tuple(SCHEDULES)), ("precision", ("auto", "fp32", "bf16"))]:
            if getattr(self, name) not in choices:
                raise RecipeError(f"{name} must be one of {', '.join(choices)}. Received {getattr(self, name)!r}.")

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step out of `steps`; a one-cycle's first step is not 0."""
        return self.lr * SCHEDULES[self.schedule]((step + 0.5) / steps)


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step: mean cross-entropy and accuracy of its batch in train mode, L2 norm of dL/dW by layer."""

    step: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    norms: np.ndarray


@dataclass(frozen=True)
class EpochRecord:
    """The whole test set after an epoch, in eval mode."""

    epoch: int
    step: int
    test_loss: float
    test_accuracy: float


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_precision(wanted: str, device: str) -> torch.dtype:
    """bf16 on CUDA that has it and on a CPU with AMX tiles; on other CPUs fp32 is 3-8x faster."""
    if wanted != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device == "cpu" and torch.cpu._is_amx_tile_supported() else torch.float32


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches only; the images left over differ from epoch to epoch."""
    return max(1, images // batch)


class State:
    """What a training is at a step: the model, its momentum, the number of steps done."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        # The fused SGD pairs weights and momentum by place in memory, so both get their layout here, before a load.
        self.model, self.step = model.to(memory_format=memory_format(model)), 0
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def advance(self, lr: float) -> None:
        """One optimiser step along the gradients that the model's parameters hold."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1

    def tensors(self) -> dict[str, Tensor]:
        """A copy on the CPU: weights and buffers as `model.*`, momentum as `momentum.*`."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                named[f"momentum.{name}"] = buffer
        plain = torch.contiguous_format
        return {name: value.detach().to("cpu", memory_format=plain, copy=True) for name, value in named.items()}

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from what `tensors` gave at `step`. RuntimeError where the names or shapes differ."""
        self.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        for name, parameter in self.model.named_parameters():
            if (saved := tensors.get(f"momentum.{name}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter.detach()).copy_(saved)
        self.step = step


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*key))


@contextmanager
def _drawing(*key: int) -> Iterator[None]:
    """What layers draw here, as stochastic depth does, depends on the key alone; PyTorch's generators stay."""
    with torch.random.fork_rng():
        torch.manual_seed(_seed(*key))
        yield


def fit(state: State, data: Dataset, recipe: Recipe) -> Iterator[StepRecord | EpochRecord | None]:
    """Train from state.step to the end: a record per step and per epoch, None between test batches.

    Twins with one seed see the same batches with the same crops. Raises DivergedError, before the weights take
    the step, where the loss or a gradient is not finite.
    """
    model, device = state.model, next(state.model.parameters()).device
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    per_epoch = steps_per_epoch(len(images), recipe.batch)
    layout = memory_format(model)
    drops = any(isinstance(module, StochasticDepth) for module in model.modules())
    # A run that stopped between an epoch's last step and its test starts with that test.
    for epoch in range(max(0, state.step - 1) // per_epoch, recipe.epochs):
        order = torch.randperm(len(images), generator=_generator(recipe.seed, 0, epoch)).to(device)
        model.train()
        clock = time.perf_counter()
        for step in range(max(state.step, epoch * per_epoch), (epoch + 1) * per_epoch):
            first = step % per_epoch * recipe.batch
            chosen = order[first : first + recipe.batch]
            x = _prepare(images[chosen], data, recipe.augment, (recipe.seed, 1, step)).contiguous(memory_format=layout)
            lr = recipe.lr_at(step, per_epoch * recipe.epochs)
            with _drawing(recipe.seed, 2, step) if drops else nullcontext():
                loss, accuracy, *norms = _gradients(model, x, labels[chosen], recipe.precision)
            _check_finite(loss, norms, step + 1, recipe)
            state.advance(lr)
            clock, seconds = time.perf_counter(), time.perf_counter() - clock
            yield StepRecord(step + 1, loss, accuracy, lr, seconds, np.array(norms, np.float32))
        for result in evaluate(model, data, recipe.precision):
            yield EpochRecord(epoch + 1, state.step, *result) if result else None


def _prepare(images: Tensor, data: Dataset, crop_and_flip: bool, key: tuple[int, ...]) -> Tensor:
    """uint8 (N, C, S, S) -> float (N, C, S, S)."""
    mean, std = data.mean.to(images.device), data.std.to(images.device)
    if crop_and_flip:
        images = augment(images, _generator(*key), fill=(mean * 255).round().to(torch.uint8))
    return normalise(images, mean, std)


def _gradients(model: nn.Module, x: Tensor, labels: Tensor, precision: str) -> list[float]:
    """Leave dL/dW in the parameters' .grad; returns [loss, accuracy, norm of dL/dW per layer]."""
    with _autocast(x.device, precision):
        logits = model(x)  # (N, classes)
    loss = F.cross_entropy(logits.float(), labels)
    model.zero_grad(set_to_none=True)
    loss.backward()
    accuracy = (logits.argmax(1) == labels).float().mean()
    weights = [layer.get_parameter("weight") for layer in weight_layers(model).values()]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return torch.stack([loss.detach(), accuracy, *torch._foreach_norm(gradients)]).tolist()


def _check_finite(loss: float, norms: list[float], step: int, recipe: Recipe) -> None:
    for what, value in [("The loss", loss), ("A gradient", sum(norms))]:
        if not math.isfinite(value):
            raise DivergedError(f"{what} became {value} at step {step}. Try a learning rate below {recipe.lr:g}.")


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    dtype = pick_precision(precision, device.type)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def evaluate(model: nn.Module, data: Dataset, precision: str = "fp32") -> Iterator[tuple[float, float] | None]:
    """(mean cross-entropy, accuracy) on the whole test set, after a None for each batch of it."""
    device = next(model.parameters()).device
    model.eval()
    loss = correct = 0.0
    layout = memory_format(model)
    for images, labels in zip(data.test_images.split(500), data.test_labels.split(500), strict=True):
        with torch.no_grad(), _autocast(device, precision):
            x = _prepare(images.to(device), data, False, ()).contiguous(memory_format=layout)
            logits = model(x).float().cpu()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        yield None
    yield loss / len(data.test_labels), correct / len(data.test_labels)
