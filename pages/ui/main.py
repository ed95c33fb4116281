"""The script that Streamlit runs for every page: names the pages, then draws the chosen one."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent.parent
STYLE = """<style>
.stMainBlockContainer { padding-top: 4rem }  /* the default leaves 6rem empty */
[data-stale="true"] { opacity: 1 !important }  /* no flicker while a live view redraws itself */
.st-key-narrow-stages .stColumn { min-width: 0 }
</style>"""

st.set_page_config(page_title="ResNet Explorer", page_icon=":material/account_tree:", layout="wide")
st.html(STYLE)
page = st.navigation(
    [
        st.Page(PAGES / "start/home.py", title="Start", icon=":material/home:", default=True),
        st.Page(PAGES / "design/build.py", title="Build", icon=":material/schema:", url_path="build"),
        st.Page(PAGES / "design/compare.py", title="Compare", icon=":material/compare_arrows:", url_path="compare"),
        st.Page(PAGES / "design/budget.py", title="Budget", icon=":material/savings:", url_path="budget"),
        st.Page(
            PAGES / "design/relatives.py", title="Relatives", icon=":material/family_history:", url_path="relatives"
        ),
        st.Page(PAGES / "design/export.py", title="Export", icon=":material/download:", url_path="export"),
        st.Page(PAGES / "training/train.py", title="Train", icon=":material/show_chart:", url_path="train"),
        st.Page(PAGES / "insight/gradients.py", title="Gradients", icon=":material/waves:", url_path="gradients"),
        st.Page(PAGES / "insight/saliency.py", title="Saliency", icon=":material/visibility:", url_path="saliency"),
    ],
    position="top",
)
page.run()
