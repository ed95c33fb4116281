"""The script that Streamlit runs for every page: finds the pages, then draws the chosen one."""

from pathlib import Path

import streamlit as st

from pages.ui import navigation, server

STYLE = """<style>
.stMainBlockContainer { padding-top: 4rem }  /* the default leaves 6rem empty */
[data-stale="true"] { opacity: 1 !important }  /* no flicker while a live view redraws itself */
.st-key-narrow-stages .stColumn { min-width: 0 }
</style>"""


def entry(script: Path) -> st.Page:
    """pages/*/build.py is /build; the first page is also /."""
    name = script.stem
    return st.Page(script, title=navigation.words(name), icon=navigation.head(name).icon, default=name == FIRST)


FIRST = "start"
page = st.navigation(
    {title: list(map(entry, scripts)) for title, scripts in navigation.found().items()}, position="top"
)
st.set_page_config(page_title="ResNet Explorer", page_icon=":material/account_tree:", layout="wide")
st.html(STYLE)
head = navigation.head(page.url_path or FIRST)
st.title(head.title)
if head.words:
    st.markdown(head.words)
if not server.ready():
    with st.spinner("Loading PyTorch …"):  # the words above are on screen before torch is imported
        server.ready(None)

from pages.ui import work  # noqa: E402  what is heavy to import comes after the words

with work.page_run():
    page.run()
