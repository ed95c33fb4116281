"""What every layer of a net makes, costs and sees, measured on the meta device: exact, and no memory is taken.

MACs are the multiply-adds of convolutions and linear layers for one image, nothing else.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.costs.receptive import PIXEL, Fields, ReceptiveField
from resnet.costs.recorder import Counted, Row, Stopped, run_unit, shape_text
from resnet.errors import Refused
from resnet.nets.blocks import BlockPlan
from resnet.nets.borrow import borrowed
from resnet.nets.model import Part, parts
from resnet.nets.spec import NetSpec

T = TypeVar("T")
FLOPS_PER_MAC = 2


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
        shapes = ("out_shape", "receptive_field", "stride", "offset")
        return frame.assign(**{name: list(map(shape_text, frame[name])) for name in shapes})

    def stages(self) -> pd.DataFrame:
        """One row per stage: its convolutions and linear layers, the last output's shape, and sums of the costs."""
        groups = self.layers().assign(weights=lambda frame: frame.op.isin(["conv", "linear"]))
        last = {"out_shape": "last", "receptive_field": "last", "stride": "last"}
        columns = {"weights": "sum", **last, "params": "sum", "macs": "sum", "activations": "sum"}
        frame = groups.groupby("stage", sort=False).agg(columns).rename(columns={"weights": "layers"})
        return frame.reset_index()

    def blocks(self, folded: bool = False) -> pd.DataFrame:
        """One row per box of the diagram (stem, each block, head) with the key of its shortcut, as in `Row`.

        side is the height of the output's map in pixels, 1 for a vector; kernels lists the branch's convolutions.
        Folded, a run of equal blocks is one row, `times` its length; the costs stay those of one block.
        """
        grouped = groupby(self.rows, lambda row: row.block or row.stage)
        names, boxes = zip(*((name, list(rows)) for name, rows in grouped), strict=True)
        frame = pd.DataFrame(
            {
                "name": names,
                "stage": [rows[-1].stage for rows in boxes],
                "out_shape": [shape_text(rows[-1].out_shape) for rows in boxes],
                "side": [rows[-1].out_shape[-1] if len(rows[-1].out_shape) > 1 else 1 for rows in boxes],
                "params": [sum(row.params for row in rows) for rows in boxes],
                "macs": [sum(row.macs for row in rows) for rows in boxes],
                "shortcut": [rows[0].shortcut for rows in boxes],
                "kernels": [", ".join(row.kernel for row in rows if _on_main_path(row)) for rows in boxes],
            }
        )
        if not folded:
            return frame.assign(times=1)
        unlike = (frame.drop(columns="name") != frame.drop(columns="name").shift()).any(axis=1)
        groups = frame.groupby(unlike.cumsum())
        return groups.first().assign(times=groups.size()).reset_index(drop=True)


def _on_main_path(row: Row) -> bool:
    return row.op == "conv" and row.role not in ("shortcut", "se")


class ProfileError(Refused):
    """The net cannot run on that input; `rows` are the layers that ran before, `layer` the one that could not."""

    def __init__(self, layer: str, reason: str, rows: Sequence[Row]) -> None:
        super().__init__(f"The net stops at {layer or 'its first layer'}: {reason.splitlines()[0]}")
        self.layer, self.rows = layer, tuple(rows)


@lru_cache(maxsize=2048)
def _run_block(key: tuple[BlockPlan, bool], shape: torch.Size) -> tuple[Counted, Tensor]:
    """`run_unit` of a block; kept, so that an edit of a net runs only the blocks that it changes."""
    with torch.device("meta"):
        return run_unit(key[0].build().eval(), torch.empty(shape))


def _run_part(part: Part, x: Tensor) -> tuple[Counted, Tensor]:
    return _run_block(part.made.key, x.shape) if isinstance(part.made, BlockPlan) else run_unit(part.made, x)


def folded(
    chain: Iterable[Part], x: Tensor, run: Callable[[Part, Tensor], tuple[T, Tensor]]
) -> Iterator[tuple[Part, T]]:
    """What `run(part, x) -> result, output` gives for the parts one after the other; equal ones on equal x run once."""
    known: dict[Hashable, tuple[T, Tensor]] = {}
    for part in chain:
        key = part.key, x.shape, x.requires_grad
        if key not in known:
            known[key] = run(part, x)
        result, x = known[key]
        yield part, result


def _profiled(chain: Sequence[Part], input_shape: tuple[int, ...]) -> Profile:
    """Profile parts that run one after the other. ProfileError."""
    x = torch.empty(2, *input_shape, device="meta")  # of one, PyTorch norms no single value
    sides = tuple(input_shape[1:])
    entered: Fields = (PIXEL,) * len(sides)
    rows: list[Row] = []
    done = 0
    try:
        for part, (own, left) in folded(chain, x, _run_part):
            first = not rows
            rows += [_placed(row, part, entered, sides, first) for row in own]
            same = entered and left and len(entered) == len(left)
            entered = tuple(map(ReceptiveField.through, entered or (), left or ())) if same else None
            done += 1
    except Stopped as stop:
        part = chain[done]
        rows += [_placed(row, part, entered, sides, not rows) for row in stop.rows]
        raise ProfileError(_full(part.name, stop.layer), str(stop.__cause__), rows) from stop.__cause__
    return Profile(input_shape, tuple(rows))


def _full(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _placed(row: Row, part: Part, entered: Fields, sides: tuple[int, ...], first: bool) -> Row:
    """A unit's row as the whole net has it."""
    name = _full(part.name, row.name)
    stage, block, role = (part.stage, part.block, part.stage) if part.stage else _by_torchvisions_names(name)
    # After a global pool, or where the number of sides has changed, a value sees all.
    field, stride, offset = sides, sides, (0,) * len(sides)
    if entered and len(entered) == len(row.stride):
        field = tuple(e.pixels + (f - 1) * e.jump for e, f in zip(entered, row.receptive_field, strict=True))
        stride = tuple(e.jump * j for e, j in zip(entered, row.stride, strict=True))
        offset = tuple(e.first + f * e.jump for e, f in zip(entered, row.offset, strict=True))
    return row._replace(
        name=name,
        stage=stage,
        block=block,
        role=row.role or role,
        first=row.first and first,
        receptive_field=field,
        stride=stride,
        offset=offset,
    )


def _by_torchvisions_names(name: str) -> tuple[str, str, str]:
    """Stage, block and role of a layer of a net that has no `Part`s."""
    block = re.match(r"layer(\d+)(\.\d+)?", name)
    head = re.match(r"(bn_last|act_last|avgpool|flatten|fc|classifier|head)", name)
    stage = f"stage{block[1]}" if block else "head" if head else "stem"
    role = "shortcut" if ".downsample" in name else "se" if ".se." in name else "branch" if block else stage
    return stage, block[0] if block and block[2] else "", role


def _units(module: nn.Module, prefix: str = "") -> Iterator[Part]:
    """The modules that run one after the other: a chain's members, a block or any other net as a whole."""
    if not isinstance(module, nn.Sequential):
        yield Part(prefix, "", module)
        return
    for name, child in module.named_children():
        yield from _units(child, _full(prefix, name))


def profile_module(model: nn.Module, input_shape: tuple[int, ...]) -> Profile:
    """Profile any net whose parameters are on the meta device, in eval mode, for one input of shape (C, H, W).

    A block with the description and the input shape of an earlier one is not run again: its rows are that one's.
    Stages and blocks are read from torchvision's names. ProfileError where the net cannot run on that input.
    """
    with borrowed(model):
        return _profiled(list(_units(model)), input_shape)


def profile(spec: NetSpec) -> Profile:
    """Profile the net that `spec` describes at its own image size; only unlike blocks are built."""
    with torch.device("meta"):
        chain = list(parts(spec))
    for part in chain:
        if isinstance(part.made, nn.Module):
            part.made.eval()
    return _profiled(chain, spec.input_shape)
