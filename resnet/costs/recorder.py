"""One unit of a net, run with hooks on the meta device: a row per layer, with its shape, costs and receptive field."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from resnet.costs.receptive import Fields, ReceptiveFields
from resnet.nets.blocks import Block

# What a layer does, by what stands in the names of PyTorch's operations; the first one found counts.
OPS: dict[str, tuple[str, ...]] = {
    "conv": ("convolution",),
    "linear": ("addmm", "bmm", "mm", "attention"),
    "norm": ("norm",),
    "activation": ("relu", "gelu", "silu", "sigmoid", "hardtanh", "hardswish", "softmax", "tanh"),
    "pool": ("pool", "mean"),
    "upsample": ("upsample",),
    "add": ("add",),
    "multiply": ("mul", "div"),
    "copy": ("cat", "pad", "stack", "roll", "index", "clone", "copy"),
}
_VIEWS = ("view", "t", "transpose", "permute", "slice", "select", "expand", "squeeze", "unsqueeze", "detach", "alias",
          "split", "split_with_sizes", "unbind", "chunk", "reshape", "flatten", "empty", "zeros", "ones", "arange",
          "full", "_unsafe_view", "lift_fresh", "scalar_tensor")  # fmt: skip


class Row(NamedTuple):
    """One layer: shapes without the batch, costs for one image.

    `activations` = elements of its output, `reads` = of its first input; `biased`: a convolution or linear layer adds
    one; `first` where it reads the image itself, so that training needs no gradient of its input. `receptive_field`
    (pixels of the input a value can depend on, the whole input's sides after a global pool), `stride` (pixels
    between neighbours) and `offset` (the first of these pixels for the map's first value, negative in the padding) are
    per side; squeeze-and-excitation's gate, which sees all, is left out of them.
    """

    name: str
    stage: str
    block: str  # the name of its block, "" in stem and head
    role: str  # in its block, as `Block.role` has it; elsewhere the stage
    shortcut: str  # of its block: "identity", one of SHORTCUTS, or "" for none
    kind: str
    op: str  # a key of OPS, "none" for layers that only pass on, "other" for what no rule knows
    kernel: str
    out_shape: tuple[int, ...]
    params: int
    macs: int
    activations: int
    reads: int
    biased: bool
    first: bool
    receptive_field: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]

    def window(self, place: Sequence[int]) -> list[tuple[int, int]]:
        """The first and the last pixel of each side that the map's value at `place` depends on, padding included."""
        starts = [first + at * step for first, at, step in zip(self.offset, place, self.stride, strict=True)]
        return [(start, start + size - 1) for start, size in zip(starts, self.receptive_field, strict=True)]


def shape_text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _op_class(name: str) -> str:
    """The key of OPS for an operation's name, "" for one that only looks at a tensor another way."""
    if name in _VIEWS:
        return ""
    return next((op for op, words in OPS.items() if any(word in name for word in words)), "other")


class _Operation(NamedTuple):
    op: str
    macs: int
    reads: int
    first: bool = False  # it reads the image


class _Running(NamedTuple):
    """A module that is running, and the operations that it called itself."""

    name: str
    module: nn.Module
    operations: list[_Operation]


class _Recorder(TorchDispatchMode):
    """Runs one unit and gives its rows: an operation belongs to the innermost module that is running."""

    def __init__(self, unit: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.running: list[_Running] = []
        self.counted: set[nn.Parameter] = set()  # a module that runs twice has its parameters once
        self.image, self.fields = x, ReceptiveFields(x)
        self.handles = []
        for name, module in unit.named_modules():
            enter = partial(self._enter, name)
            self.handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(self._leave)]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self.running.append(_Running(name, module, []))

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        """A row for a module without children, and for one whose parameters no row has yet."""
        operations = self.running[-1].operations
        if not isinstance(out, Tensor):
            pass
        elif not any(module.children()) and not isinstance(module, nn.Identity):
            self._row(_joined(operations) if operations else _Operation("none", 0, out[:1].numel()), out)
        elif any(parameter not in self.counted for parameter in module.parameters(recurse=False)):
            self._row(_Operation("none", 0, 0), out)
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        result = out[0] if isinstance(out, tuple | list) and out else out
        inputs = [a for a in (args[0] if args and isinstance(args[0], list | tuple) else args) if isinstance(a, Tensor)]
        if not (isinstance(result, Tensor) and inputs and self.running):
            return out
        packet = func.overloadpacket
        self.fields.note(packet.__name__, args, inputs, out)
        if op := _op_class(packet.__name__):
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out) if packet in flop_registry else 0
            self._operation(packet.__name__, op, flops // 2, inputs, result)
        return out

    def _operation(self, name: str, op: str, macs: int, inputs: Sequence[Tensor], result: Tensor) -> None:
        read = inputs[1] if name == "addmm" else inputs[0]  # addmm's first one is the bias
        first, batch = any(tensor is self.image for tensor in inputs), len(self.image)
        operation = _Operation(op, macs // batch, read.numel() // batch, first)
        if any(self.running[-1].module.children()):  # written out in a forward, not a layer of its own
            self._row(operation, result)
        else:
            self.running[-1].operations.append(operation)

    def _row(self, operation: _Operation, out: Tensor) -> None:
        name, module, _ = self.running[-1]
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in self.counted]
        self.counted.update(own)
        leaf, fields = not any(module.children()), self.fields.of(out) or ()
        role, shortcut = self._place()
        self.rows.append(
            Row(
                name=name,
                stage="",  # stage and block are the whole net's to say
                block="",
                role=role,
                shortcut=shortcut,
                kind=type(module).__name__ if leaf or operation.op == "none" else operation.op,
                op=operation.op,
                kernel=_kernel(module, out.dim() - 2) if leaf else "",
                out_shape=tuple(out.shape[1:]),
                params=sum(parameter.numel() for parameter in own),
                macs=operation.macs,
                activations=out[:1].numel(),
                reads=operation.reads,
                biased=operation.op in ("conv", "linear") and getattr(module, "bias", None) is not None,
                first=operation.first,
                receptive_field=tuple(field.pixels for field in fields),
                stride=tuple(field.jump for field in fields),
                offset=tuple(field.first for field in fields),
            )
        )

    def _place(self) -> tuple[str, str]:
        """The running module's role in its residual block, and the block's shortcut; "" outside of blocks."""
        inside = self.running[-1].name
        for name, module, _ in reversed(self.running):
            if isinstance(module, Block):
                return module.role(inside.removeprefix(f"{name}.") if name else inside), module.shortcut_kind
        return "", ""


def _joined(operations: Sequence[_Operation]) -> _Operation:
    """A layer's operations as one: named for what costs most, and a copy only where there is nothing else."""
    main = max(operations, key=lambda operation: (operation.macs, operation.op != "copy"))
    return main._replace(macs=sum(each.macs for each in operations), first=any(each.first for each in operations))


def _kernel(module: nn.Module, dims: int) -> str:
    size = getattr(module, "kernel_size", ())
    return shape_text(size if isinstance(size, tuple) else (size,) * dims)


class Stopped(Exception):
    """A unit could not run: `layer` in it, and the rows before; the cause is PyTorch's error."""

    def __init__(self, layer: str, rows: list[Row]) -> None:
        super().__init__(layer)
        self.layer, self.rows = layer, rows


class Counted(NamedTuple):
    """A unit's rows, named and counted from its own input, and what its output can depend on there."""

    rows: list[Row]
    fields: Fields


def run_unit(unit: nn.Module, x: Tensor) -> tuple[Counted, Tensor]:
    """What the unit counts on x (N, C, ...), both on the meta device, and its output; Stopped."""
    recorder = _Recorder(unit, x)
    try:
        with torch.no_grad(), recorder:
            out = unit(x)
        return Counted(recorder.rows, recorder.fields.of(out)), out
    except (RuntimeError, ValueError, IndexError) as error:
        raise Stopped(recorder.running[-1].name if recorder.running else "", recorder.rows) from error
    finally:
        recorder.close()
