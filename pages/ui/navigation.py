"""The pages that there are: a section is a folder of pages/, a page a file in it; both are found, none is listed."""

from pathlib import Path

PAGES = Path(__file__).parent.parent

# What a file cannot say: the order in the menu, a section's title ("": its pages are links of their own), an icon.
# Sections and pages without a line come last, by name.
SECTIONS = {"start": "", "design": "Design", "training": "Training", "insight": "Insight"}
ICONS = {
    "start": ":material/home:",
    "build": ":material/schema:",
    "compare": ":material/compare_arrows:",
    "budget": ":material/savings:",
    "relatives": ":material/family_history:",
    "export": ":material/download:",
    "train": ":material/show_chart:",
    "gradients": ":material/waves:",
    "saliency": ":material/visibility:",
}


def found(folder: Path = PAGES) -> dict[str, list[Path]]:
    """The scripts of each section, by the section's title and in the menu's order, as `st.navigation` takes them."""
    scripts = sorted(path for path in folder.glob("*/*.py") if path.parent.name != "ui" and path.stem != "__init__")
    names = [*SECTIONS, *sorted({path.parent.name for path in scripts} - SECTIONS.keys())]
    order = list(ICONS)
    scripts.sort(key=lambda path: order.index(path.stem) if path.stem in order else len(order))
    sections = {SECTIONS.get(name, words(name)): [p for p in scripts if p.parent.name == name] for name in names}
    return {title: paths for title, paths in sections.items() if paths}


def words(name: str) -> str:
    """A folder's or file's name as a title."""
    return name.replace("_", " ").capitalize()
