"""What a training is at a step: all that its next steps depend on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resnet.errors import Refused
from resnet.train.recipes import Recipe


class DivergedError(Refused):
    """The loss, a gradient or a weight is no longer a finite number."""


Groups = list[nn.Parameter] | list[dict[str, Any]]  # weights in one group, or in several with a learning rate each


def _sgd(weights: Groups, lr: Tensor, recipe: Recipe) -> torch.optim.Optimizer:
    momentum, nesterov = recipe.momentum, recipe.nesterov and recipe.momentum > 0
    decay = recipe.weight_decay
    return torch.optim.SGD(weights, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, fused=True)


def _adamw(weights: Groups, lr: Tensor, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=lr, weight_decay=recipe.weight_decay, fused=True, capturable=lr.is_cuda)


def _rmsprop(weights: Groups, lr: Tensor, recipe: Recipe) -> torch.optim.Optimizer:
    momentum, decay = recipe.momentum, recipe.weight_decay
    return torch.optim.RMSprop(
        weights, lr=lr, momentum=momentum, weight_decay=decay, foreach=True, capturable=lr.is_cuda
    )


# How each is made, and what it remembers of a weight: tensors as large as it is, and how many steps it took.
MAKERS: dict[str, tuple[Callable[[Groups, Tensor, Recipe], torch.optim.Optimizer], tuple[str, ...]]] = {
    "sgd": (_sgd, ("momentum_buffer",)),
    "adamw": (_adamw, ("exp_avg", "exp_avg_sq", "step")),
    "rmsprop": (_rmsprop, ("momentum_buffer", "square_avg", "step")),
}


class State:
    """The model, what its optimiser remembers, its average over steps, the number of steps done.

    The model has its device and layout by then (`narrow.accelerate`): the fused optimisers pair weights and memory by
    their places in memory.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model, self.ema, self.step = model, recipe.ema, 0
        device = next(model.parameters()).device
        self.lr, self.keep, self.skipped = (torch.zeros((), device=device) for _ in range(3))
        self.frozen = _first_stages(model, recipe.frozen)
        for name in self.frozen:
            model.get_submodule(name).requires_grad_(False)
        self.rates = [(self.lr, 1.0)]
        make, names = MAKERS[recipe.optimizer]
        self.optimizer = make(self._groups(recipe.body_lr), self.lr, recipe)
        self.optimizer.found_inf = self.skipped  # type: ignore[attr-defined] # the fused ones do nothing where it is 1
        self.remembers = [name for name in names if recipe.momentum or name != "momentum_buffer"]
        for _, weight in self._trained() if self.remembers else ():  # as the first step would find it
            self.optimizer.state[weight] = {name: _at_first(name, weight) for name in self.remembers}
        self.average = {name: value.detach().clone() for name, value in self._floats()} if recipe.ema else {}

    def _floats(self) -> list[tuple[str, Tensor]]:
        """Weights and running statistics by name, but for the frozen ones."""
        named = [(name, value) for name, value in self.model.state_dict().items() if value.is_floating_point()]
        return [(name, value) for name, value in named if name.partition(".")[0] not in self.frozen]

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def _groups(self, body_lr: float) -> Groups:
        """What the optimiser trains: one group, or the head and the body, whose learning rate is another one."""
        if body_lr == 1:
            return [weight for _, weight in self._trained()]
        self.rates.append((torch.zeros_like(self.lr), body_lr))
        groups: list[dict[str, Any]] = [{"params": [], "lr": lr} for lr, _ in self.rates]
        stages: dict[str, str] = self.model.stages  # type: ignore[assignment] # a ResNet has a dict there
        for name, weight in self._trained():
            groups[stages[name.partition(".")[0]] != "head"]["params"].append(weight)
        return [group for group in groups if group["params"]]

    def train_mode(self) -> None:
        """The model in train mode, but for its frozen stages: their norms keep their statistics."""
        self.model.train()
        for name in self.frozen:
            self.model.get_submodule(name).eval()

    def schedule(self, lr: float, step: int) -> None:
        """Set what the optimiser step number `step`, from 0, goes by."""
        for rate, share in self.rates:
            rate.fill_(share * lr)
        self.keep.fill_(min(self.ema, (1 + step) / (10 + step)))  # the first weights are soon forgotten

    @torch.no_grad()
    def take_step(self) -> None:
        """The optimiser's step; where `skipped` is 1 the weights stay as they are."""
        if isinstance(self.optimizer, torch.optim.RMSprop):  # it heeds no found_inf
            for rate, _ in self.rates:
                rate.mul_(1 - self.skipped)
            for _, weight in self._trained():
                if weight.grad is not None:
                    weight.grad.masked_fill_(self.skipped.bool(), 0)
        self.optimizer.step()

    @torch.no_grad()
    def update_average(self) -> None:
        if self.average:
            average, now = list(self.average.values()), [value for _, value in self._floats()]
            torch._foreach_mul_(average, self.keep)
            torch._foreach_add_(average, torch._foreach_mul(now, 1 - self.keep))

    def tensors(self) -> dict[str, Tensor]:
        """A copy on the CPU: weights and buffers as `model.*`, averages as `average.*`, the optimiser's as `momentum.*`
        or by their own names."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        named |= self._memory()
        named |= {f"average.{name}": value for name, value in self.average.items()}
        plain = torch.contiguous_format
        return {name: value.detach().to("cpu", memory_format=plain, copy=True) for name, value in named.items()}

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from what `tensors` gave at `step`. RuntimeError where the names or shapes differ."""
        self.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        for name, value in self._memory().items():
            if name in tensors:
                value.copy_(tensors[name])
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        self.step = step

    def _memory(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            f"{kind.removesuffix('_buffer')}.{name}": state[weight][kind]
            for kind in self.remembers
            for name, weight in self._trained()
        }


def _at_first(name: str, weight: nn.Parameter) -> Tensor:
    return torch.zeros((), device=weight.device) if name == "step" else torch.zeros_like(weight)


def _first_stages(model: nn.Module, count: int) -> list[str]:
    """The model's children that are its stem and the stages after it, `count` in all. Refused where it has fewer."""
    if not count:
        return []
    stages: dict[str, str] = model.stages  # type: ignore[assignment] # a ResNet has a dict there
    names = [name for name in dict.fromkeys(stages.values()) if name != "head"]
    if count > len(names):
        rule = f"The net's stem and its {len(names) - 1} stages can be frozen."
        raise Refused(rule, f"{count}", f"{len(names)} or fewer")
    return [child for child, stage in stages.items() if stage in names[:count]]
