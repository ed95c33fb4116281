"""A running server: what it keeps in memory, and how it tells of errors that no page expected."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet.files import ROOT
from tests.support.visitors import PAGES, REPORTED, App, Visit, app, visitor

TTL_S = 1  # after which the server drops a session that was closed
EXTRA = {
    # Frozen objects are not counted: those of the imports. What waits for a collection is.
    "census": """
import gc, json
import streamlit as st
from resnet.work.worker import give_back

if "collect" in st.query_params:
    give_back()
found = gc.get_objects()
sessions = sum(type(each).__name__ == "AppSession" for each in found)
st.info(json.dumps({"objects": len(found), "sessions": sessions}))
""",
    "broken": """
raise RuntimeError("a page is broken")
""",
    "broken_part": """
import streamlit as st

@st.fragment(run_every=0.1)
def part():
    if "drawn" in st.session_state:
        raise RuntimeError("a part is broken")
    st.session_state["drawn"] = True

part()
""",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with EXTRA pages beside its own."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "app.py", folder)
    for name in ("pages", ".streamlit"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("resnet", "assets"):
        (folder / name).symlink_to(ROOT / name)
    for name, source in EXTRA.items():
        (folder / "pages" / "start" / f"{name}.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def running(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with app(tmp_path_factory.mktemp("server"), f"--server.disconnectedSessionTTL={TTL_S}", root=tree) as started:
        asyncio.run(visit(started, *PAGES))
        yield started


async def visit(running: App, *pages: str, query: str = "") -> list[Visit]:
    """Open pages one after the other in a session of their own."""
    async with visitor(running) as somebody:
        found = [await somebody.open(page, query) for page in pages]
    assert not [error for each in found if not each.page.startswith("broken") for error in each.errors]
    return found


async def census(running: App, query: str = "") -> dict[str, int]:
    return json.loads((await visit(running, "census", query=query))[0].alerts[0])


@pytest.mark.slow
def test_memory_is_bounded_over_two_thousand_runs_of_pages(running: App) -> None:
    """Without a collection these runs leave 600,000 objects and 150 MB behind."""

    async def turns(count: int) -> None:
        pages = (["relatives"] + 9 * ["budget"]) * (count // 10)
        await asyncio.gather(*[visit(running, *pages) for _ in range(8)])

    async def go() -> None:
        await turns(10)
        before, size = await census(running), running.megabytes()
        most, largest = 0, 0.0
        for _ in range(5):
            await turns(50)
            most, largest = max(most, (await census(running))["objects"]), max(largest, running.megabytes())
        assert most < before["objects"] + 100_000
        assert largest < size + 50

    asyncio.run(go())


@pytest.mark.slow
def test_sessions_that_were_closed_leave_nothing(running: App) -> None:
    """Sixty sessions may leave half a MB each, as much as one holds while it is open; those of Streamlit none."""

    async def come_and_go() -> float:
        await asyncio.gather(*[visit(running, "build", "relatives", "export") for _ in range(30)])
        async with asyncio.timeout(60):
            while (await census(running, "collect"))["sessions"] > 2:  # its own, and the last one's
                await asyncio.sleep(TTL_S)
        return running.megabytes()

    async def go() -> list[float]:
        return [await come_and_go() for _ in range(3)]

    sizes = asyncio.run(go())
    assert sizes[2] < sizes[0] + 60 * 0.5


def check_report(said: list[str], running: App, words: str) -> None:
    """A sentence with a number, and all else in the log alone."""
    assert said
    assert all(REPORTED in sentence and words not in sentence and "Traceback" not in sentence for sentence in said)
    number = re.search(r"the number (\w{8}),", said[0])
    assert number
    logged = running.log.read_text().split(f"Report {number[1]}\n")[1]
    assert logged.startswith("Traceback")
    assert f"RuntimeError: {words}" in logged


def test_a_broken_page_says_a_number_that_the_log_knows(running: App) -> None:
    opened, *_ = asyncio.run(visit(running, "broken"))
    check_report(opened.errors, running, "a page is broken")


def test_a_part_that_breaks_when_it_refreshes_says_a_number_that_the_log_knows(running: App) -> None:
    async def errors() -> list[str]:
        async with visitor(running) as somebody, asyncio.timeout(60):
            opened = await somebody.open("broken_part")
            assert not opened.errors
            while not opened.errors:
                await asyncio.sleep(0.05)
        return opened.errors

    check_report(asyncio.run(errors()), running, "a part is broken")
