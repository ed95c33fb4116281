"""Where the bytes of a training step go: weights, gradients, optimiser, what autograd saves, and the peak of it all.

Every unlike part of the net runs forward and backward on the meta device while the storages that live are counted: no
memory is taken. What kernels borrow inside (oneDNN's and cuDNN's workspaces) is in no prediction.
"""

import math
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnet.costs.profiler import folded
from resnet.devices import DTYPES
from resnet.errors import Refused, choose
from resnet.files import ROOT
from resnet.limits import MAX_BATCH
from resnet.nets.codes import from_json, to_json
from resnet.nets.model import Part, build, memory_format, parts
from resnet.nets.passes import forward_backward
from resnet.nets.spec import NetSpec

# What each keeps: tensors as large as the weights, and single numbers per weight tensor.
OPTIMIZERS = {"sgd": (0, 0), "sgd momentum": (1, 0), "adam": (2, 1), "adamw": (2, 1)}
PRECISIONS = tuple(DTYPES)


class StageBytes(NamedTuple):
    """One stage of a training step; `saved`: what its layers keep for the backward pass, its outputs included."""

    stage: str
    weights: int
    gradients: int
    optimizer: int
    buffers: int
    saved: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step of `batch` images, and of inference.

    `peak` is the most that is alive at once, at `peak_at` (a layer or block and the direction); gradients of the step
    before live until its forward pass is over, as in resnet.train.step.
    """

    batch: int
    optimizer: str
    precision: str
    input: int  # the images, float32
    rows: tuple[StageBytes, ...]
    peak: int
    peak_at: str
    inference_peak: int

    def stages(self) -> pd.DataFrame:
        """One row per stage, bytes."""
        return pd.DataFrame(self.rows, columns=StageBytes._fields)

    @property
    def saved(self) -> int:
        """What autograd keeps between forward and backward, without the images themselves."""
        return sum(row.saved for row in self.rows)

    @property
    def fixed(self) -> int:
        """Weights, gradients, optimiser and buffers: what no batch size changes."""
        return sum(sum(row[1:5]) for row in self.rows)


class _Book(TorchDispatchMode):
    """Adds up the storages that operations make and that still live; those in `own` are not counted."""

    def __init__(self, own: Iterable[int]) -> None:
        super().__init__()
        self.alive: dict[int, Any] = dict.fromkeys(own)
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive[key] = weakref.ref(storage, lambda _: self._leave(key, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _leave(self, key: int, size: int) -> None:
        del self.alive[key]
        self.live -= size


class _Autocast(TorchFunctionMode):
    """torch.autocast to bfloat16, which leaves the meta device alone; like it, this keeps the copies of weights."""

    casts = (torch.conv2d, torch.conv3d, F.linear)

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*(map(self._cast, args) if func in self.casts else args), **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        copy = value.to(torch.bfloat16)
        if isinstance(value, nn.Parameter):
            self.copies.append(copy)
        return copy


class _Loss(nn.Module):
    """Mean cross-entropy, as `forward_backward` takes it."""

    def forward(self, logits: Tensor) -> Tensor:
        labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits.float(), labels)


class _Unit(NamedTuple):
    """Bytes of one part of the net, run on its own; its input is in none of them."""

    weights: int
    tensors: int  # of weights
    buffers: int
    inner: int  # saved for backward, but for input and output
    saves_input: bool
    saves_output: bool
    passes: bool  # its output is its input, seen another way
    forward: int  # the most that lives, its output included
    backward: int  # the same, with the gradients of its weights and its input
    inference: int
    copies: int  # of weights in bfloat16, which inference keeps
    output: Tensor

    @property
    def out(self) -> int:
        return 0 if self.passes else _size([self.output])


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(unit: nn.Module, x: Tensor, precision: str) -> _Unit:
    """Forward, backward and inference of one unit on the meta device."""
    weights, buffers = list(unit.parameters()), list(unit.buffers())
    own = {_key(tensor) for tensor in (*weights, *buffers, x)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with _Book(own) as book:
        with saved_tensors_hooks(pack, lambda tensor: tensor), _casting(precision):
            out = unit.train()(x)
        forward, key, shape, dtype = book.peak, _key(out), out.shape, out.dtype
        loss = (out * 1.0).sum()  # so that dL/dout is the engine's own, which frees it as soon as it is used
        del out
        book.peak = book.live
        loss.backward()
    with torch.no_grad(), _Book(own) as inference, _casting(precision) as cast:
        unit.eval()(x)
    inner = sum(size for storage, size in saved.items() if storage not in own | {key})
    passes, output = key == _key(x), torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)
    return _Unit(
        _size(weights), len(weights), _size(buffers), inner, _key(x) in saved, key in saved, passes, forward,
        book.peak, inference.peak, _size(cast.copies) if cast else 0, output,
    )  # fmt: skip


def _casting(precision: str) -> Any:
    return _Autocast() if precision == "bf16" else nullcontext()


def _units(spec: NetSpec, batch: int, precision: str) -> tuple[list[Part], list[_Unit]]:
    """The chain from stem to loss, and what each part takes; like parts on like input run once."""

    def run(part: Part, x: Tensor) -> tuple[_Unit, Tensor]:
        unit = _run(part.build(), x, precision)
        return unit, unit.output

    x = torch.empty(batch, *spec.input_shape, device="meta")  # the images need no gradient
    with torch.device("meta"):
        chain, units = zip(*folded([*parts(spec), Part("loss", "head", _Loss())], x, run), strict=True)
    return list(chain), list(units)


def _check(batch: int, optimizer: str, precision: str) -> None:
    if type(batch) is not int or not 1 <= batch <= MAX_BATCH:
        raise Refused("A batch is a whole number of images.", repr(batch), f"1 to {MAX_BATCH:,}")
    choose("optimiser", optimizer, OPTIMIZERS)
    choose("precision", precision, DTYPES)


def memory(spec: NetSpec, batch: int, optimizer: str = "sgd", precision: str = "fp32") -> Memory:
    """What a training step of `batch` images takes, by stage and at its peak, with a fused optimiser. Refused."""
    _check(batch, optimizer, precision)
    chain, units = _units(spec, batch, precision)
    stays = _stays(units)
    large, single = OPTIMIZERS[optimizer]
    stages: dict[str, list[int]] = {}
    for part, unit, stay in zip(chain, units, stays, strict=True):
        state, saved = large * unit.weights + 4 * single * unit.tensors, unit.inner + stay * unit.out
        values = unit.weights, unit.weights, state, unit.buffers, saved
        sums = stages.setdefault(part.stage, [0] * len(values))
        sums[:] = map(sum, zip(sums, values, strict=True))
    rows = tuple(StageBytes(stage, *sums) for stage, sums in stages.items())
    images = 4 * batch * math.prod(spec.input_shape)
    resting = images + sum(row.weights + row.buffers for row in rows)
    peak, where = max(_peaks(chain, units, stays))
    return Memory(
        batch=batch,
        optimizer=optimizer,
        precision=precision,
        input=images,
        rows=rows,
        peak=resting + sum(row.optimizer for row in rows) + peak,
        peak_at=where,
        inference_peak=resting + max(_inference(chain, units)),
    )


def _stays(units: Sequence[_Unit]) -> list[bool]:
    """Whether each unit's output lives until the backward pass: because it or a later one saves it."""
    stays, later = [], False
    for unit in reversed(units):
        stays.append(unit.saves_output or later)
        later = unit.saves_input or (unit.passes and stays[-1])
    return stays[::-1]


def _peaks(chain: Sequence[Part], units: Sequence[_Unit], stays: Sequence[bool]) -> Iterator[tuple[int, str]]:
    """The most that lives while each unit runs, without weights, buffers, optimiser and images; and when that is."""
    old = later = sum(unit.weights for unit in units)  # gradients: of the step before, of units yet to go backward
    before = loose = 0  # saved by the units before; the input where nobody saves it
    for part, unit, stay in zip(chain, units, stays, strict=True):
        later -= unit.weights
        yield old + before + loose + unit.forward, f"{part.name}, forward"
        yield before + later + unit.backward, f"{part.name}, backward"
        before += unit.inner + stay * unit.out
        loose = 0 if stay else unit.out
    yield old, "optimiser"


def _inference(chain: Sequence[Part], units: Sequence[_Unit]) -> Iterator[int]:
    """The same in eval mode under no_grad: a unit, its input, its stage's input, the copies of weights so far."""
    copies = entered = before = 0
    stage = ""
    for part, unit in zip(chain, units, strict=True):
        held = entered if part.block and part.stage == stage else 0
        entered, stage = entered if held else before, part.stage
        yield copies + held + before + unit.inference
        copies, before = copies + unit.copies, _size([unit.output])


def measure_peak(
    spec: NetSpec, batch: int, device: str = "cpu", optimizer: str = "sgd", precision: str = "fp32"
) -> int:
    """Bytes at the peak of two real training steps, weights and optimiser included, as PyTorch's allocator has it.

    On CUDA torch.cuda.max_memory_allocated. On the CPU the allocations that torch.profiler reports in a process of its
    own, with what oneDNN borrows there for a moment (up to four times the largest weight); not the resident set, which
    has PyTorch itself in it and what malloc holds back. Refused where the step does not fit, or on other devices.
    """
    _check(batch, optimizer, precision)
    if device == "cuda":
        return _on_cuda(spec, batch, optimizer, precision)
    if device != "cpu":
        raise Refused("No peak can be measured on this device.", repr(device), "cpu or cuda")
    call = [sys.executable, "-m", "resnet.costs.memory", to_json(spec), str(batch), optimizer, precision]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Refused(f"The step did not run to its end: {reason[0]}", f"batch {batch}", "a smaller one")
    return int(done.stdout.split()[-1])


def _on_cuda(spec: NetSpec, batch: int, optimizer: str, precision: str) -> int:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        train_twice(spec, batch, "cuda", optimizer, precision)
    except torch.OutOfMemoryError as error:
        raise Refused(f"The step did not fit: {error}", f"batch {batch}", "a smaller one") from None
    return torch.cuda.max_memory_allocated() - before


def allocated_peak(work: Callable[[], object]) -> int:
    """Bytes: the highest sum of all of PyTorch's allocations and frees on the CPU in this process while `work` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def train_twice(spec: NetSpec, batch: int, device: str, optimizer: str, precision: str) -> None:
    """Two steps as resnet.train.step takes them, on noise: the second one has gradients and momentum from the first."""
    model = build(spec, device=device).train()
    model.to(memory_format=memory_format(model))
    state = _optimizer(model, optimizer)
    x = torch.rand(batch, *spec.input_shape, device=device).contiguous(memory_format=memory_format(model))
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    for _ in range(2):
        forward_backward(model, x, labels, precision)
        state.step()


def _optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    if name.startswith("sgd"):
        momentum = 0.9 * (name == "sgd momentum")
        return torch.optim.SGD(model.parameters(), lr=1e-9, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(model.parameters(), lr=1e-9, fused=True)


if __name__ == "__main__":  # a measurement, in a process of its own
    net, size, *how = sys.argv[1:]
    sys.stdout.write(f"\n{allocated_peak(lambda: train_twice(from_json(net), int(size), 'cpu', *how))}\n")
