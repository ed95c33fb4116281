"""One net, many "FLOPs" and "params": what each paper and tool counts, as rules over the rows of a profile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from resnet.costs.profiler import Profile
from resnet.costs.recorder import OPS, Row
from resnet.errors import Refused, choose

MEASURES = {
    "macs": "multiply-adds",
    "activations": "elements of the output",
    "reads": "elements of the input",
    "both": "elements of input and output",
    "params": "parameters",
    "channels": "channels",
}


class Rule(NamedTuple):
    """A layer costs `factor` x `measure` (a key of MEASURES); factor 0 with the reason in `why`."""

    factor: int
    measure: str = "macs"
    why: str = ""

    def cost(self, row: Row) -> int:
        """Of one layer for one image."""
        if self.measure == "both":
            return self.factor * (row.reads + row.activations)
        return self.factor * (row.out_shape[0] if self.measure == "channels" else getattr(row, self.measure))

    def __str__(self) -> str:
        return f"{self.factor} x {MEASURES[self.measure]}" if self.factor else f"0: {self.why}"


@dataclass(frozen=True)
class Convention:
    """What one paper or tool counts.

    `rules` go by a layer's kind (Conv2d), or else by its op; `biases` are those on top for one that has a bias, by
    kind. A layer that neither names is unknown.
    """

    title: str
    unit: str  # FLOPs, MACs or params
    rules: dict[str, Rule]
    explanation: str
    biases: dict[str, Rule]


def _for(rule: Rule, *keys: str) -> dict[str, Rule]:
    return dict.fromkeys(keys, rule)


def _dims(*kinds: str) -> list[str]:
    """Conv1d, Conv2d, Conv3d for Conv."""
    return [f"{kind}{dims}d" for kind in kinds for dims in (1, 2, 3)]


_CONVS, _BATCH, _GROUPED = _dims("Conv"), _dims("BatchNorm"), ["GroupNorm", "LayerNorm"]
_AVERAGES, _GLOBAL, _MAX = _dims("AvgPool"), _dims("AdaptiveAvgPool"), _dims("MaxPool", "AdaptiveMaxPool")
_QUIET = ("Sigmoid", "Hardsigmoid", "Hardswish", "Tanh")
_ACTIVATIONS = ("ReLU", "ReLU6", "GELU", "SiLU", *_QUIET)
_BIASED = (*_CONVS, "Linear", "conv", "linear")

_ALL = {
    **_for(Rule(0, why="only convolutions and matrix products count"), *OPS),
    **_for(Rule(0, why="computes nothing"), "copy", "none"),
}
_NOT_SEEN = Rule(0, why="the tool has no rule for it")
_PLAIN = _for(_NOT_SEEN, "add", "multiply", "copy", "none")  # operators, and what computes nothing
_NO_BIAS = _for(Rule(0, why="not counted"), *_BIASED)
_WITH_BIAS = _for(Rule(1, "activations"), *_BIASED)


def _modules(mac: int) -> dict[str, Rule]:
    return _PLAIN | _for(Rule(mac), *_CONVS, "Linear")


CONVENTIONS: dict[str, Convention] = {
    "he2015": Convention(
        "He et al. 2015, Table 1",
        "MACs",
        _ALL | _for(Rule(1), "conv", "linear"),
        "Multiply-adds of convolutions and linear layers, called FLOPs in arXiv 1512.03385. Its 3.8e9 for ResNet-50, "
        "where others count 4.1e9, is for another net, not by another rule: v1 strides on the first 1x1.",
        _NO_BIAS,
    ),
    "torchvision": Convention(
        "torchvision's _ops",
        "MACs",
        _ALL | _for(Rule(1), "conv", "linear"),
        "Multiply-adds of convolutions and linear layers, labelled GFLOPS: half of what torch's own counter gives.",
        _NO_BIAS,
    ),
    "fvcore": Convention(
        "fvcore, timm",
        "FLOPs",
        {
            **_modules(1),
            **_for(Rule(2, "reads"), *_BATCH),
            **_for(Rule(5, "reads"), *_GROUPED),
            **_for(_NOT_SEEN, "activation", *_AVERAGES, *_GLOBAL, *_MAX),
            "AdaptiveAvgPool2d": Rule(1, "reads"),
        },
        "A multiply-add is one FLOP. A batch norm is 2 per element in eval mode (5 in training), a group norm 5, an "
        "adaptive average pool 1 per element it reads, in two dimensions only. Max-pools, other pools, activations, "
        "biases and additions are listed by the tool as unsupported and count 0.",
        _NO_BIAS,
    ),
    "ptflops-aten": Convention(
        "ptflops, aten backend",
        "MACs",
        _modules(1) | _for(_NOT_SEEN, "norm", "activation", "pool", "upsample"),
        "Convolutions and matrix products as torch's dispatcher sees them, and 1 per output element where one has a "
        "bias; norms, activations, pools and additions are 0.",
        _WITH_BIAS,
    ),
    "ptflops-pytorch": Convention(
        "ptflops, pytorch backend",
        "MACs",
        {
            **_modules(1),
            **_for(Rule(2, "reads"), *_BATCH, "GroupNorm", "ReLU", "GELU", *_AVERAGES, *_GLOBAL, *_MAX),
            **_for(Rule(1, "reads"), "LayerNorm", "ReLU6", "SiLU"),
            **_for(_NOT_SEEN, *_QUIET),
        },
        "Norms are 2 per element (a layer norm 1), biases 1 per output element. ReLU, GELU and pools are meant to be "
        "1 per element, but version 0.7.5 counts them twice: by a hook on the module, and in the function that the "
        "module calls. On the meta device it counts linear layers twice too; this is what it prints on a CPU.",
        _WITH_BIAS,
    ),
    "thop": Convention(
        "thop",
        "MACs",
        {
            **_modules(1),
            **_for(Rule(4, "reads"), *_BATCH, "LayerNorm"),
            **_for(Rule(1, "activations"), *_AVERAGES),
            **_for(Rule(1, "both"), *_GLOBAL),
            **_for(_NOT_SEEN, "GroupNorm", *_ACTIVATIONS, *_MAX),
        },
        "A batch norm is 4 per element: 2, and again 2 for its weights, though a comment there calls it fused. An "
        "average pool is 1 per output element, an adaptive one also 1 per element it reads. Biases, activations, "
        "max-pools and group norms are 0. Version 0.1.1 gives 4.134 G for ResNet-50.",
        _NO_BIAS,
    ),
    "calflops": Convention(
        "calflops, FLOPs",
        "FLOPs",
        {
            **_modules(2),
            **_for(Rule(2, "reads"), *_BATCH),
            **_for(Rule(5, "reads"), *_GROUPED),
            **_for(Rule(1, "reads"), "ReLU", "GELU", "SiLU", *_AVERAGES, *_GLOBAL, *_MAX),
            **_for(_NOT_SEEN, "ReLU6", *_QUIET),
        },
        "A multiply-add is 2. A batch norm is 2 per element, a group norm 5, ReLU, GELU, SiLU and pools 1 per element "
        "they read. A convolution's bias is 1 per output element, a linear layer's is left out; sums and products "
        "written with + and * are not seen.",
        _WITH_BIAS | _for(Rule(0, why="left out by the tool"), "Linear"),
    ),
    "calflops-macs": Convention(
        "calflops, MACs",
        "MACs",
        _modules(1) | _for(_NOT_SEEN, "norm", "activation", "pool"),
        "Multiply-adds of convolutions and linear layers.",
        _NO_BIAS,
    ),
    "flop_counter": Convention(
        "torch.utils.flop_counter",
        "FLOPs",
        _ALL | _for(Rule(2), "conv", "linear"),
        "A multiply-add is 2; convolutions, matrix products and attention count, nothing else. This is the forward "
        "pass: backward, torch 2.14 over-counts grouped convolutions.",
        _NO_BIAS,
    ),
    "params": Convention(
        "PyTorch's parameters",
        "params",
        _for(Rule(1, "params"), *OPS, "none", "other"),
        "What training changes: weights and biases, and a norm's two numbers per channel.",
        {},
    ),
    "keras-params": Convention(
        "Keras' parameters",
        "params",
        _for(Rule(1, "params"), *OPS, "none", "other") | _for(Rule(2, "params"), *_BATCH),
        "Its ResNets' convolutions have biases though a norm follows them, and a batch norm's moving mean and variance "
        "count too, as parameters that are not trained: 25,636,712 for ResNet-50, not 25,557,032.",
        _for(Rule(1, "channels"), *_CONVS),
    ),
}


def convention_of(name: str) -> Convention:
    """Refused for a name that is not in `CONVENTIONS`."""
    return choose("convention", name, CONVENTIONS)


class Entry(NamedTuple):
    """What one layer or its bias adds to a count; no `cost` where the convention has no `rule` for it."""

    op: str  # the layer's op, or "bias"
    row: Row
    rule: Rule | None

    @property
    def cost(self) -> int | None:
        return self.rule.cost(self.row) if self.rule else None


def entries(profile: Profile, convention: str) -> Iterator[Entry]:
    """Every layer, and after it its bias where it has one (for Keras: where it would have one). Refused."""
    found = convention_of(convention)
    for row in profile.rows:
        rule = found.rules.get(row.kind) or found.rules.get(row.op)
        yield Entry(row.op, row, rule)
        if rule and row.kind in found.biases and row.biased == (found.unit != "params"):
            yield Entry("bias", row, found.biases[row.kind])


def count(profile: Profile, convention: str) -> int:
    """For one image, all layers that the convention knows: see `unknown` for the others. Refused."""
    return sum(entry.cost or 0 for entry in entries(profile, convention))


def unknown(profile: Profile, convention: str) -> list[Row]:
    """The layers that the convention has no rule for, so that no count of it holds them. Refused."""
    return [entry.row for entry in entries(profile, convention) if entry.rule is None]


def _frame(profile: Profile, convention: str) -> pd.DataFrame:
    columns = ["op", "stage", "layer", "count", "rule"]
    found = [(e.op, e.row.stage, e.row.name, e.cost, str(e.rule or "no rule")) for e in entries(profile, convention)]
    return pd.DataFrame(found, columns=columns).astype({"count": "Int64"})


def ledger(profile: Profile, convention: str) -> pd.DataFrame:
    """One row per op: its layers, their count (<NA> where none is known; the column sums to `count`), the rules."""
    groups = _frame(profile, convention).groupby("op", sort=False)
    return pd.DataFrame(
        {
            "layers": groups.size(),
            "count": groups["count"].sum(min_count=1),
            "unknown": groups["count"].agg(lambda column: int(column.isna().sum())),
            "rule": groups["rule"].agg(lambda column: "; ".join(column.unique())),
        }
    ).reset_index()


def by_stage(profile: Profile, convention: str) -> pd.DataFrame:
    """One row per stage; the counts sum to `count`. Refused."""
    return _frame(profile, convention).groupby("stage", sort=False)["count"].sum().reset_index()


def explain(profile: Profile, a: str, b: str) -> pd.DataFrame:
    """The ops that two conventions count differently: a, b and delta = b - a, which sums to count(b) - count(a).

    Refused where one counts parameters and the other one work.
    """
    if (convention_of(a).unit == "params") != (convention_of(b).unit == "params"):
        raise Refused("Work and parameters cannot be compared.", f"{a!r} and {b!r}", "two that count the same")
    sums = [_frame(profile, name).groupby("op", sort=False)["count"].sum() for name in (a, b)]
    frame = pd.concat(sums, axis=1, keys=["a", "b"]).fillna(0)
    frame["delta"] = frame.b - frame.a
    return frame[frame.delta != 0].rename_axis("op").reset_index()
