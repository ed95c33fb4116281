"""The pages that there are: a section is a folder of pages/, a page a file in it; both are found, none is listed."""

from pathlib import Path
from typing import NamedTuple

PAGES = Path(__file__).parent.parent

# What a file cannot say: the order in the menu, a section's title ("": its pages are links of their own), the head of a
# page. Sections and pages without a line come last, by name.
SECTIONS = {"start": "", "design": "Design", "training": "Training", "why": "Why it works", "insight": "Insight"}


class Head(NamedTuple):
    """What a page shows before PyTorch is there: its icon in the menu, its first words, its title (its name)."""

    icon: str | None = None
    words: str = ""
    title: str = ""


HEADS = {
    "start": Head(
        ":material/home:",
        "Build a residual network, see every shape, parameter and multiply-add in it, and train it live beside its "
        "**plain twin**, the same net without shortcuts. Then compare their gradients, and see what each of them looks "
        "at in your own photo.",
        "ResNet Explorer",
    ),
    "build": Head(":material/schema:"),
    "compare": Head(":material/compare_arrows:"),
    "budget": Head(":material/savings:"),
    "relatives": Head(":material/family_history:"),
    "export": Head(":material/download:"),
    "train": Head(":material/show_chart:"),
    "block": Head(
        ":material/search:",
        "A block adds what its branch computes to what it was given: y = F(x) + x. Look at both parts on a picture, at "
        "the gradient on its way back, and at a single step of training.",
    ),
    "gradients": Head(
        ":material/waves:",
        "“Without shortcuts the gradient vanishes on its way back to the first layers”, many textbooks say. Guess, "
        "then measure it: on untrained nets or trained ones, with batch norm, another norm or none.",
    ),
    "signal": Head(
        ":material/graphic_eq:",
        "On the way forward each block adds something to what it was given. How much, and do late blocks still add "
        "anything?",
    ),
    "paths": Head(
        ":material/alt_route:",
        "At each addition the gradient has two ways back: through the shortcut and through the branch. Which one "
        "brings more, and how deep is the net that the gradient really sees?",
    ),
    "batches": Head(
        ":material/scatter_plot:",
        "A step that helps one mini-batch should help the next. Do their gradients agree, and does the gradient change "
        "smoothly from one input to another?",
    ),
    "lesions": Head(
        ":material/content_cut:",
        "Take a trained net and cut a block, its shortcut or its branch. What is left of its accuracy, and of its "
        "twin's?",
    ),
    "landscape": Head(
        ":material/landscape:",
        "Walk away from the weights that training found, in a random direction or over a plane, and watch the loss.",
    ),
    "features": Head(
        ":material/grid_view:",
        "What the layers make of a picture, which of them are alike, and how much of the image a unit really sees.",
    ),
    "claims": Head(
        ":material/fact_check:",
        "Sentences that are often said of residual nets. Each with the figures that test it, and a verdict.",
    ),
    "saliency": Head(
        ":material/visibility:",
        "One picture, one net or two: which pixels made each of them say what it says?",
    ),
}


def found(folder: Path = PAGES) -> dict[str, list[Path]]:
    """The scripts of each section, by the section's title and in the menu's order, as `st.navigation` takes them."""
    scripts = sorted(path for path in folder.glob("*/*.py") if path.parent.name != "ui" and path.stem != "__init__")
    names = [*SECTIONS, *sorted({path.parent.name for path in scripts} - SECTIONS.keys())]
    order = list(HEADS)
    scripts.sort(key=lambda path: order.index(path.stem) if path.stem in order else len(order))
    sections = {SECTIONS.get(name, words(name)): [p for p in scripts if p.parent.name == name] for name in names}
    return {title: paths for title, paths in sections.items() if paths}


def words(name: str) -> str:
    """A folder's or file's name as a title."""
    return name.replace("_", " ").capitalize()


def head(name: str) -> Head:
    """The head of the page of that name."""
    found = HEADS.get(name, Head())
    return found._replace(title=found.title or words(name))
