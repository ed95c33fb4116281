"""What every layer of a net makes, costs and sees, measured on the meta device: exact, and no memory is taken.

MACs are the multiply-adds of convolutions and linear layers for one image, nothing else.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from resnet.costs.receptive import Sight, Sights, after
from resnet.errors import Refused
from resnet.nets.blocks import BlockPlan
from resnet.nets.model import parts
from resnet.nets.spec import NetSpec

FLOPS_PER_MAC = 2

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
    (pixels of the input a value can depend on, the whole input's sides after a global pool) and `stride` (pixels
    between neighbours) are per side; squeeze-and-excitation's gate, which sees all, is left out of them.
    """

    name: str
    stage: str
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


@dataclass(frozen=True)
class Profile:
    """The rows of a net in the order in which they run, for one input of (C, H, W) or (C, T, H, W)."""

    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def params(self) -> int:
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def flops(self) -> int:
        """One multiply-add counts as two operations."""
        return FLOPS_PER_MAC * self.macs

    @property
    def training_macs(self) -> int:
        """Of one image forward and backward: dL/dW costs the forward again, and so does dL/dx where it is needed."""
        return sum(row.macs * (2 if row.first else 3) for row in self.rows)

    @property
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    def layers(self) -> pd.DataFrame:
        """One row per layer, the columns of `Row`, shapes as text."""
        frame = pd.DataFrame(self.rows, columns=Row._fields)
        shapes = ("out_shape", "receptive_field", "stride")
        return frame.assign(**{name: list(map(shape_text, frame[name])) for name in shapes})

    def stages(self) -> pd.DataFrame:
        """One row per stage: its convolutions and linear layers, the last output's shape, and sums of the costs."""
        groups = self.layers().assign(weights=lambda frame: frame.op.isin(["conv", "linear"]))
        last = {"out_shape": "last", "receptive_field": "last", "stride": "last"}
        columns = {"weights": "sum", **last, "params": "sum", "macs": "sum", "activations": "sum"}
        frame = groups.groupby("stage", sort=False).agg(columns).rename(columns={"weights": "layers"})
        return frame.reset_index()

    def blocks(self, folded: bool = False) -> pd.DataFrame:
        """One row per box of the diagram (stem, each block, head) with its shortcut's kind, "" where there is none.

        side is the height of the output's map in pixels, 1 for a vector; kernels lists the branch's convolutions.
        Folded, a run of equal blocks is one row, `times` its length; the costs stay those of one block.
        """
        boxes = [list(rows) for _, rows in groupby(self.rows, _box)]
        frame = pd.DataFrame(
            {
                "name": [_box(rows[0]) for rows in boxes],
                "stage": [rows[-1].stage for rows in boxes],
                "out_shape": [shape_text(rows[-1].out_shape) for rows in boxes],
                "side": [rows[-1].out_shape[-1] if len(rows[-1].out_shape) > 1 else 1 for rows in boxes],
                "params": [sum(row.params for row in rows) for rows in boxes],
                "macs": [sum(row.macs for row in rows) for rows in boxes],
                "shortcut": [_shortcut_kind(rows) for rows in boxes],
                "kernels": [", ".join(row.kernel for row in rows if _on_branch(row)) for rows in boxes],
            }
        )
        if not folded:
            return frame.assign(times=1)
        unlike = (frame.drop(columns="name") != frame.drop(columns="name").shift()).any(axis=1)
        groups = frame.groupby(unlike.cumsum())
        return groups.first().assign(times=groups.size()).reset_index(drop=True)


def _box(row: Row) -> str:
    """The block that a layer belongs to, or its stage."""
    match = re.match(r"layer\d+\.\d+", row.name)
    return match[0] if match else row.stage


def _on_branch(row: Row) -> bool:
    return row.op == "conv" and ".downsample" not in row.name and ".se." not in row.name


def _shortcut_kind(rows: list[Row]) -> str:
    """From the layers of one block: what stands on its shortcut, "" where nothing is added."""
    if all(row.kind != "Add" for row in rows):
        return ""
    kinds = [row.kind for row in rows if ".downsample" in row.name]
    if "ZeroPad" in kinds:
        return "zero-pad (option A)"
    if any("Pool" in kind for kind in kinds):
        return "average pool, projection (D)"
    return "projection (option B, C)" if kinds else "identity"


def shape_text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def stage_of(name: str) -> str:
    """stem, stage1..stageN or head, from a module's name."""
    match = re.match(r"layer(\d+)", name)
    if match:
        return f"stage{match[1]}"
    return "head" if re.match(r"(bn_last|act_last|avgpool|flatten|fc|classifier|head)", name) else "stem"


class ProfileError(Refused):
    """The net cannot run on that input; `rows` are the layers that ran before, `layer` the one that could not."""

    def __init__(self, layer: str, reason: str, rows: Sequence[Row]) -> None:
        super().__init__(f"The net stops at {layer or 'its first layer'}: {reason.splitlines()[0]}")
        self.layer, self.rows = layer, tuple(rows)


def _op_class(name: str) -> str:
    """The key of OPS for an operation's name, "" for one that only looks at a tensor another way."""
    if name in _VIEWS:
        return ""
    return next((op for op, words in OPS.items() if any(word in name for word in words)), "other")


class _Operation(NamedTuple):
    op: str
    macs: int
    reads: int


class _Recorder(TorchDispatchMode):
    """Runs one unit and gives its rows: an operation belongs to the innermost module that is running."""

    def __init__(self, unit: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.open: list[tuple[str, nn.Module, list[_Operation]]] = []  # the modules that are running
        self.counted: set[int] = set()  # parameters: a module that runs twice has them once
        self.alive: list[Tensor] = [x]  # a tensor that is gone could leave its id to another
        self.batch, self.dims = len(x), x.dim() - 2
        self.sights: dict[int, Sights] = {id(x): (Sight(0, 0, 1),) * self.dims}
        self.image, self.touched = id(x), False
        self.handles = []
        for name, module in unit.named_modules():
            self.handles.append(module.register_forward_pre_hook(lambda m, args, name=name: self._enter(name, m)))
            self.handles.append(module.register_forward_hook(self._leave))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, name: str, module: nn.Module) -> None:
        self.open.append((name, module, []))
        self.touched = False

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        name, _, operations = self.open.pop()
        if not any(module.children()) and not isinstance(module, nn.Identity) and isinstance(out, Tensor):
            none = _Operation("none", 0, out[:1].numel())
            main = max(operations, key=lambda o: (o.macs, o.op != "copy"), default=none)
            self._row(name, module, main.op, sum(o.macs for o in operations), main.reads, out)
        elif any(id(p) not in self.counted for p in module.parameters(recurse=False)) and isinstance(out, Tensor):
            self._row(name, module, "none", 0, 0, out)  # operations of its own took no row, yet it has parameters

    def _row(self, name: str, module: nn.Module, op: str, macs: int, reads: int, out: Tensor) -> None:
        own = [p for p in module.parameters(recurse=False) if id(p) not in self.counted]
        self.counted |= {id(p) for p in own}
        leaf = not any(module.children())
        size = getattr(module, "kernel_size", ()) if leaf else ()
        kernel = shape_text(size if isinstance(size, tuple) else (size,) * self.dims)
        seen = self.sights.get(id(out))
        field = tuple(s.last - s.first + 1 for s in seen or ())
        stride = tuple(s.jump for s in seen or ())
        self.rows.append(
            Row(
                name,
                "",
                type(module).__name__ if leaf or op == "none" else op,
                op,
                kernel,
                tuple(out.shape[1:]),
                sum(p.numel() for p in own),
                macs,
                out[:1].numel(),
                reads,
                op in ("conv", "linear") and getattr(module, "bias", None) is not None,
                self.touched,
                field,
                stride,
            )
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        result = out[0] if isinstance(out, tuple | list) and out else out
        inputs = [a for a in (args[0] if args and isinstance(args[0], list | tuple) else args) if isinstance(a, Tensor)]
        if not (isinstance(result, Tensor) and inputs and self.open):
            return out
        packet = func.overloadpacket
        self._look(packet.__name__, args, inputs, out)
        op = _op_class(packet.__name__)
        if not op:
            return out
        macs = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2 if packet in flop_registry else 0
        read = inputs[1] if packet.__name__ == "addmm" else inputs[0]  # addmm's first one is the bias
        macs, reads = macs // self.batch, read.numel() // self.batch
        self.touched = self.touched or any(id(i) == self.image for i in inputs)
        name, module, operations = self.open[-1]
        if any(module.children()):  # written out in a forward, not a layer of its own
            self._row(name, module, op, macs, reads, result)
            self.touched = False
        else:
            operations.append(_Operation(op, macs, reads))
        return out

    def _look(self, op: str, args: Any, inputs: list[Tensor], out: Any) -> None:
        """Note what the results see of the input."""
        known = [self.sights[id(i)] for i in inputs if id(i) in self.sights]
        if not known:
            return
        maps = [sight for sight in known if sight]
        sight: Sights = None
        if maps:
            sides = zip(*maps, strict=True)
            sight = tuple(Sight(min(s.first for s in a), max(s.last for s in a), max(s.jump for s in a)) for a in sides)
        sight = after(op, args, sight) if sight else None
        for result in out if isinstance(out, tuple | list) else (out,):
            if isinstance(result, Tensor):
                self.alive.append(result)
                flattened = result.dim() == 2 and len(result) == self.batch  # a linear layer now reads all places
                self.sights[id(result)] = None if flattened else sight


def _run(unit: nn.Module, x: Tensor) -> tuple[list[Row], Tensor, Sights]:
    """The rows of a unit in running order, named and seen from the unit, and its output. ProfileError."""
    recorder = _Recorder(unit, x)
    try:
        with torch.no_grad(), recorder:
            out = unit(x)
        return recorder.rows, out, recorder.sights.get(id(out))
    except (RuntimeError, ValueError, IndexError) as error:
        layer = recorder.open[-1][0] if recorder.open else ""
        raise ProfileError(layer, str(error), recorder.rows) from error
    finally:
        recorder.close()


def _units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that run one after the other: a chain's members, a block or any other net as a whole."""
    if not isinstance(module, nn.Sequential):
        yield prefix, module
        return
    for name, child in module.named_children():
        yield from _units(child, f"{prefix}.{name}" if prefix else name)


def _chain(units: Iterable[tuple[str, Any]], input_shape: tuple[int, ...]) -> Profile:
    """Profile units that run one after the other, modules or plans of blocks; equal ones on equal input run once."""
    x = torch.empty(2, *input_shape, device="meta")  # of one, PyTorch norms no single value
    sides = tuple(input_shape[1:])
    entered: Sights = (Sight(0, 0, 1),) * len(sides)
    rows: list[Row] = []
    known: dict[Any, tuple[list[Row], Tensor, Sights]] = {}
    for name, unit in units:
        key = unit.key if isinstance(unit, BlockPlan) else repr(unit), x.shape
        try:
            if key not in known:
                known[key] = _run_block(unit.key, x.shape) if isinstance(unit, BlockPlan) else _run(unit, x)
        except ProfileError as error:
            placed = [_placed(row, name, entered, sides, not rows) for row in error.rows]
            raise ProfileError(_full(name, error.layer), str(error.__cause__), [*rows, *placed]) from error.__cause__
        unit_rows, x, left = known[key]
        first = not rows
        rows += [_placed(row, name, entered, sides, first) for row in unit_rows]
        same = entered and left and len(entered) == len(left)
        entered = tuple(map(Sight.seen_through, entered or (), left or ())) if same else None
    return Profile(input_shape, tuple(rows))


@lru_cache(maxsize=2048)
def _run_block(key: tuple[BlockPlan, bool], shape: torch.Size) -> tuple[list[Row], Tensor, Sights]:
    """`_run` of a block; kept, so that an edit of a net runs only the blocks that it changes."""
    with torch.device("meta"):
        return _run(key[0].build().eval(), torch.empty(shape))


def _full(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _placed(row: Row, prefix: str, entered: Sights, sides: tuple[int, ...], first: bool) -> Row:
    """A unit's row as the whole net has it."""
    name = _full(prefix, row.name)
    field, stride = sides, sides  # behind a global pool, or where the number of sides has changed
    if entered and len(entered) == len(row.stride):
        field = tuple(
            s.last - s.first + 1 + (f - 1) * s.jump for s, f in zip(entered, row.receptive_field, strict=True)
        )
        stride = tuple(s.jump * j for s, j in zip(entered, row.stride, strict=True))
    return row._replace(
        name=name, stage=stage_of(name), first=row.first and first, receptive_field=field, stride=stride
    )


def profile_module(model: nn.Module, input_shape: tuple[int, ...]) -> Profile:
    """Profile any net whose parameters are on the meta device, in eval mode, for one input of shape (C, H, W).

    A block with the description and the input shape of an earlier one is not run again: its rows are that one's.
    ProfileError where the net cannot run on that input.
    """
    training = {module for module in model.modules() if module.training}
    try:
        return _chain(_units(model.eval()), input_shape)
    finally:
        for module in training:
            module.training = True


def profile(spec: NetSpec) -> Profile:
    """Profile the net that `spec` describes at its own image size; only unlike blocks are built."""
    with torch.device("meta"):
        units = [(name, part.eval() if isinstance(part, nn.Module) else part) for name, part in parts(spec)]
    return _chain(units, spec.input_shape)
