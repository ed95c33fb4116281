"""A wing is a folder of pages/ and a page a file in it: both are found, and no address changes with them."""

from pathlib import Path

import pytest

from pages.ui import navigation


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("import streamlit as st\n")
    return folder


def menu(folder: Path) -> dict[str, list[str]]:
    return {title: [path.stem for path in paths] for title, paths in navigation.menu(folder).items()}


def test_the_pages_have_the_addresses_that_people_have_kept() -> None:
    names = [path.stem for paths in navigation.found().values() for path in paths]
    kept = ["start", "build", "compare", "budget", "relatives", "export", "train", "gradients", "saliency"]
    assert [name for name in names if name in kept] == kept
    assert set(names) <= set(navigation.ICONS), "give the page its line in ICONS"
    assert len(names) == len(set(names)), "two pages of one name would have one address"


def test_a_new_page_and_a_new_wing_are_found(tmp_path: Path) -> None:
    folder = files(tmp_path, "start/start.py", "design/apart.py", "design/build.py", "new_wing/a_page.py", "ui/no.py")
    found = {title: [path.stem for path in paths] for title, paths in navigation.found(folder).items()}
    assert found == {"": ["start"], "Design": ["build", "apart"], "New wing": ["a_page"]}
    assert menu(folder) == {"": ["start", "build", "apart", "a_page"]}


def test_more_pages_than_fit_in_a_row_stand_in_their_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(navigation, "ABREAST", 2)
    folder = files(tmp_path, "start/start.py", "insight/saliency.py", "design/build.py")
    assert list(menu(folder).items()) == [("", ["start"]), ("Design", ["build"]), ("Insight", ["saliency"])]
