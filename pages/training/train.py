"""Train: start nets beside their plain twins, and watch, pause, resume or delete runs."""

import dataclasses
import hashlib
from datetime import datetime

import pandas as pd
import streamlit as st

from pages.ui import live, state, widgets
from pages.ui.cached import DataInfo, data_info
from resnet import data, runs
from resnet.runs import Run, RunError
from resnet.spec import NetSpec, SpecError, plain_twin
from resnet.trainer import SCHEDULES, Recipe, RecipeError, devices, steps_per_epoch

DATA_LABELS = {"shapes": "shapes (drawn here, needs no network)", "cifar10": "CIFAR-10"}


def data_field() -> DataInfo | None:
    """The chosen data set, None where it has to be fetched or mended first."""
    name = st.selectbox("Data", data.available(), key="train.data", format_func=lambda n: DATA_LABELS.get(n, n))
    st.caption(f"Your own .npz files and folders of class folders show up here when they are in {data.data_folder()}.")
    try:
        info = data_info(name)
    except data.DataError as error:
        st.warning(str(error))
        if name == "cifar10" and st.button("Download CIFAR-10 (170 MB)", icon=":material/download:"):
            download()
        return None
    note = f"{info.train_images:,} training and {info.test_images:,} test images, {info.classes} classes."
    st.caption(f"{note} {info.source}")
    return info


def download() -> None:
    bar = st.progress(0.0, "Connecting …")
    with widgets.told(data.DataError):
        for done, total in data.download_cifar10():
            bar.progress(done / total, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        st.rerun()


def recipe_fields(info: DataInfo) -> tuple[Recipe, int, int, str]:
    """The recipe, the number of training images, the image size, the device."""
    left, right = st.columns(2, wrap=False)
    epochs = left.number_input("Epochs", 1, 1000, 5, key="train.epochs", persist_state="session")
    batch = right.number_input("Batch", 2, 4096, 128, key="train.batch", persist_state="session")
    rate = left.number_input("Learning rate", 1e-6, 10.0, 0.1, 0.05, "%.3g", key="train.lr", persist_state="session")
    images = right.number_input("Training images", 2, info.train_images, info.train_images, key=f"train.n.{info.name}")
    with st.popover("More options", width="stretch"):
        schedule = widgets.choice("Schedule", SCHEDULES, "train.schedule", "one-cycle warms up and then falls to 0.")
        size = st.number_input("Image size (pixels)", 8, 256, min(256, info.size), key=f"train.size.{info.name}")
        decay = st.number_input(
            "Weight decay", 0.0, 1.0, 5e-4, 1e-4, "%.1e", key="train.decay", persist_state="session"
        )
        flips = st.toggle("Random crops and flips", True, key="train.augment", persist_state="session")
        seed = st.number_input("Seed", 0, 2**31, 0, key="train.seed", persist_state="session")
        device = widgets.choice("Device", devices(), "train.device")
    recipe = Recipe(epochs, min(batch, images), rate, schedule, weight_decay=decay, augment=flips, seed=seed)
    steps = epochs * steps_per_epoch(images, recipe.batch)
    st.caption(f"{steps:,} steps for each net, on {device}.")
    return recipe, images, size, device


def begin(nets: list[NetSpec], info: DataInfo, recipe: Recipe, images: int, size: int, device: str) -> None:
    """Fit the nets to the data, start them as one race and show it."""
    some = None if images == info.train_images else images
    fitted = [
        dataclasses.replace(net, classes=info.classes, in_channels=info.channels, image_size=size) for net in nets
    ]
    started = runs.start_race(fitted, info.name, vars(recipe), some, device)
    state.set_run(started[0].id)
    st.rerun()


def settings(spec: NetSpec) -> None:
    widgets.net_field(spec, "train.net")
    twin = st.toggle("Train with its plain twin", True, key="train.twin", persist_state="session", disabled=spec.plain)
    info = data_field()
    if info is None:
        return
    with widgets.told(RecipeError, SpecError, RunError, OSError):
        recipe, images, size, device = recipe_fields(info)
        if st.button("Start training", type="primary", icon=":material/play_arrow:", width="stretch"):
            begin([spec, plain_twin(spec)] if twin and not spec.plain else [spec], info, recipe, images, size, device)


def run_table(found: list[Run]) -> pd.DataFrame:
    rows = []
    for run in found:
        status, tested = run.status(), run.epochs()
        rows.append(
            {
                "net": run.job.net.name,
                "data": run.job.data,
                "state": status.state,
                "steps": len(run.steps()),
                "of": status.steps,
                "test accuracy": 100 * tested.test_accuracy.iloc[-1] if len(tested) else None,
                "started": datetime.fromtimestamp(run.created),
                "run": run.id,
            }
        )
    return pd.DataFrame(rows)


def run_list() -> None:
    found = runs.all_runs()
    st.subheader("Runs")
    if not found:
        st.caption(f"Runs will be kept in {runs.runs_folder()}.")
        return
    config = {
        "test accuracy": st.column_config.NumberColumn(format="%.1f %%"),
        "started": st.column_config.DatetimeColumn(format="calendar"),
    }
    ids = [run.id for run in found]
    # Ticks belong to rows: another list of runs is another table, so that no tick moves to another run.
    key = "train.runs." + hashlib.sha256(" ".join(ids).encode()).hexdigest()
    chosen = st.dataframe(run_table(found), hide_index=True, column_config=config, on_select="rerun", key=key)
    st.caption(f"Tick runs to show, download or delete them. They are kept in {runs.runs_folder()}.")
    if picked := [found[row] for row in chosen.selection.rows]:
        run_actions(picked)


def run_actions(picked: list[Run]) -> None:
    with st.container(horizontal=True), widgets.told(RunError, OSError):
        if st.button("Show", icon=":material/show_chart:"):
            state.set_run(picked[0].id)
            st.rerun()
        for run in picked:
            label = "Download CSV" if len(picked) == 1 else f"CSV of {run.id}"
            st.download_button(label, run.to_csv, f"{run.id}.csv", "text/csv", icon=":material/download:", key=run.id)
        with st.popover("Delete", icon=":material/delete:"):
            st.write("Delete these runs with their records and weights? This cannot be undone.")
            st.markdown("\n".join(f"- {run.id}" for run in picked))
            if st.button("Delete for good", type="primary"):
                for run in picked:
                    run.delete()
                st.rerun()


def shown_run() -> Run | None:
    """The run that the address names, else the newest."""
    if (wanted := state.run()) is not None:
        try:
            return runs.find(wanted)
        except RunError as error:
            st.warning(str(error))
            state.set_run(None)
    newest = runs.all_runs()[:1]
    return newest[0] if newest else None


st.title("Train")
run = shown_run()
group = live.group_of(run) if run else []
going = live.active(group)
controls, picture = st.columns([1, 2.6], gap="large")
with controls, st.expander("New training", expanded=not going):
    settings(state.net())
with picture:
    if group:
        live.show(group)
    else:
        st.info("No run yet. Start one: the curves and the gradients of both nets will be drawn here as they learn.")
    st.fragment(run_list, run_every=5 if going else None)()
