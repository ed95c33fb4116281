"""The one door to session state and to the address: which net and which run the visitor is looking at."""

from typing import Any

import streamlit as st

from resnet.nets.codes import from_code, to_code
from resnet.nets.spec import NetSpec, SpecError

DEFAULT = "ResNet-20"


def arrives() -> bool:
    """True until `net` is called where the address names another net than this session's last: a link, or Back."""
    return st.query_params.get("net", _last()) != _last()


def net() -> NetSpec:
    """The visitor's net: the address's, else the last one of this session, because a change of page clears the address.

    Where the address's cannot be built, a warning says so, and the last one takes its place.
    """
    try:
        spec = from_code(st.query_params.get("net", _last()))
    except SpecError as error:
        st.warning(f"The net in the address cannot be built. {error}".replace("~", r"\~"))  # it would strike out
        spec = from_code(_last())
    set_net(spec)
    return spec


def set_net(spec: NetSpec) -> None:
    """Make `spec` the visitor's net on every page and in the address."""
    st.session_state["net"] = code = to_code(spec)
    if st.query_params.get("net") != code:
        st.query_params["net"] = code


def _last() -> str:
    return st.session_state.get("net", DEFAULT)


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


def linked(name: str) -> list[str]:
    """What the address says under that name."""
    return st.query_params.get_all(name)


def link(**values: list[str]) -> None:
    """Put these into the address by their names; what is empty is not in it."""
    for name, wanted in values.items():
        kept = list(filter(None, wanted))
        if not kept:
            st.query_params.pop(name, None)
        elif kept != linked(name):
            st.query_params[name] = kept


def widget(key: str, default: Any = None) -> Any:
    """The value of the widget with that key, `default` before it has one."""
    return st.session_state.get(key, default)


def set_widgets(values: dict[str, Any]) -> None:
    """What the widgets with these keys show next; only before they are drawn."""
    for key, value in values.items():
        st.session_state[key] = value


def result(name: str, default: Any = None) -> Any:
    """What was computed for the visitor when asked for, apart from the widgets' values; `default` before that."""
    return st.session_state.get("results", {}).get(name, default)


def set_result(name: str, value: Any) -> None:
    """Keep it for this session."""
    st.session_state.setdefault("results", {})[name] = value
