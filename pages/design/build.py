"""Build: edit a net and read its shapes and costs beside its plain twin's."""

import streamlit as st

from pages.ui import costs, editor, state, widgets
from pages.ui.cached import net_profile
from resnet.costs.compare import with_twin
from resnet.costs.recorder import shape_text
from resnet.nets.codes import to_code, to_json
from resnet.nets.spec import NetSpec, SpecError, plain_twin
from resnet.plots import costs as cost_plots

VIEWS = ("Stages", "Layers", "Costs by stage", "Counting rules", "Memory", "Speed")


def show_net(spec: NetSpec) -> None:
    st.subheader(spec.name)
    widgets.figures(spec)
    opened = widgets.diagram(spec, "build.diagram", opens=True)
    if opened:
        show_stage(spec, opened)
    view = widgets.choice("View", VIEWS, "build.view")
    {
        "Stages": show_table,
        "Layers": show_table,
        "Costs by stage": show_costs,
        "Counting rules": costs.conventions,
        "Memory": costs.memory,
        "Speed": costs.speed,
    }[view](spec)


def note(spec: NetSpec) -> str:
    return f"Figures are for one input of {shape_text(spec.input_shape)}, counted on the net itself."


def show_stage(spec: NetSpec, stage: str) -> None:
    """The layers of the stage that was clicked."""
    layers = net_profile(spec).layers()
    st.markdown(f"**Layers of {stage}**")
    widgets.table(costs.layer_table(layers[layers.stage == stage]), costs.columns())


def show_table(spec: NetSpec) -> None:
    view, profile, twin = state.widget("build.view"), net_profile(spec), plain_twin(spec)
    if view == "Stages":
        table = profile.stages() if spec.plain else with_twin(profile, net_profile(twin))
    else:
        table = costs.layer_table(profile.layers())
    widgets.table(table, costs.columns(twin.name))
    st.caption(f"Early stages have the large maps; late stages usually hold most parameters. {note(spec)}")
    st.download_button("Download this table", table.to_csv(index=False), f"{spec.name} {view.lower()}.csv", "text/csv")


def show_costs(spec: NetSpec) -> None:
    stages, twin = net_profile(spec).stages(), net_profile(plain_twin(spec)).stages()
    figure = cost_plots.cost_by_stage(stages, twin, (spec.name, plain_twin(spec).name), spec.plain)
    text = f"Left: where the parameters are. Right: where the work is done. {note(spec)}"
    widgets.chart(figure, text, "build.costs")


new = state.arrives() or not editor.filled()
current = state.net()
if new:
    editor.fill(current)
broken = None
try:
    current = editor.read()
    state.set_net(current)
except SpecError as error:
    broken = error
form, result = st.columns([1, 2.2], gap="large")
with form:
    editor.draw(current, broken)
with result:
    show_net(current)
    st.download_button("Download this net as JSON", to_json(current), f"{current.name}.json", "application/json")
    st.caption(
        f"This page's address opens this very net. Its code for `python -m resnet train --net`: `{to_code(current)}`"
    )
