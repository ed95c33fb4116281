"""Budget: the largest nets that keep to so many parameters, multiply-adds and bytes."""

import streamlit as st

from pages.ui import state, widgets
from pages.ui.costs import number
from resnet.costs import budget
from resnet.errors import Refused
from resnet.nets.blocks import BLOCKS
from resnet.nets.kinds import STEMS
from resnet.nets.spec import NetSpec


def limits() -> budget.Budget:
    """What the visitor allows; an empty field is no limit."""
    params = st.number_input("Parameters (million), 0 for any", 0.0, 1000.0, 1.0, 0.5, key="budget.params")
    macs = st.number_input("MACs for one image (million), 0 for any", 0.0, 100_000.0, 150.0, 10.0, key="budget.macs")
    left, right = st.columns(2, wrap=False)
    mib = left.number_input("Memory (MiB), 0 for any", 0, 200_000, 0, 256, key="budget.memory")
    batch = right.number_input("at batch", 1, 4096, 128, key="budget.batch")
    return budget.Budget(round(params * 1e6), round(macs * 1e6), mib * 2**20, batch)


def find(base: NetSpec, allowed: budget.Budget, blocks: tuple[str, ...], stems: tuple[str, ...]) -> list[budget.Fit]:
    bar = st.progress(0.0, "Counting …")
    found: list[budget.Fit] = []
    for share, found in budget.search(base, allowed, blocks, stems):
        bar.progress(share, f"Counting … {len(found)} nets so far")
    bar.empty()
    return found


def show(found: list[budget.Fit], allowed: budget.Budget) -> None:
    if not found:
        st.warning("No net of the grid fits. Allow more, or choose a smaller image on the Build page.")
        return
    table = budget.table(found)
    config = {"params": number("params"), "macs": number("MACs"), "name": "net"}
    if not allowed.memory:
        table = table.drop(columns="bytes")
    else:
        table = table.assign(bytes=table.bytes / 2**20)
        config["bytes"] = st.column_config.NumberColumn("peak while training (MiB)", format="%.0f")
    config, key = widgets.heads(table, config), widgets.contents_key("budget.table", table, config)
    # Other nets are another table, so that no selection moves to another net.
    chosen = st.dataframe(
        table, hide_index=True, column_config=config, on_select="rerun", selection_mode="single-row", key=key
    )
    st.caption(
        "The largest nets that fit: no other of the grid with the same block and stem that fits is at least as deep, "
        "as wide and as grouped. Every figure was counted on the net itself. Click a row to build that net."
    )
    if rows := chosen.selection.rows:
        spec = found[rows[0]].spec
        state.set_net(spec)
        widgets.figures(spec)
        widgets.page_link("design/build.py", f"Open {spec.name} on the Build page", spec)


st.title("Budget")
current = state.net()
controls, result = st.columns([1, 2.6], gap="large")
with controls, widgets.told(Refused):
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
        state.set_widgets({"budget.for": allowed, "budget.found": None})
with result:
    if allowed_then := state.widget("budget.for"):
        if state.widget("budget.found") is None:
            state.set_widgets({"budget.found": find(current, allowed_then, tuple(blocks), tuple(stems))})
        show(state.widget("budget.found"), allowed_then)
    else:
        st.info("Say what may be spent, and the nets that fit are listed here, each counted on itself.")
