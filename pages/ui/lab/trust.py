"""Can a map be believed? A card of checks for each map, and the league of all methods on a net."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from pages.ui import widgets, work
from pages.ui.cached import check_reasons, kept_league, league_of
from pages.ui.lab.scene import Scene
from resnet.attribution.methods import METHODS
from resnet.data import dataset as datasets
from resnet.errors import Refused
from resnet.plots import attribution as plots
from resnet.trust.checks import CHECKS
from resnet.trust.contract import Finding
from resnet.trust.league import Row, table
from resnet.work.explaining import Query
from resnet.work.judging import IMAGES, Judged

BADGES = {
    "good": ":green-badge[passes]", "bad": ":red-badge[fails]", "unclear": ":gray-badge[no verdict]",
    "verified here": ":green-badge[verified here]", "do not trust": ":red-badge[do not trust]",
    "unverified": ":gray-badge[unverified]",
}  # fmt: skip


def standing(scene: Scene, index: int, method: str) -> tuple[str, str]:
    """What the net's league says of a method: a badge, and why."""
    net = scene.shown[index]
    rows = kept_league(net.model, net.run.job.data) if net.run else None
    for row in rows or ():
        if row["method"] == method:
            return BADGES[row["label"]], row["why"]
    return BADGES["unverified"], "No league table has been made for this net yet."


def cards(scene: Scene, queries: Sequence[Query]) -> None:
    """The checks of each map, side by side, where the visitor asks for them."""
    text = "Runs the checks that take a moment; each of the others has a button that says what it takes."
    if not st.toggle("Can these maps be believed?", help=text, **widgets.linked("trust")):
        return
    columns = st.columns(max(2, len(queries)))
    for index, query in enumerate(queries):
        with columns[index], st.container(border=True):
            _card(scene, index, query)


def _card(scene: Scene, index: int, query: Query) -> None:
    """All checks of one map; above them what they say together so far."""
    net, method = scene.shown[index], METHODS[query.method]
    head, findings = st.empty(), {}
    reasons = check_reasons(query.model, query.method)
    for check, entry in CHECKS.items():
        if reasons[check]:
            continue
        st.markdown(f"**{entry.title}**", help=f"{entry.reading} Source: {entry.source}.")
        with widgets.show_errors(Refused):
            finding = work.result(Judged(query, check), "Check")
            if finding is not None:
                findings[check] = finding
                _finding(finding, f"lab.trust.{index}.{check}")
    counts = Counter(finding.verdict for finding in findings.values())
    said = ", ".join(
        f"{counts[verdict]} {BADGES[verdict]}" for verdict in ("good", "bad", "unclear") if counts[verdict]
    )
    head.markdown(f"**{method.title}** on {net.title}, this picture alone: {said or 'nothing is checked yet'}.")
    if left := {CHECKS[check].title: reason for check, reason in reasons.items() if reason}:
        with st.expander(f"{len(left)} checks that do not apply"):
            st.markdown("\n".join(f"- **{title}**: {reason}" for title, reason in left.items()))


def _finding(finding: Finding, key: str) -> None:
    random = finding.random
    beside = f"; random maps: {random.mean:.3g} ({random.low:.3g} to {random.high:.3g})" if random else ""
    number = "" if pd.isna(finding.value) else f"**{finding.value:.3g}**{beside}. "
    st.markdown(f"{BADGES[finding.verdict]} {number}{finding.sentence}")
    if finding.curves is not None and {"low", "high"} <= set(finding.curves):
        with st.expander("Curve"):
            text = "The target's score as pixels go, the map's order against random ones (the band is their range)."
            widgets.chart(plots.curve(finding.curves), text, key)


def league(scene: Scene) -> None:
    """All methods on the first net, over many pictures; kept on the disk once it is made."""
    net = scene.shown[0]
    st.subheader(f"League table for {net.title}")
    names = list(dict.fromkeys([*([net.run.job.data] if net.run else []), *datasets.available()]))
    if net.model.spec is None or not names:
        st.info("A league needs one of this program's nets and a data set of images like those it was trained on.")
        return
    data = st.selectbox("Test images of", names, key="lab.league.data")
    request = league_of(net.model, data)
    st.caption(
        f"Every method that applies is judged by every check on the same {IMAGES} test images. The random map is a row "
        "like any other: a method near it tells nothing. Click a column to sort by it."
    )
    rows = work.result(request, "Make the table", show_league)
    if rows is not None:
        show_league(rows)


def show_league(rows: list[Row]) -> None:
    found = table(rows)
    numbers = map(str, found.select_dtypes("number"))
    config = {name: st.column_config.NumberColumn(name, format="%.3f") for name in numbers}
    widgets.table(found, config)
    readings = "\n".join(f"- **{entry.title}**: {entry.reading}" for entry in CHECKS.values())
    with st.expander("How to read the columns"):
        st.markdown(readings)
