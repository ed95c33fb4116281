"""Train: start nets beside their plain twins, and watch, replay, pause, resume or delete runs."""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from pages.ui import live, overlay, pretrained, replay, state, widgets, work
from pages.ui.cached import DataInfo, data_info, files, look, look_anew
from resnet.data import dataset as data
from resnet.devices import devices
from resnet.errors import Refused
from resnet.nets.spec import PRESETS, NetSpec, twins
from resnet.runs import store as runs
from resnet.runs.jobs import Job, fitted
from resnet.runs.process import race
from resnet.runs.store import Run
from resnet.runs.table import run_table
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
from resnet.work.requests import Beginning

DATA_LABELS = {"shapes": "shapes (drawn here, needs no network)", "cifar10": "CIFAR-10"}
PRECISION_LABELS = {"auto": "auto (what is faster here)"}
OPTIMIZER_LABELS = {"sgd": "SGD (the paper)", "adamw": "AdamW", "rmsprop": "RMSprop"}
SCALING_LABELS = {"channel": "the mean and deviation of each colour", "pixel": "the mean image, subtracted (the paper)"}
MOST_NETS = 6  # in one race


def data_field() -> DataInfo | None:
    """The chosen data set, None where it has to be downloaded or fixed first."""
    name = st.selectbox("Data", data.available(), key="train.data", format_func=lambda n: DATA_LABELS.get(n, n))
    st.caption(f"Your own .npz files and folders of class folders show up here when they are in {data.data_folder()}.")
    try:
        info = data_info(name)
    except Refused as error:
        st.warning(str(error))
        if name == "cifar10" and st.button("Download CIFAR-10 (170 MB)", icon=":material/download:"):
            download()
        return None
    note = f"{info.train_images:,} training and {info.test_images:,} test images, {info.classes} classes."
    st.caption(" ".join([note, info.source, *info.notes]))
    return info


def download() -> None:
    bar = st.progress(0.0, "Connecting …")
    with widgets.show_errors(Refused):
        for done, total in data.download_cifar10():
            bar.progress(done / total, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        st.rerun()


def fill(name: str) -> None:
    """Set the fields to a recipe's values; the seed stays."""
    values = vars(RECIPES[name]).items()
    state.set_widgets({f"train.{field}": value for field, value in values if field != "seed"})


def choose(name: str) -> None:
    """Fill the fields, and take the net that the recipe is made for."""
    fill(name)
    if setting := SETTINGS.get(name):
        state.set_net(PRESETS[setting.net])


def setting_of(info: DataInfo) -> Setting:
    """Images and their size as the chosen recipe has them, within those of the data."""
    wanted = SETTINGS.get(state.widget("train.recipe"), Setting("", info.train_images, info.size))
    return wanted._replace(
        train_images=min(wanted.train_images, info.train_images), image_size=min(256, wanted.image_size)
    )


def recipe_label(name: str) -> str:
    """A recipe's name and length."""
    recipe = RECIPES[name]
    return f"{name}: {recipe.steps:,} steps" if recipe.steps else f"{name}: {recipe.epochs} epochs"


def recipe_field() -> None:
    """The recipe that fills the fields; at first one that takes the visitor's net and all images as they are."""
    key = "train.recipe"
    if state.widget(key) is None:
        first = next(name for name in RECIPES if name not in SETTINGS)
        state.set_widgets({key: first})
        fill(first)
    st.segmented_control(
        "Recipe",
        RECIPES,
        key=key,
        required=True,
        wrap=True,
        persist_state="session",
        format_func=recipe_label,
        on_change=lambda: choose(state.widget(key)),
        help="Fills the fields below, which you can change. “minute”, or three on an older processor, is ResNet-56 on "
        "10,000 small images; “fast” averages weights and tests mirror images too; “paper” is He 2015: 64,000 steps, a "
        "tenth of the learning rate at 32,000 and at 48,000.",
    )


number = partial(st.number_input, persist_state="session")
switch = partial(st.toggle, persist_state="session")


def menu(label: str, options: Iterable[str], key: str, labels: dict[str, str], help_text: str | None = None) -> str:
    """One of a few options; its value is set before."""
    return st.selectbox(
        label, list(options), key=key, help=help_text, persist_state="session", format_func=lambda o: labels.get(o, o)
    )


def recipe_fields(info: DataInfo) -> tuple[Recipe, int, int, str]:
    """The recipe, the number of training images, the image size, the device."""
    recipe_field()
    left, right = st.columns(2, wrap=False)
    with left:
        counted = bool(state.widget("train.steps"))  # then the epochs follow
        epochs = number("Epochs", 1, 1000, key="train.epochs", disabled=counted)
        rate = number("Learning rate", 1e-6, 10.0, step=0.05, format="%.3g", key="train.lr")
    with right:
        batch = number("Batch", 2, 4096, key="train.batch")
        setting = setting_of(info)
        key = f"train.n.{info.name}.{setting.train_images}"
        images = st.number_input("Training images", 2, info.train_images, setting.train_images, key=key)
    with st.popover("More options", width="stretch"):
        others = more_fields()
        key = f"train.size.{info.name}.{setting.image_size}"
        size = st.number_input("Image size (pixels)", 8, 256, setting.image_size, key=key)
        device = widgets.choice("Device", devices(), "train.device")
    if batch > images:
        st.info(f"A batch cannot be larger than the {images:,} training images, so each batch holds all of them.")
    recipe = Recipe(epochs=epochs, batch=min(batch, images), lr=rate, **others)
    tell(recipe, images, info, device)
    return recipe, images, size, device


def more_fields() -> dict[str, Any]:
    """The recipe's other fields by name."""
    return {
        **optimizer_fields(),
        "schedule": menu(
            "Schedule", SCHEDULES, "train.schedule", {},
            "one-cycle rises over a quarter of the training and falls to 0; cosine warms up over a twentieth of it; "
            "steps falls to a tenth after a half and again after three quarters.",
        ),
        "steps": number("Steps in all (0: as many as the epochs have)", 0, 10_000_000, key="train.steps"),
        "weight_decay": number("Weight decay", 0.0, 1.0, step=1e-4, format="%.1e", key="train.weight_decay"),
        "augment": switch("Random crops and flips", key="train.augment"),
        "mask": switch(
            "Blank a random patch in half of the images (the paper: off)",
            key="train.mask",
            help="One patch of a 4 x 4 grid gets the mean colour. Then blanked patches are nothing new to the net, and "
            "Saliency can judge explanations by what a patch's deletion does to the logit.",
        ),
        "scaling": menu("Pixels are scaled by", SCALINGS, "train.scaling", SCALING_LABELS),
        "seed": number("Seed", 0, 2**31, key="train.seed"),
        **augmentation_fields(),
        **improvements(),
        **speed_fields(),
    }  # fmt: skip


def optimizer_fields() -> dict[str, Any]:
    def begin() -> None:
        state.set_widgets({"train.lr": OPTIMIZERS[state.widget("train.optimizer")]})

    name = st.selectbox(
        "Optimiser", OPTIMIZERS, key="train.optimizer", persist_state="session", on_change=begin,
        format_func=lambda name: OPTIMIZER_LABELS[name], help="Choosing one sets a learning rate to begin with.",
    )  # fmt: skip
    return {
        "optimizer": name,
        "momentum": number(
            "Momentum", 0.0, 0.999, step=0.05, format="%.3g", key="train.momentum", disabled=name == "adamw",
            help="Of SGD and RMSprop.",
        ),
        "nesterov": switch("Nesterov momentum (the paper: off)", key="train.nesterov", disabled=name != "sgd"),
        "clip": number(
            "Gradient clipping (0: off)", 0.0, 1000.0, step=0.5, format="%.3g", key="train.clip",
            help="Where the L2 norm of all gradients together is larger, they are scaled down to it.",
        ),
    }  # fmt: skip


def augmentation_fields() -> dict[str, Any]:
    """Changes of the training images beyond crops and flips, all drawn from seed and step."""
    st.markdown("**More augmentation.** By torchvision; twins get the same images:")
    return {
        "randaugment": number(
            "RandAugment operations (0: off)", 0, 10, key="train.randaugment",
            help="So many random operations on each image (rotation, shear, brightness, …), at magnitude 9. Slow: each "
            "image is changed by itself.",
        ),
        "erasing": number(
            "Random erasing (0: off)", 0.0, 1.0, step=0.05, format="%.2f", key="train.erasing",
            help="The probability that a rectangle of an image gets the mean colour.",
        ),
        "mixup": number(
            "Mixup alpha (0: off)", 0.0, 10.0, step=0.1, format="%.2g", key="train.mixup",
            help="Each image becomes the weighted mean of two, and its label too. Weights are drawn from Beta(alpha, "
            "alpha). 0.2 is usual.",
        ),
        "cutmix": number(
            "CutMix alpha (0: off)", 0.0, 10.0, step=0.1, format="%.2g", key="train.cutmix",
            help="A rectangle of each image comes from another one, and as much of its label. 1 is usual. With mixup, "
            "each step takes one of the two.",
        ),
    }  # fmt: skip


def improvements() -> dict[str, Any]:
    """What newer recipes have and the paper's has not."""
    st.markdown("**Better numbers than the paper's recipe.** All off when comparing with the paper:")
    return {
        "label_smoothing": number(
            "Label smoothing (0: off)", 0.0, 0.9, step=0.05, format="%.2f", key="train.label_smoothing",
            help="The share of the target that is spread over all classes. Changes the training loss.",
        ),
        "ema": number(
            "Averaged weights, EMA (0: off)", 0.0, 0.9999, step=0.005, format="%.4f", key="train.ema",
            help="Tests and keeps an average of the weights over steps, where each step keeps this share of the "
            "average before it. Changes the test accuracy and the saved weights, not the training.",
        ),
        "flip_test": switch(
            "Flip test-time augmentation", key="train.flip_test",
            help="Tests each image and its mirror image and averages the logits. Changes the test accuracy alone.",
        ),
    }  # fmt: skip


def speed_fields() -> dict[str, Any]:
    st.markdown("**Speed.** These change the figures by rounding only:")
    return {
        "compile": switch(
            "torch.compile", key="train.compile",
            help="Takes half a minute or more to begin, then each step is faster. Off by default.",
        ),
        "precision": menu(
            "Precision", PRECISIONS, "train.precision", PRECISION_LABELS,
            "bf16 rounds the products of convolutions to 8 bits of mantissa; the paper trained in fp32.",
        ),
    }  # fmt: skip


def tell(recipe: Recipe, images: int, info: DataInfo, device: str) -> None:
    """How long the training is, and what sets it apart from the paper's."""
    per_epoch = steps_per_epoch(images, recipe.batch)
    steps = recipe.total_steps(per_epoch)
    st.caption(f"{steps:,} steps ({steps / per_epoch:.4g} epochs) for each net, on {device}.")
    if recipe.compile:
        st.caption("torch.compile: the first step comes after half a minute or more.")
    if info.name == "cifar10":
        found = differences(recipe, info.source, images == info.train_images)
        st.caption("Unlike the paper: " + "; ".join(found) + "." if found else "As in the paper.")


def race_field(spec: NetSpec) -> list[NetSpec]:
    """All nets of the race: the visitor's, its twin, and others that are added."""
    widgets.net_field(spec, "train.net")
    twin = st.toggle("Train with its plain twin", True, key="train.twin", persist_state="session", disabled=spec.plain)
    nets = twins(spec) if twin else [spec]
    more = {net.name: net for own in widgets.CIFAR_NETS for net in twins(own) if net not in nets}
    added = st.multiselect(
        "More nets in the race", more, key="train.race", max_selections=MOST_NETS - 2,
        help="All nets of a race get the same batches from the same seed and share the machine.",
    )  # fmt: skip
    return nets + [more[name] for name in added]


def start_field(net: NetSpec) -> tuple[Path | None, str] | None:
    """A file of the weights that the net begins with, none for drawn ones, and what they are; None before that."""
    chosen = pretrained.field(net, "train.weights", fixed=True)
    if chosen is None:
        return None
    if chosen.weights.kind == "seed":
        return None, ""
    st.caption(f"{net.name} begins with these weights; all other nets of the race begin with drawn ones.")
    begun = work.result(Beginning(net, chosen.weights, files().name), "Read the weights")
    return (begun.path, f"{chosen.title}, {begun.loaded} of {begun.needed} weights") if begun else None


def settings(spec: NetSpec) -> None:
    nets = race_field(spec)
    info = data_field()
    if info is None:
        return
    with widgets.show_errors(Refused, OSError):
        recipe, images, size, device = recipe_fields(info)
        fitting = [fitted(net, info, size) for net in nets]
        start = start_field(fitting[0])
        ready = start is not None
        if (
            st.button(
                "Start training", type="primary", icon=":material/play_arrow:", width="stretch", disabled=not ready
            )
            and start
        ):
            some = None if images == info.train_images else images
            job = Job(fitting[0], info.name, recipe, some, device, start=start[1])
            first, *_ = race(job, fitting, start[0])
            state.set_run(first.id)
            st.rerun()


def run_list() -> None:
    found = runs.every()
    st.subheader("Runs")
    if not found:
        st.caption(f"Runs will be kept in {runs.runs_folder()}.")
        return
    accuracy = st.column_config.NumberColumn(format="%.1f %%", help="Accuracy on the whole test set")
    config = {
        "last test": accuracy,
        "best test": accuracy,
        "started": st.column_config.DatetimeColumn(format="calendar"),
    }
    # Ticks belong to rows: another list of runs is another table, so that no tick moves to another run.
    key = "train.runs." + hashlib.sha256(" ".join(run.id for run in found).encode()).hexdigest()
    table = run_table([look(run) for run in found])
    chosen = st.dataframe(
        table, hide_index=True, column_config=widgets.widths(table, config), on_select="rerun", key=key
    )
    st.caption(
        f"Tick runs to compare, show, download or delete them: up to {overlay.MOST} in one chart. "
        f"They are kept in {runs.runs_folder()}; recorded ones came with the program."
    )
    if picked := [found[row] for row in chosen.selection.rows]:
        run_actions(picked)
        overlay.show(picked)


def run_actions(picked: list[Run]) -> None:
    own = [run for run in picked if not run.shipped]
    with st.container(horizontal=True), widgets.show_errors(Refused, OSError):
        if st.button("Show", icon=":material/show_chart:"):
            state.set_run(picked[0].id)
            st.rerun()
        with st.popover("Download", icon=":material/download:"):
            downloads(picked)
        with st.popover("Delete", icon=":material/delete:", disabled=not own):
            st.write("Delete these runs with their records and weights? This cannot be undone.")
            st.markdown("\n".join(f"- {run.id}" for run in own))
            if st.button("Delete for good", type="primary"):
                for run in own:
                    run.delete()
                look_anew()
                st.rerun()


def downloads(picked: list[Run]) -> None:
    """Files of the runs, made when they are asked for."""
    for run in picked:
        label = f"CSV of {run.id}"
        st.download_button(label, run.to_csv, f"{run.id}.csv", "text/csv", key=run.id, on_click="ignore")
    name = f"tensorboard-{picked[0].id}.zip" if len(picked) == 1 else "tensorboard.zip"
    st.download_button(
        "TensorBoard event files", partial(event_files, picked), name, "application/zip", on_click="ignore",
        key="train.events", help="Unpack them into a folder and run: tensorboard --logdir FOLDER",
    )  # fmt: skip


def event_files(picked: list[Run]) -> bytes:
    from resnet.runs.tensorboard import zipped

    return zipped(picked)


def shown_run() -> Run | None:
    """The run that the address names, else the newest, else a recorded one."""
    if (wanted := state.run()) is not None:
        try:
            return runs.find(wanted)
        except Refused as error:
            st.warning(str(error))
            state.set_run(None)
    return next(iter([*runs.all_runs()[:1], *runs.shipped()[-1:]]), None)  # the deepest pair


def group_view(group: list[Run], going: bool) -> None:
    """The group as it trains, or at any of its epochs; what has ended opens at its last epoch."""
    key = f"train.view.{group[0].job.group or group[0].id}"
    tested = any(len(look(run).epochs) for run in group)
    if state.widget(key) is None:
        state.set_widgets({key: "Replay" if tested and not going else "Training"})
    view = widgets.choice("View", ("Training", "Replay"), key)
    live.show(group, charts=view == "Training")
    if view == "Replay":
        replay.show(group)


run = shown_run()
group = runs.race_of(run) if run else []
going = live.active(group)
controls, picture = st.columns([1, 2.6], gap="large")
with controls, st.expander("New training", expanded=not going):
    settings(state.net())
with picture:
    if group:
        group_view(group, going)
    else:
        st.info("No run yet. Start one: the curves and the gradients of both nets will be drawn here as they learn.")
    st.fragment(run_list, run_every=5 if going else None)()
