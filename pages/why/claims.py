"""Claims: what is said of residual nets, with the figures that test it."""

import pandas as pd
import streamlit as st

from pages.ui import widgets
from pages.ui.widgets import amount
from resnet.claims import figures
from resnet.claims.claims import CLAIMS, Claim

BADGES = {"holds": "green", "holds only with": "orange", "does not hold": "red"}


def show(claim: Claim, measured: pd.DataFrame, key: str) -> None:
    st.subheader(f"“{claim.said}”")
    if not st.toggle("What is measured, and what follows", key=f"claims.{key}", persist_state="session"):
        return
    rows = measured.loc[list(claim.figures)]
    table = pd.DataFrame({
        "net": rows.net, "quantity": rows.quantity, "here": rows["mean"].map(amount),
        "range": [f"{amount(low)} to {amount(high)}" for low, high in zip(rows.low, rows.high, strict=True)],
        "elsewhere": rows.others,
    })  # fmt: skip
    widgets.table(table, {})
    st.markdown(f"**In the literature.** {claim.literature}")
    st.markdown(f":{BADGES[claim.verdict]}-badge[{claim.verdict}] {claim.why}")
    widgets.page_link(claim.page, "See it for yourself")


st.caption(
    "Guess first: does it hold? The figures were measured by this program (`python -m resnet analyses --table`), on "
    "three seeds or on the recorded runs; docs/RESULTS.md has all of them, with what explains the differences."
)
measured = figures.read().set_index("id")
for key, claim in CLAIMS.items():
    with st.container(border=True):
        show(claim, measured, key)
