"""What a machine without a GPU can check of training on one: steps that wait for nothing, graphs, many at a time."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnet.data.dataset import Dataset
from resnet.nets.model import ResNet, build, memory_format
from resnet.nets.spec import PRESETS, NetSpec
from resnet.train import distributed
from resnet.train import loop as trainer
from resnet.train.feeds import Resident
from resnet.train.graph import Capture, Graph, Replay, cuda_graph
from resnet.train.loop import BatchTested, EpochTested, StepsTaken, fit
from resnet.train.narrow import accelerate
from resnet.train.recipes import Recipe
from resnet.train.state import DivergedError, State
from resnet.train.step import Step
from tests.support.tiny import TINY, figures, same, state_of

RECIPE = Recipe(epochs=2, batch=8, seed=3, precision="fp32", ema=0.6, label_smoothing=0.1)
PER_EPOCH = 7
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def noise() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (66, 3, 8, 8), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 3, (66,), generator=draw)
    return Dataset("noise", images[:56], labels[:56], images[56:], labels[56:], ("a", "b", "c"))


def tensors(*found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


class WaitError(Exception):
    """Values go from the GPU to the CPU or back."""


class NoWait(TorchDispatchMode):
    """WaitError where an operation touches values on the CPU; numbers on their way into a kernel have no dimension."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fused = func is torch.ops.aten._fused_sgd_.tensor_lr  # writes in place, and cannot without values
        result = None if fused else func(*args, **(kwargs or {}))
        if any(value.device.type != "cuda" and value.dim() for value in tensors(args, kwargs, result)):
            raise WaitError(func)
        return result


Maker = Callable[[NetSpec], Step]


@pytest.fixture
def on_cuda(noise: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    """Steps whose tensors lie on a GPU and have no values; what PyTorch then refuses without a GPU is replaced."""
    sgd, recipe, models = torch.optim.SGD, dataclasses.replace(RECIPE, precision="bf16"), list[ResNet]()

    def unchecked(weights: Any, lr: Tensor, **options: Any) -> torch.optim.Optimizer:
        optimizer = sgd(weights, lr=0.0, **options)  # its check would read lr, once
        optimizer.param_groups[0]["lr"] = lr
        return optimizer

    def backward(loss: Tensor) -> None:  # autograd's engine looks for the GPU
        assert loss.requires_grad
        for weight in models[-1].parameters():
            weight.grad = torch.empty_like(weight)

    def made(spec: NetSpec) -> Step:
        with torch.device("cuda"):
            models.append(ResNet(spec).train())
        feed = Resident(noise, recipe, torch.device("cuda"), torch.channels_last)
        return Step(State(models[-1], recipe), feed, recipe)

    assert noise.mean.isfinite().all()  # both are computed from the values, once
    assert noise.fingerprint
    monkeypatch.setattr(torch.optim, "SGD", unchecked)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(nn.Module, "to", lambda module, **_: module)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("resnet.train.graph._aside", nullcontext)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield made


def rows() -> tuple[Tensor, ...]:
    """What `Resident.inputs` gives for a step: images, tops, lefts, flips."""
    return (torch.zeros(4, 8, dtype=torch.int64, device="cuda"),)


def test_a_step_on_cuda_reads_nothing_back(on_cuda: Maker) -> None:
    step = on_cuda(PRESETS["ResNet-20"])
    seen: list[torch.dtype] = []
    step.state.model.fc.register_forward_hook(lambda module, inputs, logits: seen.append(logits.dtype))  # type: ignore[union-attr]
    with NoWait():
        first, second = step.run(rows()), step(rows(), 0.1, 0)
    assert seen == [torch.bfloat16, torch.bfloat16]
    for row in (first, second):
        assert (row.device.type, row.dtype, row.shape) == ("cuda", torch.float32, (3 + 2 * 20,))


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0, 0, 0]),
    "bool": lambda x: bool((x > 0).any()),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu", non_blocking=True),
    "tolist": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "upload": lambda x: x.copy_(torch.ones(8)),
}


@pytest.mark.parametrize("read", READS)
def test_a_step_that_reads_something_back_is_found(on_cuda: Maker, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, whole = on_cuda(TINY), torch.nn.functional.cross_entropy

    def reading(logits: Tensor, *args: Any, **options: Any) -> Tensor:
        READS[read](step.feed.prepare(*rows())[0])
        return whole(logits, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", reading)
    with NoWait(), pytest.raises((WaitError, DataDependentOutputException, DynamicOutputShapeException)):
        step.run(rows())


def test_the_graph_is_left_out_where_each_step_is_another_or_others_take_part(
    on_cuda: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = on_cuda(TINY).graph
    assert graph
    assert graph.capture is cuda_graph
    assert on_cuda(dataclasses.replace(TINY, stochastic_depth=0.5)).graph is None
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "parallel", lambda model: model)
    assert on_cuda(TINY).graph is None


def test_a_cpu_has_no_graph(noise: Dataset) -> None:
    state = state_of(build(TINY), RECIPE)
    assert Step(state, feed_of(state, noise), RECIPE).graph is None


# The graph: a stand-in on the CPU that, like a CUDA graph, knows operations and memory and nothing of Python.


class Recording(TorchDispatchMode):
    """Keeps every operation with the tensors that it read and wrote; a replay does all of them on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, written in self.calls:
            for old, new in zip(written, tensors(func(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def recorder(state: State, recordings: list[Recording]) -> Capture:
    def capture(step: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        before = state.tensors()
        recordings.append(Recording())
        with recordings[-1]:
            figures = step()
        state.load(before, state.step)  # a graph is recorded without being run
        return recordings[-1].replay, figures

    return capture


def feed_of(state: State, data: Dataset, recipe: Recipe = RECIPE) -> Resident:
    return Resident(data, recipe, torch.device("cpu"), memory_format(state.model))


Taken = StepsTaken | EpochTested


def trained(state: State, data: Dataset, recipe: Recipe = RECIPE) -> Iterator[Taken]:
    events = fit(state, feed_of(state, data, recipe), recipe)
    return (event for event in events if not isinstance(event, BatchTested))


def flat(events: list[Taken]) -> list[dict]:
    """A step or a test each."""
    return [
        figures(one)
        for event in events
        for one in (event.rows.view(np.recarray) if isinstance(event, StepsTaken) else [event])
    ]


def last_step(event: Taken) -> int:
    return int(event.rows["step"][-1]) if isinstance(event, StepsTaken) else event.step


@pytest.mark.parametrize("limit", [1, 5])
@pytest.mark.parametrize("recipe", [RECIPE, dataclasses.replace(RECIPE, schedule="steps", augment=False, ema=0.0)])
def test_a_replayed_step_is_bit_for_bit_the_step(
    noise: Dataset, recipe: Recipe, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = state_of(build(TINY), recipe)
    expected = flat(list(trained(eager, noise, recipe)))
    state, recordings = state_of(build(TINY), recipe), list[Recording]()

    def graphed(*args: Any) -> Step:
        step = Step(*args)
        step.graph = Graph(recorder(state, recordings))
        return step

    monkeypatch.setattr(trainer, "Step", graphed)
    monkeypatch.setattr(trainer, "UNREAD", {"cpu": limit})
    assert flat(list(trained(state, noise, recipe))) == expected
    assert len(recordings) == 1
    assert len(expected) == 2 * PER_EPOCH + 2
    assert same(state.tensors(), eager.tensors())


# Records fetched several at a time, as where a fetching waits for the device.


def test_records_that_come_several_at_a_time_are_those_that_come_one_by_one(
    noise: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    single, at_step = state_of(build(TINY), RECIPE), {}
    expected = []
    for record in trained(single, noise):
        expected.append(record)
        at_step[single.step] = single.tensors()
    monkeypatch.setattr(trainer, "UNREAD", {"cpu": 4})
    state, found = state_of(build(TINY), RECIPE), []
    for record in trained(state, noise):
        found.append(record)
        assert state.step == last_step(record)
        assert same(state.tensors(), at_step[state.step])
    assert [len(record.rows) if isinstance(record, StepsTaken) else "test" for record in found] == [4, 3, "test"] * 2
    assert flat(found) == flat(expected)
    assert all((record.rows["seconds"] > 0).all() for record in found if isinstance(record, StepsTaken))


def test_a_training_stopped_between_two_fetches_goes_on_exactly(
    noise: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "UNREAD", {"cpu": 4})
    whole = state_of(build(TINY), RECIPE)
    expected = flat(list(trained(whole, noise)))
    stopped, again = state_of(build(TINY), RECIPE), state_of(build(TINY, seed=99), RECIPE)
    next(trained(stopped, noise))
    again.load(stopped.tensors(), stopped.step)
    assert flat(list(trained(again, noise))) == expected[4:]
    assert same(again.tensors(), whole.tensors())


class Breaks(nn.Module):
    """A net whose logits are no numbers at its training step number `at`, and only there."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.net, self.at, self.calls = build(TINY), at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.net(x) * (torch.nan if self.calls == self.at else 1.0)


@pytest.mark.parametrize("at", [5, 6, 7, 10])
def test_a_divergence_among_several_steps_gives_the_good_ones_and_keeps_their_weights(
    noise: Dataset, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps come as 1-4, 5-7, a test, 8-11, ...: 5 is the first of its group, 6 has one after it, 7 is the last."""
    reference, expected = state_of(Breaks(99), RECIPE), []
    for record in trained(reference, noise):
        expected.append(record)
        if reference.step == at - 1:
            break
    monkeypatch.setattr(trainer, "UNREAD", {"cpu": 4})
    state, found = state_of(Breaks(at), RECIPE), list[Taken]()
    records = trained(state, noise)
    with pytest.raises(DivergedError, match=rf"The loss became nan at step {at}\."):
        found.extend(records)
    assert flat(found) == flat(expected)
    assert state.step == at - 1
    left, wanted = state.tensors(), reference.tensors()
    learnt = [name for name, _ in reference.model.named_parameters()]
    assert all(
        torch.equal(left[f"{kind}.{n}"], wanted[f"{kind}.{n}"]) for kind in ("model", "momentum") for n in learnt
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_a_gpu_a_run_a_second_one_and_a_resumed_one_agree(noise: Dataset) -> None:
    """Graphs, several steps at a time and all; sums there have no fixed order, so not to the last bit."""
    cuda = torch.device("cuda")

    def state(seed: int) -> State:
        return State(accelerate(build(TINY, seed, cuda), "cuda", RECIPE.precision), RECIPE)

    def train(state: State, epochs: int = RECIPE.epochs) -> dict[str, Tensor]:
        feed = Resident(noise, RECIPE, cuda, memory_format(state.model))
        for record in fit(state, feed, RECIPE):
            if isinstance(record, EpochTested) and record.epoch == epochs:
                break
        return state.tensors()

    first, second, half, resumed = state(3), state(3), state(3), state(99)
    wanted = train(first)
    train(half, epochs=1)
    resumed.load(half.tensors(), half.step)
    for found in (train(second), train(resumed)):
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)
