"""What He et al. 2015 (arXiv 1512.03385) report for CIFAR-10, and in what a run differs from their training."""

from collections.abc import Mapping
from typing import Any

from resnet.recipes import RECIPES

HE_2015 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}  # Table 6, test error in %
ORIGINAL = "original pixels"  # in the source of data that are no copy
_FREE = ("seed", "precision", "compile")  # change no more than chance does
_TOLD = {"epochs": "{} epochs", "weight_decay": "weight decay {}"}  # behind a recipe's name
_SWITCHES = {
    "label_smoothing": "label smoothing",
    "ema": "averaged weights (EMA) in the test",
    "flip_test": "a flip test (each image and its mirror image)",
}


def published_error(net: str, data: str) -> float | None:
    """The paper's test error in % of a net by its preset's name; None where the paper's table has none."""
    found = {f"ResNet-{depth}": error for depth, error in HE_2015.items()}
    return found.get(net) if data == "cifar10" else None


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """The name in RECIPES, with the epochs and the weight decay where only they differ, "own" for any other.

    Seed, precision and compiling do not count.
    """
    for name, known in RECIPES.items():
        changes = _changes(recipe, vars(known))
        if changes.keys() <= _TOLD.keys():
            told = [words.format(changes[field]) for field, words in _TOLD.items() if field in changes]
            return ", ".join([name, *told])
    return "own"


def differences(recipe: Mapping[str, Any], source: str, whole: bool) -> list[str]:
    """Why a run's error may not be held against the paper's; `source` of its pixels, `whole` training set or a part."""
    changed = _changes(recipe, vars(RECIPES["paper"]))
    found = [words for name, words in _SWITCHES.items() if name in changed]
    if others := [f"{name} {value}" for name, value in changed.items() if name not in _SWITCHES]:
        found.append(f"another recipe ({', '.join(others)})")
    if ORIGINAL not in source:
        found.append(f"other pixels ({source or 'of unknown origin'})")
    return found if whole else [*found, "a part of the training images"]


def _changes(recipe: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which a recipe differs, with its own values; where the steps are told, the epochs do not count."""
    free = {*_FREE, *(("epochs",) if known["steps"] and recipe.get("steps") == known["steps"] else ())}
    return {name: recipe[name] for name in known if name in recipe and name not in free and recipe[name] != known[name]}
