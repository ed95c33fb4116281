"""Budget: the largest nets that keep to so many parameters, multiply-adds and bytes."""

import streamlit as st

from pages.ui import state, widgets, work
from pages.ui.costs import number
from resnet.costs import budget
from resnet.costs.compare import scaled
from resnet.errors import Refused
from resnet.limits import MAX_BATCH
from resnet.nets.blocks import BLOCKS
from resnet.nets.codes import to_code
from resnet.nets.kinds import STEMS
from resnet.work.requests import Search


def limits() -> budget.Budget:
    """What the visitor allows; an empty field is no limit."""
    params = st.number_input("Parameters (million), 0 for any", 0.0, 1000.0, 1.0, 0.5, key="budget.params")
    macs = st.number_input("MACs for one image (million), 0 for any", 0.0, 100_000.0, 150.0, 10.0, key="budget.macs")
    left, right = st.columns(2, wrap=False)
    mib = left.number_input("Memory (MiB), 0 for any", 0, 200_000, 0, 256, key="budget.memory")
    batch = right.number_input("at batch", 1, MAX_BATCH, 128, key="budget.batch")
    return budget.Budget(round(params * 1e6), round(macs * 1e6), mib * 2**20, batch)


def show(found: list[budget.Fit], allowed: budget.Budget) -> None:
    if not found:
        st.warning("No net of the grid fits. Allow more, or choose a smaller image on the Build page.")
        return
    table = scaled(budget.table(found), {"bytes": 2**20})
    table = table if allowed.memory else table.drop(columns="bytes")
    config = {
        "name": "net",
        "params": number("params"),
        "macs": number("MACs"),
        "bytes": st.column_config.NumberColumn("peak while training (MiB)", format="%.0f"),
    }
    # Other nets are another table, so that no selection moves to another net.
    key = f"budget.table.{' '.join(to_code(fit.spec) for fit in found)}"
    chosen = st.dataframe(
        table, hide_index=True, column_config=widgets.widths(table, config), on_select="rerun",
        selection_mode="single-row", key=key,
    )  # fmt: skip
    st.caption(
        "The largest nets that fit, by block and stem: anything deeper, wider or more grouped breaks a limit. Every "
        "figure was counted on the net itself. Click a row to build that net."
    )
    if rows := chosen.selection.rows:
        spec = found[rows[0]].spec
        state.set_net(spec)
        widgets.figures(spec)
        widgets.page_link("design/build.py", f"Open {spec.name} on the Build page", spec)


current = state.net()
controls, result = st.columns([1, 2.6], gap="large")
with controls:
    st.caption(
        f"For inputs of {current.image_size} px and {current.classes} classes, with the shortcuts and the norm of "
        f"{current.name}."
    )
    allowed = limits()
    blocks = st.multiselect("Blocks", list(BLOCKS), [current.block], key="budget.blocks")
    stems = st.multiselect(
        "Stems", [s for s in STEMS if current.dims in STEMS[s].dims], [current.stem], key="budget.stems"
    )
    if st.button("Find nets", type="primary", width="stretch", disabled=not (blocks and stems)):
        state.set_result("budget", Search(current, allowed, tuple(blocks), tuple(stems)))
        work.ask(state.result("budget"))
with result, widgets.show_errors(Refused):
    asked: Search | None = state.result("budget")
    if asked is None:
        st.info("Set your limits and press Find nets.")
    else:
        if (asked.budget, asked.blocks, asked.stems) != (allowed, tuple(blocks), tuple(stems)):
            st.info("Your limits have changed. Press Find nets to search again.")
        if (found := work.result(asked, "Find these nets again")) is not None:
            show(found, asked.budget)
