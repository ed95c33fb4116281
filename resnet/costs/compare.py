"""Two nets side by side: what differs in their descriptions and stages, and what makes up the difference in cost."""

import dataclasses
from collections.abc import Iterator, Mapping

import pandas as pd

from resnet.costs.conventions import CONVENTIONS, convention_of, count, explain
from resnet.costs.profiler import Profile
from resnet.costs.recorder import shape_text
from resnet.costs.speed import Latency
from resnet.nets.spec import NetSpec

QUANTITIES = {"macs": "MACs for one input", "params": "parameters", "activations": "activations for one input"}
KINDS = {"stage": "by stage", "op": "by kind of layer"}


def totals(profiles: Mapping[str, Profile], depths: Mapping[str, int]) -> pd.DataFrame:
    """One row per net: net, input, depth (<NA> where it is unknown), params, macs, training_macs, activations, and the
    size and receptive field of its last map.
    """
    rows = []
    for name, profile in profiles.items():
        last = profile.stages().iloc[-2:-1]  # before the head; none where the net is one stage
        rows.append(
            {
                "net": name,
                "input": shape_text(profile.input_shape),
                "depth": depths.get(name),
                "params": profile.params,
                "macs": profile.macs,
                "training_macs": profile.training_macs,
                "activations": profile.activations,
                "last map": "".join(last.out_shape),
                "receptive field": "".join(last.receptive_field),
            }
        )
    return pd.DataFrame(rows).astype({"depth": "Int64"})


def steps(a: Profile, b: Profile, quantity: str, by: str) -> pd.DataFrame:
    """What leads from a's total to b's: label, delta (ints that sum to the exact difference), zeros left out.

    `quantity`: a key of QUANTITIES; `by`: a key of KINDS.
    """
    sums = [frame.groupby(by, sort=False)[quantity].sum() for frame in (a.layers(), b.layers())]
    both = pd.concat(sums, axis=1, keys=["a", "b"])
    both = both.reindex(merged(*(list(each.index) for each in sums))).fillna(0).astype("int64")
    delta = both.b - both.a
    return delta[delta != 0].rename_axis("label").rename("delta").reset_index()


def aligned(a: Profile, b: Profile) -> pd.DataFrame:
    """One row per stage of either net: output and costs in both, and b - a; <NA> where a net has no such stage."""
    sides = [profile.stages().set_index("stage") for profile in (a, b)]
    order = merged(*(list(side.index) for side in sides))
    frame = pd.DataFrame({"stage": order})
    for column in ("out_shape", "layers", "params", "macs"):
        for suffix, side in zip("ab", sides, strict=True):
            values = side[column].reindex(order)
            frame[f"{column}_{suffix}"] = list(values if column == "out_shape" else values.astype("Int64"))
    for column in ("params", "macs"):
        first, second = (frame[f"{column}_{suffix}"].astype("Int64").fillna(0) for suffix in "ab")
        frame[f"{column}_delta"] = second - first
    return frame


def merged(first: list[str], second: list[str]) -> list[str]:
    """The labels of both in an order that keeps either's: a label goes after the one that it follows."""
    order = list(first)
    for before, label in zip([None, *second], second, strict=False):
        if label not in order:
            order.insert(order.index(before) + 1 if before is not None else 0, label)
    return order


def differences(a: NetSpec, b: NetSpec) -> Iterator[tuple[str, object, object]]:
    """The entries in which two descriptions differ: name, a's value, b's value; stages entry by entry."""
    for field in dataclasses.fields(NetSpec):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name != "stages":
            if one != other:
                yield field.name.replace("_", " "), one, other
            continue
        if len(one) != len(other):
            yield "stages", len(one), len(other)
        for index, (left, right) in enumerate(zip(one, other, strict=False), 1):
            for name, value in dataclasses.asdict(left).items():
                if value != getattr(right, name):
                    yield f"{name} of stage {index}", value or "the net's", getattr(right, name) or "the net's"


def with_latency(table: pd.DataFrame, timed: Mapping[str, Latency]) -> pd.DataFrame:
    """The table of `totals` with what was measured: latency (ms, median) and spread (%); NaN where nothing was."""
    milliseconds = {net: 1000 * each.median for net, each in timed.items()}
    spreads = {net: 100 * each.spread for net, each in timed.items()}
    return table.assign(latency=table.net.map(milliseconds), spread=table.net.map(spreads))


def with_twin(profile: Profile, twin: Profile) -> pd.DataFrame:
    """The stages of a net with its twin's twin_params and twin_macs beside its own."""
    other = twin.stages()
    return profile.stages().assign(twin_params=other.params, twin_macs=other.macs)


def by_convention(profile: Profile, base: str) -> pd.DataFrame:
    """One row per convention: convention, says (its count), unit, difference (from `base`, by op). Refused."""
    rows = [(c.title, count(profile, key), c.unit, _against(profile, key, base)) for key, c in CONVENTIONS.items()]
    return pd.DataFrame(rows, columns=["convention", "says", "unit", "difference"])


def _against(profile: Profile, convention: str, base: str) -> str:
    """Which ops make up the difference of two conventions, as "conv -12, bias +3"; "" where they count other things."""
    if convention == base or (convention_of(convention).unit == "params") != (convention_of(base).unit == "params"):
        return ""
    deltas = explain(profile, base, convention)
    return ", ".join(f"{row['op']} {row['delta']:+,}" for row in deltas.to_dict("records")) or "the same"


def scaled(table: pd.DataFrame, units: Mapping[str, float]) -> pd.DataFrame:
    """The columns that `units` names in those units: each divided by its own."""
    return table.assign(**{name: table[name] / unit for name, unit in units.items()})
