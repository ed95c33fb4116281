"""Views of what a net costs: what each convention counts, bytes, and seconds on this machine."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.ui import widgets, work
from pages.ui.cached import net_memory, net_profile
from resnet.costs.compare import by_convention, scaled
from resnet.costs.conventions import CONVENTIONS, by_stage, count, ledger, unknown
from resnet.costs.memory import OPTIMIZERS, PRECISIONS
from resnet.costs.profiler import Profile
from resnet.costs.recorder import shape_text
from resnet.costs.speed import DTYPES, Latency
from resnet.devices import devices
from resnet.errors import Refused
from resnet.limits import MAX_BATCH
from resnet.nets.spec import NetSpec
from resnet.plots import costs as cost_plots
from resnet.work.requests import Peak, Speed

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
    total, entries = count(profile, chosen), ledger(profile, chosen).replace({"op": {"none": "reshape"}})
    st.metric(f"{convention.unit} of {name} by {convention.title}", f"{total:,}", border=True, width="content")
    st.caption(convention.explanation)
    if missing := unknown(profile, chosen):
        layers = ", ".join(sorted({f"{row.kind} ({row.name})" for row in missing})[:6])
        st.warning(
            f"{len(missing)} layers are not in this number, because the convention has no rule for them: {layers}"
        )
    text = f"One bar per kind of layer; they add up to exactly {total:,} {convention.unit} for one input of "
    widgets.chart(
        cost_plots.ledger(entries, convention.unit), f"{text}{shape_text(profile.input_shape)}.", "costs.ledger"
    )
    widgets.table(entries, {"count": number("count")})
    with st.expander("By stage"):
        widgets.table(by_stage(profile, chosen), {"count": number("count")})
    st.markdown("**The same net by every convention**")
    heads = {"says": number("says"), "difference": f"against {convention.title}"}
    widgets.table(by_convention(profile, chosen), heads)
    st.caption(
        "Each rule was checked against the tool itself: look at which kinds of layers make the difference. Where a "
        "tool counts something twice by mistake, its explanation above says so."
    )


def number(label: str) -> Any:
    """A column of exact numbers with separators."""
    return st.column_config.NumberColumn(label, format="localized")


def speed(spec: NetSpec) -> None:
    """Latency and roofline of the net on this machine, measured when asked."""
    left, middle, right = st.columns(3)
    batch = left.number_input("Batch", 1, MAX_BATCH, 8, key="costs.speed.batch", persist_state="session")
    precision = middle.selectbox("Precision", list(DTYPES), key="costs.speed.precision")
    device = right.selectbox("Device", devices(), key="costs.speed.device")
    with widgets.show_errors(Refused):
        found = work.measured(Speed(spec, batch, precision, device), "Measure on this machine")
        if found is not None:
            _show_speed(*found)


# Columns of the table of `rooflines`: head, unit, format.
ROOFLINE = {
    "seconds": ("ms", 1e-3, "%.3f"),
    "flops": ("GFLOPs", 1e9, "%.3f"),
    "bytes": ("MB moved", 1e6, "%.1f"),
    "intensity": ("FLOPs per byte", 1, "%.1f"),
    "achieved": ("GFLOP/s", 1e9, "%.1f"),
    "bound": ("bound GFLOP/s", 1e9, "%.1f"),
    "fraction": ("reached", 1e-2, "%.0f %%"),
}


def _show_speed(latency: Latency, table: pd.DataFrame) -> None:
    low, high = latency.quartiles
    entries = {
        "Latency of a batch": f"{1000 * latency.median:,.2f} ms",
        "Images per second": f"{latency.images_per_second:,.1f}",
        "Interquartile range": f"{1000 * low:,.2f} to {1000 * high:,.2f} ms",
    }
    widgets.tiles(entries)
    config = {name: st.column_config.NumberColumn(title, format=form) for name, (title, _, form) in ROOFLINE.items()}
    shown = scaled(table, {name: unit for name, (_, unit, _) in ROOFLINE.items()})
    widgets.table(shown, config)
    st.caption(
        f"Median of {len(latency.times)} passes in eval mode with {latency.threads} threads, after a warm-up. Look at "
        "which stage reaches least of its bound (a roofline): what the fastest of matrix products, 1x1 and 3x3 "
        "convolutions reaches here, or what copies as large as the layers' maps allow. FLOPs are 2 x MACs."
    )


def memory(spec: NetSpec) -> None:
    """Bytes of a training step, stage by stage, and its peak."""
    left, middle, right = st.columns(3)
    batch = left.number_input("Batch", 1, MAX_BATCH, 128, key="costs.batch", persist_state="session")
    optimizer = middle.selectbox("Optimiser", list(OPTIMIZERS), 1, key="costs.optimizer")
    precision = right.selectbox("Precision", PRECISIONS, key="costs.precision")
    with widgets.show_errors(Refused):
        result = net_memory(spec, batch, optimizer, precision)
        entries = {
            "Peak while training": result.peak,
            "Saved for the backward pass": result.saved,
            "Weights, gradients, optimiser": result.fixed,
            "Peak at inference": result.inference_peak,
        }
        tiles = st.container()
        with widgets.show_errors(Refused):
            request = Peak(spec, batch, optimizer, precision)
            if measured := work.result(request, "Measure the peak with two real steps on this CPU"):
                entries["Measured peak while training"] = measured
        with tiles:
            widgets.tiles({label: f"{value / 2**20:,.1f} MiB" for label, value in entries.items()})
        table = scaled(result.stages(), dict.fromkeys(result.stages().columns.drop("stage"), 2**20))
        mib = {name: st.column_config.NumberColumn(f"{name} (MiB)", format="%.2f") for name in table.columns[1:]}
        widgets.table(table, mib)
        st.caption(
            f"Predicted for one step of {batch} images, counted on the tensors that autograd really keeps: look at "
            f"which stage holds them. The peak is at {result.peak_at}. What kernels borrow for a moment is in the "
            "measured figure alone."
        )
        profile = net_profile(spec)
        times = profile.training_macs / profile.macs
        st.caption(
            f"One image forward and backward takes {profile.training_macs:,} MACs, {times:.3f} x the forward pass and "
            "not 3 x: nothing needs the gradient of the image."
        )
