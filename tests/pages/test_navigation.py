"""A wing is a folder of pages/ and a page a file in it: both are found, and no address changes with them."""

from pathlib import Path

from pages.ui import navigation


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("import streamlit as st\n")
    return folder


def test_the_pages_have_the_addresses_that_people_have_kept() -> None:
    names = [path.stem for paths in navigation.found().values() for path in paths]
    kept = ["start", "build", "compare", "budget", "relatives", "export", "train", "gradients", "saliency"]
    assert [name for name in names if name in kept] == kept
    assert set(names) <= set(navigation.HEADS), "give the page its line in HEADS"
    assert len(names) == len(set(names)), "two pages of one name would have one address"


def test_a_new_page_and_a_new_wing_are_found(tmp_path: Path) -> None:
    folder = files(tmp_path, "start/start.py", "design/apart.py", "design/build.py", "new_wing/a_page.py", "ui/no.py")
    found = {title: [path.stem for path in paths] for title, paths in navigation.found(folder).items()}
    assert found == {"": ["start"], "Design": ["build", "apart"], "New wing": ["a_page"]}


def test_the_sections_stand_in_the_order_of_a_visit(tmp_path: Path) -> None:
    folder = files(tmp_path, "insight/saliency.py", "start/start.py", "design/build.py", "training/train.py")
    assert list(navigation.found(folder)) == ["", "Design", "Training", "Insight"]
