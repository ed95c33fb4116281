"""Relatives: the nets before and after ResNet, and the systems that stand on one, in the same tables."""

from typing import Any

import streamlit as st

from pages.ui import costs, widgets
from pages.ui.cached import other_profile
from resnet.costs.profiler import Profile, ProfileError
from resnet.costs.recorder import shape_text
from resnet.plots import nets as net_plots
from resnet.zoo.relatives import RELATIVES
from resnet.zoo.systems import SYSTEMS

KINDS: dict[str, dict[str, Any]] = {"Nets": RELATIVES, "Systems": SYSTEMS}
VIEWS = ("Stages", "Layers", "Counting rules")


def about(name: str) -> None:
    """The paper, and what ties it to ResNet."""
    if name in RELATIVES:
        family = RELATIVES[name].family
        st.markdown(f"*{family.title}*, {family.year}, [arXiv {family.arxiv}](https://arxiv.org/abs/{family.arxiv})")
        st.caption(family.link)
    else:
        system = SYSTEMS[name]
        st.markdown(f"*{system.title}*, {system.year}, [arXiv {system.arxiv}](https://arxiv.org/abs/{system.arxiv})")
        st.caption(f"Task: {system.task}. The backbone is a ResNet, so its stages stand first.")


def measured(name: str, size: int) -> tuple[Profile | None, ProfileError | None]:
    try:
        return other_profile(name, size), None
    except ProfileError as error:
        return None, error


def show(name: str, profile: Profile) -> None:
    entries = {"Parameters": profile.params, "MACs": profile.macs, "FLOPs": profile.flops}
    widgets.tiles({label: f"{value:,}" for label, value in entries.items()})
    text = f"{name} stage by stage from left to right, taller where its feature map is larger; hover for its costs."
    widgets.chart(net_plots.net_diagram(profile.blocks(), plain=False), text, "relatives.diagram")
    view = widgets.choice("View", VIEWS, "relatives.view")
    if view == "Counting rules":
        costs.counted(profile, name)
        return
    table = profile.stages() if view == "Stages" else costs.layer_table(profile.layers())
    widgets.table(table, costs.columns())
    st.caption(
        f"MACs are multiply-adds of convolutions and linear layers for one input of {shape_text(profile.input_shape)}. "
        "Additions, products and concatenations written between layers have rows of their own."
    )
    st.download_button("Download this table", table.to_csv(index=False), f"{name} {view.lower()}.csv", "text/csv")


controls, result = st.columns([1, 2.6], gap="large")
with controls:
    kind = widgets.choice("What", KINDS, "relatives.kind")
    name = st.selectbox("Net", list(KINDS[kind]), key=f"relatives.{kind}", persist_state="session")
    size = st.number_input(
        "Image size (pixels)", 8, 2048, KINDS[kind][name].image_size, key=f"relatives.size.{name}",
        help="It starts at the size for which torchvision publishes the net's weights.",
    )  # fmt: skip
    about(name)
with result:
    profile, stopped = measured(name, size)
    if profile:
        show(name, profile)
    elif stopped:
        st.error(f"{stopped} Choose a larger image. Below is the net up to there.", icon=":material/rule:")
        part = Profile((3, size, size), stopped.rows)
        if part.rows:
            text = f"{name} up to {stopped.layer}, which is the first layer that cannot run."
            widgets.chart(net_plots.net_diagram(part.blocks(), plain=False), text, "relatives.part")
            widgets.table(costs.layer_table(part.layers()), costs.columns())
