"""The maps of runs at their kept epochs, twins in step."""

import streamlit as st

from pages.ui import widgets, work
from pages.ui.lab.drawing import draw
from pages.ui.lab.scene import Scene
from resnet.work.explaining import Answers, Maps, Query
from resnet.work.weights import Model, kept_epochs

NEWEST = "at the end"


def lapse(scene: Scene) -> None:
    """A scrubber over the epochs whose weights all the shown runs have kept, and their newest ones."""
    runs = {index: net.run for index, net in enumerate(scene.shown) if net.run}
    kept = [set(kept_epochs(run)) for run in runs.values()]
    moments = [f"epoch {epoch}" for epoch in sorted(set.intersection(*kept))] if kept else []
    if not moments:
        st.info(
            "A time-lapse needs nets whose runs kept their weights after the same epochs. A run keeps those of a few "
            "epochs, and nets with weights from elsewhere have none."
        )
        return
    moments.append(NEWEST)
    models = {(index, moment): Model.of(run, epoch_of(moment)) for index, run in runs.items() for moment in moments}
    queries = {key: _at(scene, key[0], model) for key, model in models.items()}
    said = Answers(tuple(models.values()), tuple(query.picture for query in queries.values()))
    maps = Maps(tuple(queries.values()))
    results = [each for request in (said, maps) if (each := work.result(request, "Draw all epochs")) is not None]
    if len(results) < 2:
        return
    answers, found = (dict(zip(models, each, strict=True)) for each in results)
    moment = st.select_slider("Weights", moments, NEWEST, **widgets.linked("epoch"))
    look = scene.look(list(found.values()))
    columns = st.columns(max(2, len(runs)))
    for column, (index, run) in zip(columns, runs.items(), strict=False):
        key, answer = (index, moment), answers[index, moment]
        with column:
            names, (best, *_) = scene.shown[index].class_names, answer.top()
            share = 100 * answer.probabilities[best]
            st.subheader(run.job.net.name)
            st.markdown(f"{moment.capitalize()}: “{names[best]}”, {share:.1f} %")
            draw(scene, index, queries[key], found[key], look, f"lab.lapse.{index}")
    st.caption("One colour scale for all epochs and nets, and the same class throughout: watch when the map settles.")


def epoch_of(moment: str) -> int | None:
    return None if moment == NEWEST else int(moment.split()[1])


def _at(scene: Scene, index: int, model: Model) -> Query:
    return scene.query(index)._replace(model=model)
