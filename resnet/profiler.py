"""What every layer of a net makes and costs, measured on the meta device: exact, and no memory is taken.

MACs are the multiply-adds of convolutions and linear layers for one image, nothing else.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.model import build
from resnet.spec import NetSpec

FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class Row:
    """One layer: shapes without the batch, `activations` = elements of its output."""

    name: str
    stage: str
    kind: str
    kernel: str
    out_shape: tuple[int, ...]
    params: int
    macs: int
    activations: int


@dataclass(frozen=True)
class Profile:
    """The rows of a net in the order in which they run, for one input of (C, H, W)."""

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
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    def layers(self) -> pd.DataFrame:
        """One row per layer, the columns of `Row`."""
        frame = pd.DataFrame([astuple(row) for row in self.rows], columns=[f.name for f in fields(Row)])
        return frame.assign(out_shape=[shape_text(row.out_shape) for row in self.rows])

    def stages(self) -> pd.DataFrame:
        """One row per stage: its convolutions and linear layers, the last output's shape, and sums of the costs."""
        groups = self.layers().assign(weights=lambda frame: frame.macs > 0).groupby("stage", sort=False)
        columns = {"weights": "sum", "out_shape": "last", "params": "sum", "macs": "sum", "activations": "sum"}
        return groups.agg(columns).rename(columns={"weights": "layers"}).reset_index()

    def blocks(self) -> pd.DataFrame:
        """One row per box of the diagram (stem, each block, head) with its shortcut's kind, "" where there is none.

        side is the height of the output's map in pixels, 1 for a vector.
        """
        frame = self.layers().assign(side=[row.out_shape[-2] if len(row.out_shape) > 1 else 1 for row in self.rows])
        box = frame.name.str.extract(r"^(layer\d+\.\d+)\.", expand=False).fillna(frame.stage)
        columns = {"stage": "last", "out_shape": "last", "side": "last", "params": "sum", "macs": "sum"}
        shortcut = frame.groupby(box, sort=False)[["name", "kind"]].apply(_shortcut_kind)
        return frame.groupby(box, sort=False).agg(columns).assign(shortcut=shortcut).rename_axis("name").reset_index()


def _shortcut_kind(rows: pd.DataFrame) -> str:
    """From the layers of one block: what stands on its shortcut, "" where nothing is added."""
    if "Add" not in rows["kind"].to_list():
        return ""
    on_shortcut = rows[rows["name"].str.contains(".downsample", regex=False)]
    if on_shortcut.empty:
        return "identity"
    return "zero-pad (option A)" if "ZeroPad" in on_shortcut["kind"].to_list() else "projection (option B)"


def shape_text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def stage_of(name: str) -> str:
    """stem, stage1..stageN or head, from a module's name."""
    match = re.match(r"layer(\d+)", name)
    if match:
        return f"stage{match[1]}"
    return "head" if re.match(r"(avgpool|flatten|fc|classifier|head)", name) else "stem"


def count_macs(module: nn.Module, out: Tensor) -> int:
    """Multiply-adds for one image: output elements x inputs read by each; 0 but for convolutions and linear layers."""
    elements = out[0].numel()
    if isinstance(module, nn.modules.conv._ConvNd):
        return elements * module.weight[0].numel()  # weight[0]: (C_in / groups, *kernel)
    return elements * module.in_features if isinstance(module, nn.Linear) else 0


def _row(name: str, module: nn.Module, out: Tensor) -> Row:
    params = sum(p.numel() for p in module.parameters(recurse=False))
    size = getattr(module, "kernel_size", ())
    kernel = shape_text(size if isinstance(size, tuple) else (size, size))
    shape = tuple(out.shape[1:])
    return Row(
        name, stage_of(name), type(module).__name__, kernel, shape, params, count_macs(module, out), out[0].numel()
    )


def _units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that run one after the other: a chain's members, a block or any other net as a whole."""
    if not isinstance(module, nn.Sequential):
        yield prefix, module
        return
    for name, child in module.named_children():
        yield from _units(child, f"{prefix}.{name}" if prefix else name)


def _run(unit: nn.Module, x: Tensor) -> tuple[list[Row], Tensor]:
    """The rows of a unit's leaves in running order, named from the unit, and its output."""
    rows: list[Row] = []
    leaves = [(n, m) for n, m in unit.named_modules() if not any(m.children()) and not isinstance(m, nn.Identity)]
    hooks = [m.register_forward_hook(lambda m, _, out, n=n: rows.append(_row(n, m, out))) for n, m in leaves]
    try:
        return rows, unit(x)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def profile_module(model: nn.Module, input_shape: tuple[int, ...]) -> Profile:
    """Profile any net whose parameters are on the meta device, for one input of shape (C, H, W).

    A block with the description and the input shape of an earlier one is not run again: its rows are that one's.
    """
    model.eval()
    x = torch.empty(1, *input_shape, device="meta")
    rows: list[Row] = []
    known: dict[tuple[str, torch.Size], tuple[list[Row], Tensor]] = {}
    for name, unit in _units(model):
        key = repr(unit), x.shape
        if key not in known:
            known[key] = _run(unit, x)
        unit_rows, x = known[key]
        for row in unit_rows:
            full = ".".join(filter(None, (name, row.name)))
            rows.append(replace(row, name=full, stage=stage_of(full)))
    return Profile(input_shape, tuple(rows))


def profile(spec: NetSpec) -> Profile:
    """Profile the net that `spec` describes at its own image size."""
    return profile_module(build(spec, device="meta"), (spec.in_channels, spec.image_size, spec.image_size))
