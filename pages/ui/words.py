"""Sentences about runs: what they were trained on and how, how well they do, whether they are comparable."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from resnet.runs.curves import Digest, same_batches
from resnet.runs.store import Snapshot
from resnet.train.recipes import AUGMENTATIONS, Recipe, recipe_name

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def limits(low: int, high: int) -> str:
    """A colour scale's ends, in decades."""
    return " to ".join(f"10{str(exponent).translate(SUPERSCRIPTS)}" for exponent in (low, high))


def accuracy(tested: pd.DataFrame) -> str:
    """The test accuracy after the last epoch and the best one, "" before the first test."""
    if not len(tested):
        return ""
    epochs, shares = tested.epoch.to_numpy(), 100 * tested.test_accuracy.to_numpy(np.float64)
    best = int(shares.argmax())
    words = f"test accuracy {shares[-1]:.1f} % after epoch {epochs[-1]} (last"
    if shares[best] <= shares[-1]:
        return f"{words} and best)"
    return f"{words}), best {shares[best]:.1f} % at epoch {epochs[best]}"


def how(recipe: Recipe) -> str:
    """What the recipe does beyond training and testing one set of weights on one view of each image."""
    found = []
    if recipe.ema:
        found.append(f"The tests use weights averaged over steps (EMA {recipe.ema:g}), not the last ones.")
    if recipe.flip_test:
        found.append("Each test averages the logits of an image and of its mirror image.")
    if recipe.mask:
        found.append("In training, half of the images had a random patch blanked.")
    if added := [AUGMENTATIONS[name] for name in recipe.augmentations]:
        found.append(f"In training, images were also changed by {', '.join(added)}.")
    if recipe.label_smoothing:
        found.append(f"The training loss includes label smoothing of {recipe.label_smoothing:g}.")
    if recipe.mixup or recipe.cutmix:
        found.append("The training accuracy of a mixed image counts the class with the larger share.")
    if recipe.clip:
        found.append(f"Gradients were scaled down to a norm of {recipe.clip:g}; the norms shown are those before.")
    if recipe.frozen:
        found.append(
            f"{frozen(recipe.frozen)} stayed frozen, with their norms in eval mode; frozen layers have norm 0."
        )
    if recipe.body_lr != 1:
        found.append(f"The body was trained at {recipe.body_lr:g} times the learning rate of the head.")
    return " ".join(found)


def frozen(count: int) -> str:
    """The frozen stages in words: the stem, and so many stages after it."""
    return "The stem" if count == 1 else f"The stem and stage{'s 1 to' if count > 2 else ''} {count - 1}"


def beginning(seen: Snapshot) -> str:
    """The weights that the net began with, "" for drawn ones."""
    return f"Began with {seen.job.start}." if seen.job.start else ""


def origin(seen: Snapshot) -> str:
    """Recipe, pixels, precision and hardware of a run, "" before it has read its data."""
    info, recipe = seen.info, seen.job.recipe
    if not info:
        return ""
    words = [f"Recipe {recipe_name(recipe)}, seed {recipe.seed}"]
    images = info.get("train_images")
    words += [f"trained on {f'{images:,}' if isinstance(images, int) else 'the'} images of {seen.job.data}"]
    words += [f"pixels: {str(info.get('source') or 'of unknown origin').rstrip('.')}"]
    words += [str(info[name]) for name in ("precision", "hardware") if info.get(name)]
    words += [f"PyTorch {info['torch']}"] if info.get("torch") else []
    return " ".join(filter(None, [f"{'; '.join(words)}.", how(recipe)]))


def tested_elsewhere(seen: Snapshot) -> str:
    """What the final weights reach on other images; a test that says too little is left out."""
    return " ".join(filter(None, map(_tested, seen.tests)))


def _tested(test: dict[str, Any]) -> str:
    accuracy, images, data = (test.get(name) for name in ("accuracy", "images", "data"))
    if not isinstance(accuracy, float) or not isinstance(images, int):
        return ""
    return f"On the {images:,} test images of {data} it gets {100 * accuracy:.1f} % right."


def batches(digests: Sequence[Digest]) -> None:
    """One line that says whether all runs have had the same batches."""
    common, differs = same_batches(digests)
    if len(digests) < 2 or not common:
        return
    if differs is None:
        nets = "both nets" if len(digests) == 2 else f"all {len(digests)} nets"
        st.caption(f"Same batches in {nets} up to step {common:,} (checked by a hash of every batch).")
    else:
        st.warning(f"From step {differs:,} on these nets had different batches: their curves differ by that too.")
