"""Train: start nets beside their plain twins, and watch, replay, pause, resume or delete runs."""

import hashlib
from functools import partial

import streamlit as st

from pages.ui import beginning, live, overlay, recipe, replay, state, widgets
from pages.ui.cached import DataInfo, data_info, look, look_anew
from pages.ui.lab.picture import open_saliency
from resnet.data import dataset as data
from resnet.errors import Refused
from resnet.nets.spec import NetSpec, twins
from resnet.runs import store as runs
from resnet.runs.jobs import Job, fitted
from resnet.runs.process import race
from resnet.runs.store import Run
from resnet.runs.table import run_table

DATA_LABELS = {"shapes": "shapes (drawn here, needs no network)", "cifar10": "CIFAR-10"}
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


def settings(spec: NetSpec) -> None:
    nets = race_field(spec)
    info = data_field()
    if info is None:
        return
    with widgets.show_errors(Refused, OSError):
        how, images, size, device = recipe.fields(info)
        fitting = [fitted(net, info, size) for net in nets]
        begun = beginning.field(fitting[0])
        start_button = st.button(
            "Start training", type="primary", icon=":material/play_arrow:", width="stretch", disabled=begun is None
        )
        if begun and start_button:
            some = None if images == info.train_images else images
            job = begun.job(Job(fitting[0], info.name, how, some, device))
            first, *_ = race(job, begun.nets(fitting), begun.path)
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
    return next(iter([*runs.all_runs()[:1], *runs.recorded_twins()[-1:]]), None)  # the deepest pair


def group_view(group: list[Run], going: bool) -> None:
    """The group as it trains, or at any of its epochs; what has ended opens at its last epoch."""
    key = f"train.view.{group[0].job.group or group[0].id}"
    tested = any(len(look(run).epochs) for run in group)
    if state.widget(key) is None:
        state.set_widgets({key: "Replay" if tested and not going else "Training"})
    view = widgets.choice("View", ("Training", "Replay"), key)
    live.show(group, charts=view == "Training")
    trained = [run for run in group if look(run).checkpoint_step]
    if trained and st.button("What do they look at? Open them on Saliency", icon=":material/visibility:"):
        open_saliency(trained)
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
