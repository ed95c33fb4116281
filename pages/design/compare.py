"""Compare: two to six nets of any kind, their costs, what makes up a difference, and what is published of them."""

import streamlit as st

from pages.ui import catalogue, state, widgets
from pages.ui.costs import number
from resnet.costs.compare import KINDS, QUANTITIES, aligned, differences, steps, totals
from resnet.costs.profiler import Profile
from resnet.costs.speed import latency
from resnet.errors import Refused
from resnet.nets.spec import NetSpec
from resnet.plots import costs as cost_plots
from resnet.zoo.published import Shown, published_of
from resnet.zoo.relatives import RELATIVES, build_relative

START = ["ResNet-50", "ResNet-50 Keras listing", "ResNeXt-50 32x4d", "DenseNet-121"]
VIEWS = ("Costs", "Difference of two", "Published accuracy")


MEASURED = "compare.latency"


def measure(names: list[str], own: NetSpec) -> None:
    """Time every net that stands alone on this machine, batch 1, and keep the results for this session."""
    found = dict(state.widget(MEASURED, {}))
    bar = st.progress(0.0)
    for done, name in enumerate(names):
        bar.progress(done / len(names), f"Timing {name} …")
        spec = catalogue.spec_of(name, own)
        if spec or name in RELATIVES:
            net = spec or build_relative(name, device="cpu")
            with widgets.told(Refused, RuntimeError):
                found[name] = latency(net, catalogue.profile_of(name, own).input_shape, seconds=2.0)
    bar.empty()
    state.set_widgets({MEASURED: found})


def show_costs(profiles: dict[str, Profile], own: NetSpec) -> None:
    specs = {name: catalogue.spec_of(name, own) for name in profiles}
    table = totals(profiles, {name: spec.depth for name, spec in specs.items() if spec})
    if st.button(f"Measure their speed here (about {4 * len(profiles)} s)", icon=":material/timer:"):
        measure(list(profiles), own)
    timed = state.widget(MEASURED, {})
    if any(name in timed for name in profiles):
        table["latency"] = [1000 * timed[name].median if name in timed else None for name in profiles]
        table["spread"] = [100 * timed[name].spread if name in timed else None for name in profiles]
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
    widgets.table(table, config, "compare.costs")
    st.caption(
        "MACs are the multiply-adds of convolutions and linear layers for one input of the size named; look at it "
        "before you compare two numbers: a net at 260 pixels costs more than itself at 224."
    )
    st.download_button("Download this table", table.to_csv(index=False), "comparison.csv", "text/csv")


def show_difference(profiles: dict[str, Profile], own: NetSpec) -> None:
    names = list(profiles)
    left, right, third, fourth = st.columns(4)
    first = left.selectbox("From", names, key="compare.from")
    second = right.selectbox("To", [name for name in names if name != first], key="compare.to")
    quantity = third.selectbox("What", list(QUANTITIES), key="compare.what", format_func=QUANTITIES.__getitem__)
    by = fourth.selectbox("Steps", list(KINDS), key="compare.by", format_func=KINDS.__getitem__)
    a, b = profiles[first], profiles[second]
    told_differences(first, second, own)
    totals = getattr(a, quantity), getattr(b, quantity)
    taken = steps(a, b, quantity, by)
    widgets.chart(
        cost_plots.waterfall(taken, (first, second), totals, QUANTITIES[quantity]),
        f"From {first} to {second}: the bars add up to exactly {totals[1] - totals[0]:+,}. Look for the longest one.",
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
    widgets.table(table, config, "compare.stages")
    st.caption("The same stages side by side: look for the first row where the outputs part.")


def told_differences(first: str, second: str, own: NetSpec) -> None:
    """What differs in the descriptions, where this program builds both nets."""
    a, b = catalogue.spec_of(first, own), catalogue.spec_of(second, own)
    if a is None or b is None:
        return
    rows = [(name, str(one), str(other)) for name, one, other in differences(a, b)]
    if not rows:
        st.info(f"{first} and {second} are the same net.")
        return
    st.markdown(f"**What turns {first} into {second}**")
    st.markdown("\n".join(f"- {name}: `{one}` → `{other}`" for name, one, other in rows))


def show_published(profiles: dict[str, Profile], own: NetSpec) -> None:
    nets = {
        name: Shown(catalogue.plain_name(name), catalogue.spec_of(name, own), profile.input_shape)
        for name, profile in profiles.items()
    }
    results = published_of(nets)
    missing = ", ".join(name for name in profiles if name not in set(results.net))
    if results.empty:
        st.info(f"No accuracy of {missing} is published with a source that this program can name.")
        return
    results = results.assign(what=results.data_set + ": " + results.metric)
    left, right = st.columns(2)
    what = left.selectbox("Accuracy", list(results.what.unique()), key="compare.metric")
    timed = state.widget(MEASURED, {})
    axes = {"macs": QUANTITIES["macs"], "params": QUANTITIES["params"]}
    axes |= {"latency": "seconds for one image on this machine"} if any(name in timed for name in profiles) else {}
    cost = right.selectbox("Against", list(axes), key="compare.cost", format_func=axes.__getitem__)
    chosen = results[results.what == what]
    values = [
        getattr(timed.get(net), "median", None) if cost == "latency" else getattr(profiles[net], cost)
        for net in chosen.net
    ]
    shown = chosen.assign(**{cost: values})
    hollow = " A hollow mark was measured at another size or with another net than its cost: hover over it."
    widgets.chart(
        cost_plots.cost_scatter(shown, cost, axes[cost], what),
        "One mark per published result; look at how far one net moves with its recipe alone before you say that "
        f"another is better. The source of each is in the table.{hollow if shown.note.any() else ''}"
        + (f" Nothing with a source is known of {missing}." if missing else ""),
        "compare.scatter",
    )
    columns = ["net", "data_set", "metric", "value", "resolution", "note", "source", "recipe"]
    widgets.table(results[columns], {"recipe": st.column_config.LinkColumn("recipe")}, "compare.published")


st.title("Compare")
own = state.net()
offered = catalogue.names(own)
start = list(dict.fromkeys([catalogue.own_label(own), *START]))[:4]
picked = st.multiselect(
    "Nets (two to six)", offered, start, max_selections=6, key="compare.nets", persist_state="session"
)
picked = [name for name in picked if name in offered]
if len(picked) < 2:
    st.info("Choose two nets or more.")
else:
    profiles = {name: catalogue.profile_of(name, own) for name in picked}
    view = widgets.choice("View", VIEWS, "compare.view")
    if view == "Costs":
        show_costs(profiles, own)
    elif view == "Difference of two":
        show_difference(profiles, own)
    else:
        show_published(profiles, own)
