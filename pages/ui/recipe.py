"""The form of a recipe on Train: how the nets of a race are trained."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import streamlit as st

from pages.ui import state, widgets
from pages.ui.cached import DataInfo
from resnet.devices import devices
from resnet.nets.spec import PRESETS
from resnet.train.feeds import steps_per_epoch
from resnet.train.recipes import (
    OPTIMIZERS,
    PRECISIONS,
    RECIPES,
    SCALINGS,
    SCHEDULES,
    SETTINGS,
    Recipe,
    Setting,
    differences,
)

KEPT = ("seed", "frozen", "body_lr")  # the last two belong to the weights that a training begins with
PRECISION_LABELS = {"auto": "auto (what is faster here)"}
OPTIMIZER_LABELS = {"sgd": "SGD (the paper)", "adamw": "AdamW", "rmsprop": "RMSprop"}
SCALING_LABELS = {"channel": "the mean and deviation of each colour", "pixel": "the mean image, subtracted (the paper)"}


def _fill(name: str) -> None:
    """Set the fields to a recipe's values, but for those KEPT."""
    values = vars(RECIPES[name]).items()
    state.set_widgets({f"train.{field}": value for field, value in values if field not in KEPT})


def _choose(name: str) -> None:
    """Fill the fields, and take the net that the recipe is made for."""
    _fill(name)
    if setting := SETTINGS.get(name):
        state.set_net(PRESETS[setting.net])


def _setting_of(info: DataInfo) -> Setting:
    """Images and their size as the chosen recipe has them, within those of the data."""
    wanted = SETTINGS.get(state.widget("train.recipe"), Setting("", info.train_images, info.size))
    return wanted._replace(
        train_images=min(wanted.train_images, info.train_images), image_size=min(256, wanted.image_size)
    )


def _label(name: str) -> str:
    """A recipe's name and length."""
    recipe = RECIPES[name]
    return f"{name}: {recipe.steps:,} steps" if recipe.steps else f"{name}: {recipe.epochs} epochs"


def _choice() -> None:
    """The recipe that fills the fields; at first one that takes the visitor's net and all images as they are."""
    key = "train.recipe"
    if state.widget(key) is None:
        first = next(name for name in RECIPES if name not in SETTINGS)
        state.set_widgets({key: first})
        _fill(first)
    st.segmented_control(
        "Recipe",
        RECIPES,
        key=key,
        required=True,
        wrap=True,
        persist_state="session",
        format_func=_label,
        on_change=lambda: _choose(state.widget(key)),
        help="Fills the fields below, which you can change. “minute”, or three on an older processor, is ResNet-56 on "
        "10,000 small images; “fast” averages weights and tests mirror images too; “paper” is He 2015: 64,000 steps, a "
        "tenth of the learning rate at 32,000 and at 48,000.",
    )


_number = partial(st.number_input, persist_state="session")
_switch = partial(st.toggle, persist_state="session")


def _menu(label: str, options: Iterable[str], key: str, labels: dict[str, str], help_text: str | None = None) -> str:
    """One of a few options; its value is set before."""
    return st.selectbox(
        label, list(options), key=key, help=help_text, persist_state="session", format_func=lambda o: labels.get(o, o)
    )


def fields(info: DataInfo) -> tuple[Recipe, int, int, str]:
    """The recipe, the number of training images, the image size, the device."""
    _choice()
    left, right = st.columns(2, wrap=False)
    with left:
        counted = bool(state.widget("train.steps"))  # then the epochs follow
        epochs = _number("Epochs", 1, 1000, key="train.epochs", disabled=counted)
        rate = _number("Learning rate", 1e-6, 10.0, step=0.05, format="%.3g", key="train.lr")
    with right:
        batch = _number("Batch", 2, 4096, key="train.batch")
        setting = _setting_of(info)
        key = f"train.n.{info.name}.{setting.train_images}"
        images = st.number_input("Training images", 2, info.train_images, setting.train_images, key=key)
    with st.popover("More options", width="stretch"):
        others = _more()
        key = f"train.size.{info.name}.{setting.image_size}"
        size = st.number_input("Image size (pixels)", 8, 256, setting.image_size, key=key)
        device = widgets.choice("Device", devices(), "train.device")
    if batch > images:
        st.info(f"A batch cannot be larger than the {images:,} training images, so each batch holds all of them.")
    recipe = Recipe(epochs=epochs, batch=min(batch, images), lr=rate, **others)
    _tell(recipe, images, info, device)
    return recipe, images, size, device


def _more() -> dict[str, Any]:
    """The recipe's other fields by name."""
    return {
        **_optimizer(),
        "schedule": _menu(
            "Schedule", SCHEDULES, "train.schedule", {},
            "one-cycle rises over a quarter of the training and falls to 0; cosine warms up over a twentieth of it; "
            "steps falls to a tenth after a half and again after three quarters.",
        ),
        "steps": _number("Steps in all (0: as many as the epochs have)", 0, 10_000_000, key="train.steps"),
        "weight_decay": _number("Weight decay", 0.0, 1.0, step=1e-4, format="%.1e", key="train.weight_decay"),
        "augment": _switch("Random crops and flips", key="train.augment"),
        "mask": _switch(
            "Blank a random patch in half of the images (the paper: off)",
            key="train.mask",
            help="One patch of a 4 x 4 grid gets the mean colour. Then blanked patches are nothing new to the net, and "
            "Saliency can judge explanations by what a patch's deletion does to the logit.",
        ),
        "scaling": _menu("Pixels are scaled by", SCALINGS, "train.scaling", SCALING_LABELS),
        "seed": _number("Seed", 0, 2**31, key="train.seed"),
        **_augmentation(),
        **_improvements(),
        **_speed(),
    }  # fmt: skip


def _optimizer() -> dict[str, Any]:
    def begin() -> None:
        state.set_widgets({"train.lr": OPTIMIZERS[state.widget("train.optimizer")]})

    name = st.selectbox(
        "Optimiser", OPTIMIZERS, key="train.optimizer", persist_state="session", on_change=begin,
        format_func=lambda name: OPTIMIZER_LABELS[name], help="Choosing one sets a learning rate to begin with.",
    )  # fmt: skip
    return {
        "optimizer": name,
        "momentum": _number(
            "Momentum", 0.0, 0.999, step=0.05, format="%.3g", key="train.momentum", disabled=name == "adamw",
            help="Of SGD and RMSprop.",
        ),
        "nesterov": _switch("Nesterov momentum (the paper: off)", key="train.nesterov", disabled=name != "sgd"),
        "clip": _number(
            "Gradient clipping (0: off)", 0.0, 1000.0, step=0.5, format="%.3g", key="train.clip",
            help="Where the L2 norm of all gradients together is larger, they are scaled down to it.",
        ),
    }  # fmt: skip


def _augmentation() -> dict[str, Any]:
    """Changes of the training images beyond crops and flips, all drawn from seed and step."""
    st.markdown("**More augmentation.** By torchvision; twins get the same images:")
    return {
        "randaugment": _number(
            "RandAugment operations (0: off)", 0, 10, key="train.randaugment",
            help="So many random operations on each image (rotation, shear, brightness, …), at magnitude 9. Slow: each "
            "image is changed by itself.",
        ),
        "erasing": _number(
            "Random erasing (0: off)", 0.0, 1.0, step=0.05, format="%.2f", key="train.erasing",
            help="The probability that a rectangle of an image gets the mean colour.",
        ),
        "mixup": _number(
            "Mixup alpha (0: off)", 0.0, 10.0, step=0.1, format="%.2g", key="train.mixup",
            help="Each image becomes the weighted mean of two, and its label too. Weights are drawn from Beta(alpha, "
            "alpha). 0.2 is usual.",
        ),
        "cutmix": _number(
            "CutMix alpha (0: off)", 0.0, 10.0, step=0.1, format="%.2g", key="train.cutmix",
            help="A rectangle of each image comes from another one, and as much of its label. 1 is usual. With mixup, "
            "each step takes one of the two.",
        ),
    }  # fmt: skip


def _improvements() -> dict[str, Any]:
    """What newer recipes have and the paper's has not."""
    st.markdown("**Better numbers than the paper's recipe.** All off when comparing with the paper:")
    return {
        "label_smoothing": _number(
            "Label smoothing (0: off)", 0.0, 0.9, step=0.05, format="%.2f", key="train.label_smoothing",
            help="The share of the target that is spread over all classes. Changes the training loss.",
        ),
        "ema": _number(
            "Averaged weights, EMA (0: off)", 0.0, 0.9999, step=0.005, format="%.4f", key="train.ema",
            help="Tests and keeps an average of the weights over steps, where each step keeps this share of the "
            "average before it. Changes the test accuracy and the saved weights, not the training.",
        ),
        "flip_test": _switch(
            "Flip test-time augmentation", key="train.flip_test",
            help="Tests each image and its mirror image and averages the logits. Changes the test accuracy alone.",
        ),
    }  # fmt: skip


def _speed() -> dict[str, Any]:
    st.markdown("**Speed.** These change the figures by rounding only:")
    return {
        "compile": _switch(
            "torch.compile", key="train.compile",
            help="Takes half a minute or more to begin, then each step is faster. Off by default.",
        ),
        "precision": _menu(
            "Precision", PRECISIONS, "train.precision", PRECISION_LABELS,
            "bf16 rounds the products of convolutions to 8 bits of mantissa; the paper trained in fp32.",
        ),
    }  # fmt: skip


def _tell(recipe: Recipe, images: int, info: DataInfo, device: str) -> None:
    """How long the training is, and what sets it apart from the paper's."""
    per_epoch = steps_per_epoch(images, recipe.batch)
    steps = recipe.total_steps(per_epoch)
    st.caption(f"{steps:,} steps ({steps / per_epoch:.4g} epochs) for each net, on {device}.")
    if recipe.compile:
        st.caption("torch.compile: the first step comes after half a minute or more.")
    if info.name == "cifar10":
        found = differences(recipe, info.source, images == info.train_images)
        st.caption("Unlike the paper: " + "; ".join(found) + "." if found else "As in the paper.")
