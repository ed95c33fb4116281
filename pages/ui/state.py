"""The one door to session state and to the address: which net and which run the visitor is looking at."""

from typing import Any

import streamlit as st

from resnet.nets.codes import from_code, to_code
from resnet.nets.spec import PRESETS, NetSpec, SpecError

DEFAULT = PRESETS["ResNet-20"]


def net() -> NetSpec:
    """The visitor's net: the address's where it names one, else the last one of this session; then kept in both.

    A net in the address that cannot be built is told and left out.
    """
    code = st.query_params.get("net")
    if code is not None and code != st.session_state.get("net_code"):
        try:
            _remember(from_code(code))
        except SpecError as error:
            st.warning(f"The net in the address cannot be built. {error}")
    spec = st.session_state.get("net", DEFAULT)
    set_net(spec)
    return spec


def set_net(spec: NetSpec) -> None:
    """Make `spec` the visitor's net on every page and in the address."""
    _remember(spec)
    if st.query_params.get("net") != to_code(spec):
        st.query_params["net"] = to_code(spec)


def _remember(spec: NetSpec) -> None:
    st.session_state["net"], st.session_state["net_code"] = spec, to_code(spec)


def run() -> str | None:
    """The id of the run that the visitor looks at: the address's, else the last one of this session."""
    chosen = st.query_params.get("run", st.session_state.get("run"))
    set_run(chosen)
    return chosen


def set_run(run_id: str | None) -> None:
    """Look at this run from now on, or at none."""
    st.session_state["run"] = run_id
    if run_id is None:
        st.query_params.pop("run", None)
    elif st.query_params.get("run") != run_id:
        st.query_params["run"] = run_id


def widget(key: str, default: Any = None) -> Any:
    """The value of the widget with that key, `default` before it has one."""
    return st.session_state.get(key, default)


def set_widgets(values: dict[str, Any]) -> None:
    """What the widgets with these keys show next; only before they are drawn."""
    for key, value in values.items():
        st.session_state[key] = value
