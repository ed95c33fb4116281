"""Compare: two to six nets of any kind, their costs, what makes up a difference, and what is published of them."""

from collections.abc import Mapping

import streamlit as st

from pages.ui import state, widgets, work
from pages.ui.cached import named_profile
from pages.ui.costs import number
from resnet.costs.compare import KINDS, QUANTITIES, aligned, differences, steps, totals, with_latency
from resnet.costs.profiler import Profile
from resnet.costs.speed import Latency
from resnet.errors import Refused
from resnet.nets.spec import NetSpec
from resnet.plots import costs as cost_plots
from resnet.work.requests import NetLatency
from resnet.zoo import catalogue
from resnet.zoo.published import published_of

START = ["ResNet-50", "ResNet-50 Keras listing", "ResNeXt-50 32x4d", "DenseNet-121"]


Nets = Mapping[str, NetSpec | None]  # of `catalogue.nets`
Profiles = dict[str, Profile]


def measured(nets: Nets) -> dict[str, Latency]:
    """What has been timed on this machine, by the net's name."""
    found = {}
    for name, spec in nets.items():
        with widgets.show_errors(Refused):  # one that failed leaves the others
            if latency := work.known(NetLatency(name, spec)):
                found[name] = latency
    return found


def show_costs(profiles: Profiles, nets: Nets) -> None:
    table = totals(profiles, {name: spec.depth for name, spec in nets.items() if spec})
    with widgets.show_errors(Refused):
        requests = [NetLatency(name, spec) for name, spec in nets.items()]
        label = "Measure their speed here"
        if work.ready(requests, label) and st.button(f"{label} again", icon=":material/timer:"):
            work.again(*requests)
    if times := measured(nets):
        table = with_latency(table, times)
    config = {
        "latency": st.column_config.NumberColumn("ms for one image here", format="%.2f"),
        "spread": st.column_config.NumberColumn(
            "spread", format="%.0f %%", help="Between the quartiles. Above 10 % something else was running."
        ),
        "params": number("params"),
        "macs": number("MACs"),
        "training_macs": st.column_config.NumberColumn(
            "MACs forward + backward", format="localized",
            help="What backpropagation really computes: dL/dx of the first layer is not needed.",
        ),
        "activations": number("activations"),
    }  # fmt: skip
    widgets.table(table, config)
    st.caption(
        "MACs are the multiply-adds of convolutions and linear layers for one input of the size in the second column. "
        "Check the input size first: the same net costs more at 260 px than at 224 px."
    )
    st.download_button("Download this table", table.to_csv(index=False), "comparison.csv", "text/csv")


def show_difference(profiles: Profiles, nets: Nets) -> None:
    names = list(profiles)
    left, right, third, fourth = st.columns(4)
    first = left.selectbox("From", names, key="compare.from")
    second = right.selectbox("To", [name for name in names if name != first], key="compare.to")
    quantity = third.selectbox("What", list(QUANTITIES), key="compare.what", format_func=QUANTITIES.__getitem__)
    by = fourth.selectbox("Steps", list(KINDS), key="compare.by", format_func=KINDS.__getitem__)
    a, b = profiles[first], profiles[second]
    show_entries(first, second, nets)
    both = getattr(a, quantity), getattr(b, quantity)
    taken = steps(a, b, quantity, by)
    widgets.chart(
        cost_plots.waterfall(taken, (first, second), both, QUANTITIES[quantity]),
        f"From {first} to {second}: the bars add up to exactly {both[1] - both[0]:+,}. Look for the longest one.",
        "compare.waterfall",
    )
    table = aligned(a, b)
    config = {
        "out_shape_a": f"output of {first}", "out_shape_b": f"output of {second}",
        "layers_a": f"layers of {first}", "layers_b": f"layers of {second}",
        "params_a": number(f"params of {first}"), "params_b": number(f"params of {second}"),
        "macs_a": number(f"MACs of {first}"), "macs_b": number(f"MACs of {second}"),
        "params_delta": number("params: difference"), "macs_delta": number("MACs: difference"),
    }  # fmt: skip
    widgets.table(table, config)
    st.caption("The same stages side by side. Look for the first row where the output shapes differ.")


def show_entries(first: str, second: str, nets: Nets) -> None:
    """What differs in the descriptions, where this program builds both nets."""
    a, b = nets[first], nets[second]
    if a is None or b is None:
        return
    rows = [(name, str(one), str(other)) for name, one, other in differences(a, b)]
    if not rows:
        st.info(f"{first} and {second} are the same net.")
        return
    st.markdown(f"**What turns {first} into {second}**")
    st.markdown("\n".join(f"- {name}: `{one}` → `{other}`" for name, one, other in rows))


def show_published(profiles: Profiles, nets: Nets) -> None:
    results = published_of(nets, {name: profile.input_shape for name, profile in profiles.items()})
    missing = ", ".join(name for name in nets if name not in set(results.net))
    if results.empty:
        st.info(f"No sourced accuracy for {missing}.")
        return
    left, right = st.columns(2)
    what = left.selectbox("Accuracy", list(results.what.unique()), key="compare.metric")
    axes = {"macs": QUANTITIES["macs"], "params": QUANTITIES["params"]}
    axes |= {"latency": "seconds for one image on this machine"} if measured(nets) else {}
    cost = right.selectbox("Against", list(axes), key="compare.cost", format_func=axes.__getitem__)
    shown = results[results.what == what]
    shown = shown.assign(**{cost: shown.net.map(costs_by_name(cost, profiles, nets))})
    hollow = " A hollow mark was measured at another size or with another net than its cost: hover over it."
    widgets.chart(
        cost_plots.cost_scatter(shown, cost, axes[cost], what),
        "One mark per published result. See how far one net moves with its recipe alone before you call another one "
        f"better. The source of each is in the table.{hollow if shown.note.any() else ''}"
        + (f" No sourced result for {missing}." if missing else ""),
        "compare.scatter",
    )
    columns = ["net", "data_set", "metric", "value", "resolution", "note", "source", "recipe"]
    widgets.table(results[columns], {"recipe": st.column_config.LinkColumn("recipe")})


def costs_by_name(cost: str, profiles: Profiles, nets: Nets) -> dict[str, float]:
    if cost == "latency":
        return {name: each.median for name, each in measured(nets).items()}
    return {name: getattr(profile, cost) for name, profile in profiles.items()}


VIEWS = {"Costs": show_costs, "Difference of two": show_difference, "Published accuracy": show_published}

own = state.net()
offered = catalogue.nets(own)
start = list(dict.fromkeys([catalogue.own_name(own), *START]))[:4]
picked = st.multiselect(
    "Nets (two to six)", list(offered), start, max_selections=6, key="compare.nets", persist_state="session"
)
nets = {name: offered[name] for name in picked if name in offered}
if len(nets) < 2:
    st.info("Choose two nets or more.")
else:
    view = widgets.choice("View", VIEWS, "compare.view")
    VIEWS[view]({name: named_profile(name, spec) for name, spec in nets.items()}, nets)
