"""Which pixels of the input a value of a map can depend on: receptive field and stride, operation by operation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class ReceptiveField(NamedTuple):
    """Of one element of a map along one side of the input: pixels place * jump + first .. + last."""

    first: int
    last: int
    jump: int

    @property
    def pixels(self) -> int:
        return self.last - self.first + 1

    def after(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "ReceptiveField":
        """That of a convolution's or pooling's output."""
        start = self.first - padding * self.jump
        return ReceptiveField(
            start, start + (kernel - 1) * dilation * self.jump + self.last - self.first, self.jump * stride
        )

    def through(self, unit: "ReceptiveField") -> "ReceptiveField":
        """That of a layer in a unit, where `unit` counts from the unit's input."""
        return ReceptiveField(
            self.first + unit.first * self.jump, self.last + unit.last * self.jump, self.jump * unit.jump
        )


Fields = tuple[ReceptiveField, ...] | None  # one per side; None: the whole input
PIXEL = ReceptiveField(0, 0, 1)


class ReceptiveFields:
    """What each tensor of a running net can depend on, from the input x (N, C, ...) on."""

    def __init__(self, x: Tensor) -> None:
        self.batch = len(x)
        self.alive: list[Tensor] = [x]  # a tensor that is gone could leave its id to another
        self.known: dict[int, Fields] = {id(x): (PIXEL,) * (x.dim() - 2)}

    def of(self, tensor: Tensor) -> Fields:
        return self.known.get(id(tensor))

    def note(self, op: str, args: Sequence[Any], inputs: Sequence[Tensor], out: Any) -> None:
        """What the results of an operation depend on: all that its inputs do, widened by its window."""
        known = [self.known[id(tensor)] for tensor in inputs if id(tensor) in self.known]
        if not known:
            return
        maps = [fields for fields in known if fields]
        fields = after(op, args, tuple(map(_union, zip(*maps, strict=True)))) if maps else None
        for result in out if isinstance(out, tuple | list) else (out,):
            if isinstance(result, Tensor):
                self.alive.append(result)
                flattened = result.dim() == 2 and len(result) == self.batch  # a linear layer now reads all places
                self.known[id(result)] = None if flattened else fields


def _union(fields: Sequence[ReceptiveField]) -> ReceptiveField:
    firsts, lasts, jumps = zip(*fields, strict=True)
    return ReceptiveField(min(firsts), max(lasts), max(jumps))


def after(op: str, args: Sequence[Any], fields: tuple[ReceptiveField, ...]) -> Fields:
    """Of the result of one of PyTorch's operations whose first argument is a map with these fields."""
    dims = len(fields)
    if op in ("mean", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d") or "upsample" in op:
        return None
    if op == "convolution":
        _, weight, _, stride, padding, dilation, transposed, *_ = args
        sides = weight.shape[2:], stride, padding, dilation
        return None if transposed else tuple(f.after(*values) for f, *values in zip(fields, *sides, strict=True))
    if "pool" in op:
        kernel = list(args[1])
        stride = list(args[2]) if len(args) > 2 and args[2] else kernel
        padding = list(args[3]) if len(args) > 3 else [0]
        windows = ((values * dims)[:dims] for values in (kernel, stride, padding))
        return tuple(f.after(*values) for f, *values in zip(fields, *windows, strict=True))
    if op == "slice" and len(args) > 4 and args[1] > 1:
        return tuple(f.after(1, args[4], 0) if side == args[1] - 2 else f for side, f in enumerate(fields))
    return fields
