"""One optimiser step that waits for no device, and what it measures of each weight layer."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from resnet.nets.layers import StochasticDepth
from resnet.nets.model import weight_layers
from resnet.nets.passes import forward_backward
from resnet.seeds import Stream, seed_of
from resnet.train import distributed
from resnet.train.feeds import Feed
from resnet.train.figures import measured_type
from resnet.train.graph import Graph, Inputs
from resnet.train.recipes import Recipe
from resnet.train.state import State

log = logging.getLogger(__name__)


class Step:
    """One optimiser step of `state`: (inputs, lr, step from 0) -> float32 figures, laid out as `measured_type`.

    Once the loss or a gradient is not finite, the weights stay as they are. On CUDA a step is replayed as a graph,
    unless each is another one (stochastic depth, dropout, augmentations) or other processes take part.
    """

    def __init__(self, state: State, feed: Feed, recipe: Recipe) -> None:
        self.state, self.feed, self.recipe = state, feed, recipe
        drops = any(isinstance(module, StochasticDepth | nn.Dropout) for module in state.model.modules())
        self.draws = drops or bool(recipe.augmentations)
        self.layers = LayerFigures(state.model)
        self.net, self.unproven = distributed.parallel(feed.reader(state.model)), recipe.compile
        if recipe.compile:
            self.net = torch.compile(self.net, dynamic=False)  # type: ignore[assignment] # of a module, a module
        graphable = state.lr.is_cuda and not self.draws and distributed.size() == 1
        self.graph = Graph() if graphable else None

    def __call__(self, inputs: Inputs, lr: float, step: int) -> Tensor:
        self.state.schedule(lr, step)
        with _drawing(self.recipe.seed, Stream.STEP, step, distributed.rank()) if self.draws else nullcontext():
            return self.graph(self.run, inputs) if self.graph else self.run(inputs)

    def run(self, inputs: Inputs) -> Tensor:
        """Forward, backward, the optimiser's step, the average."""
        x, labels = self.feed.prepare(*inputs)
        loss, logits = self._proven(x, labels) if self.unproven else self._gradients(x, labels)
        classes = labels if labels.dim() == 1 else labels.argmax(1)  # of mixed images the one with the larger share
        accuracy = (logits.argmax(1) == classes).float().mean()
        loss, accuracy = distributed.all_reduce_mean_(torch.stack([loss, accuracy])).unbind()
        every, norms = self.layers.gradient_norms()
        finite = (loss + every.sum()).isfinite().float()
        self.state.skipped.copy_(self.state.skipped.maximum(1 - finite))
        if self.recipe.clip:
            nn.utils.clip_grads_with_norm_(self.layers.parameters, self.recipe.clip, every.norm())
        updates = self.layers.relative_updates(self.state.take_step)
        self.state.update_average()
        return _packed(skipped=self.state.skipped, loss=loss, accuracy=accuracy, norms=norms, updates=updates)

    def _gradients(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return forward_backward(self.net, x, labels, self.recipe.precision, self.recipe.label_smoothing)

    def _proven(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The first compiled passes; where the compiler fails, the same and all others without it."""
        self.unproven = False
        buffers = {name: value.clone() for name, value in self.state.model.named_buffers()}
        try:
            return self._gradients(x, labels)
        except Exception as error:  # noqa: BLE001 (compilers fail in many ways: none at hand, too old, a defect)
            log.warning("torch.compile failed, so the training goes on without it: %s", error)
        self.net = distributed.parallel(self.feed.reader(self.state.model))
        for name, value in self.state.model.named_buffers():
            value.copy_(buffers[name])
        return self._gradients(x, labels)


def _packed(**measured: Tensor) -> Tensor:
    """One row of figures, each where `measured_type` has it."""
    return torch.cat([measured[name].reshape(-1) for name in measured_type(0).names or ()])


@contextmanager
def _drawing(*key: int) -> Iterator[None]:
    """What layers draw here, as stochastic depth does, depends on the key alone; PyTorch's generators stay."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*key))
        yield


class LayerFigures:
    """Figures (layers,) of a model's weight layers, from one pass over all of them."""

    def __init__(self, model: nn.Module) -> None:
        self.weights: list[Tensor] = [layer.get_parameter("weight") for layer in weight_layers(model).values()]
        self.trained = [weight for weight in self.weights if weight.requires_grad]
        self.before = [torch.empty_like(weight) for weight in self.trained]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        layers = [place for place, weight in enumerate(self.weights) if weight.requires_grad]
        device = self.weights[0].device
        self.places = torch.tensor([places[id(weight)] for weight in self.trained], device=device)
        self.layers = torch.tensor(layers, device=device)

    def gradient_norms(self) -> tuple[Tensor, Tensor]:
        """L2 norms of the gradients: of every parameter, and of the layers' weights."""
        every = torch.stack(torch._foreach_norm([p.grad for p in self.parameters if p.grad is not None]))
        return every, self._by_layer(every[self.places])

    @torch.no_grad()
    def relative_updates(self, step: Callable[[], object]) -> Tensor:
        """Take the optimiser's step: the L2 norm of each weight's change over that of the weight before."""
        torch._foreach_copy_(self.before, self.trained)
        lengths = torch.stack(torch._foreach_norm(self.before))
        step()
        torch._foreach_sub_(self.before, self.trained)
        return self._by_layer(torch.stack(torch._foreach_norm(self.before)) / lengths.clamp_min(1e-12))

    def _by_layer(self, found: Tensor) -> Tensor:
        """(layers,): what was found of the trained ones, 0 of those that are frozen."""
        return found.new_zeros(len(self.weights)).index_copy(0, self.layers, found)
