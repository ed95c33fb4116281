"""Which pixels of the input a value of a map can depend on: receptive field and stride, operation by operation."""

from typing import Any, NamedTuple


class Sight(NamedTuple):
    """What one element of a map sees along one side of the input: pixels place * jump + first .. + last."""

    first: int
    last: int
    jump: int

    def past(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Sight":
        """After a convolution or pooling."""
        start = self.first - padding * self.jump
        return Sight(start, start + (kernel - 1) * dilation * self.jump + self.last - self.first, self.jump * stride)

    def seen_through(self, unit: "Sight") -> "Sight":
        """The same of a unit's layer, whose own sight counts from the unit's input."""
        return Sight(self.first + unit.first * self.jump, self.last + unit.last * self.jump, self.jump * unit.jump)


Sights = tuple[Sight, ...] | None  # one per side; None: the whole input


def after(op: str, args: tuple[Any, ...], sight: tuple[Sight, ...]) -> Sights:
    """What the result of one of PyTorch's operations sees, where its first argument is a map that sees `sight`."""
    dims = len(sight)
    if op in ("mean", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d") or "upsample" in op:
        return None
    if op == "convolution":
        _, weight, _, stride, padding, dilation, transposed, *_ = args
        sides = weight.shape[2:], stride, padding, dilation
        return None if transposed else tuple(s.past(*values) for s, *values in zip(sight, *sides, strict=True))
    if "pool" in op:
        kernel = list(args[1])
        stride = list(args[2]) if len(args) > 2 and args[2] else kernel
        padding = list(args[3]) if len(args) > 3 else [0]
        windows = ((values * dims)[:dims] for values in (kernel, stride, padding))
        return tuple(s.past(*values) for s, *values in zip(sight, *windows, strict=True))
    if op == "slice" and len(args) > 4 and args[1] > 1:
        return tuple(s.past(1, args[4], 0) if side == args[1] - 2 else s for side, s in enumerate(sight))
    return sight
