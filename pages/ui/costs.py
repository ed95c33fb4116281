"""Views of what a net costs: what each convention counts, bytes, and seconds on this machine."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.ui import widgets
from pages.ui.cached import net_memory, net_profile
from resnet import plots
from resnet.counting import CONVENTIONS, by_stage, count, explain, ledger, unknown
from resnet.memory import OPTIMIZERS, PRECISIONS, BytesError
from resnet.profiler import Profile, shape_text
from resnet.spec import NetSpec

LAYER_COLUMNS = [
    "name", "stage", "kind", "kernel", "out_shape", "params", "macs", "activations", "receptive_field", "stride"
]  # fmt: skip


def layer_table(layers: pd.DataFrame) -> pd.DataFrame:
    """The columns of the layer table that a reader needs."""
    return layers[LAYER_COLUMNS]


def columns(twin: str = "") -> dict:
    """How the columns of the tables of layers and stages are headed."""
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "stage": "stage",
        "layers": number("layers", help="Convolutions and linear layers, projections included."),
        "out_shape": text("output", help="Channels x height x width."),
        "receptive_field": text(
            "receptive field",
            help="Pixels of the input that one value can depend on, through the longest path; padding is not cut off. "
            "Behind a global pool the whole input.",
        ),
        "stride": text("stride", help="Pixels of the input from one value to the next."),
        "params": number("params", format="localized"),
        "macs": number("MACs", format="localized"),
        "activations": number("activations", format="localized", help="Elements of all layers' outputs."),
        "twin_params": number(f"params of {twin}", format="localized"),
        "twin_macs": number(f"MACs of {twin}", format="localized"),
    }


def conventions(spec: NetSpec) -> None:
    counted(net_profile(spec), spec.name)


def counted(profile: Profile, name: str) -> None:
    """A convention, what it says of the net, and the ledger that adds up to it."""
    titles = {key: convention.title for key, convention in CONVENTIONS.items()}
    chosen = st.selectbox("Count as", list(titles), key="costs.convention", format_func=titles.__getitem__)
    convention = CONVENTIONS[chosen]
    total, entries = count(profile, chosen), ledger(profile, chosen)
    st.metric(f"{convention.unit} of {name} by {convention.title}", f"{total:,}", border=True, width="content")
    st.caption(convention.explanation)
    if missing := unknown(profile, chosen):
        layers = ", ".join(sorted({f"{row.kind} ({row.name})" for row in missing})[:6])
        st.warning(
            f"{len(missing)} layers are not in this number, because the convention has no rule for them: {layers}"
        )
    text = f"One bar per kind of layer; they add up to exactly {total:,} {convention.unit} for one input of "
    widgets.chart(plots.ledger(entries, convention.unit), f"{text}{shape_text(profile.input_shape)}.", "costs.ledger")
    st.dataframe(entries, hide_index=True, key="costs.rules", column_config={"count": number("count")})
    with st.expander("By stage"):
        st.dataframe(by_stage(profile, chosen), hide_index=True, column_config={"count": number("count")})
    st.markdown("**The same net by every convention**")
    rows = [(c.title, count(profile, key), c.unit, _difference(profile, key, chosen)) for key, c in CONVENTIONS.items()]
    table = pd.DataFrame(rows, columns=["convention", "says", "unit", f"against {convention.title}"])
    st.dataframe(table, hide_index=True, key="costs.all", column_config={"says": number("says")})
    st.caption("Every row was checked against the tool itself; none of them is wrong, they count different things.")


def number(label: str) -> Any:
    """A column of exact numbers with separators."""
    return st.column_config.NumberColumn(label, format="localized")


def _difference(profile: Profile, convention: str, base: str) -> str:
    """In words: which kinds of layers make up the difference of two conventions."""
    if convention == base or (CONVENTIONS[convention].unit == "params") != (CONVENTIONS[base].unit == "params"):
        return ""
    deltas = explain(profile, base, convention)
    return ", ".join(f"{row['op']} {row['delta']:+,}" for row in deltas.to_dict("records")) or "the same"


def memory(spec: NetSpec) -> None:
    """Bytes of a training step, stage by stage, and its peak."""
    left, middle, right = st.columns(3)
    batch = left.number_input("Batch", 1, 65_536, 128, key="costs.batch", persist_state="session")
    optimizer = middle.selectbox("Optimiser", list(OPTIMIZERS), 1, key="costs.optimizer")
    precision = right.selectbox("Precision", PRECISIONS, key="costs.precision")
    with widgets.told(BytesError):
        result = net_memory(spec, batch, optimizer, precision)
        entries = {
            "Peak while training": result.peak,
            "Saved for the backward pass": result.saved,
            "Weights, gradients, optimiser": result.fixed,
            "Peak at inference": result.inference_peak,
        }
        with st.container(horizontal=True):
            for label, value in entries.items():
                st.metric(label, f"{value / 2**20:,.1f} MiB", border=True, width="content")
        table = result.stages()
        table = table.assign(**{name: table[name] / 2**20 for name in table.columns.drop("stage")})
        mib = {name: st.column_config.NumberColumn(f"{name} (MiB)", format="%.2f") for name in table.columns[1:]}
        st.dataframe(table, hide_index=True, column_config=mib, key="costs.memory")
        st.caption(
            f"Predicted for one step of {batch} images, counted on the tensors that autograd really keeps: look at "
            f"which stage holds them. The peak is at {result.peak_at}. Kernels' own workspaces are not in it."
        )
