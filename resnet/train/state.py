"""What a training is at a step: all that its next steps depend on."""

import torch
from torch import Tensor, nn

from resnet.errors import Refused
from resnet.train.recipes import Recipe


class DivergedError(Refused):
    """The loss, a gradient or a weight is no longer a finite number."""


class State:
    """The model, its momentum, its average over steps, the number of steps done.

    The model has its device and layout by then (`narrow.accelerate`): the fused SGD pairs weights and momentum by
    their places in memory.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model, self.ema, self.step = model, recipe.ema, 0
        device = next(model.parameters()).device
        self.lr, self.keep, self.skipped = (torch.zeros((), device=device) for _ in range(3))
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.optimizer.found_inf = self.skipped  # type: ignore[attr-defined] # the fused SGD does nothing where it is 1
        if recipe.momentum:  # zeros give the first step that PyTorch makes without any
            for parameter in model.parameters():
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.average = {name: value.detach().clone() for name, value in _floats(model)} if recipe.ema else {}

    def schedule(self, lr: float, step: int) -> None:
        """Set what the optimiser step number `step`, from 0, goes by."""
        self.lr.fill_(lr)
        self.keep.fill_(min(self.ema, (1 + step) / (10 + step)))  # the first weights are soon forgotten

    @torch.no_grad()
    def update_average(self) -> None:
        if self.average:
            average, now = list(self.average.values()), [value for _, value in _floats(self.model)]
            torch._foreach_mul_(average, self.keep)
            torch._foreach_add_(average, torch._foreach_mul(now, 1 - self.keep))

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
