"""Nets are explained and analysed while the run that they come from trains: neither changes the other."""

import dataclasses
from itertools import cycle

import pytest
import torch

from resnet.attribution.methods import METHODS, explain
from resnet.runs import process, store
from resnet.runs.opened import open_run
from resnet.work.analysing import Moment
from resnet.work.weights import Model
from tests.support import tiny
from tests.support.unchanged import assert_unchanged, found
from tests.support.work import done

RECIPE = dataclasses.replace(tiny.RECIPE, epochs=12, batch=2)  # 384 steps


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_data", "threads_back")
def test_explaining_a_run_that_trains_changes_neither() -> None:
    alone, run = tiny.uninterrupted(RECIPE), store.create(tiny.job(recipe=RECIPE))
    methods, explained = cycle(METHODS), set()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    process.start(run)
    tiny.until(run.checkpoint_step)
    while run.status().state != "finished":
        model = open_run(run).model
        before, method = found(model), next(methods)
        if not METHODS[method].reason(model):
            explain(method, model, images, 1, "layer2")
            explained.add(method)
        assert_unchanged(model, before)
    assert explained, "it trained for too short a time to be explained meanwhile"
    tiny.assert_equal_results(run, alone)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_data", "threads_back")
def test_measuring_a_run_that_trains_changes_no_record() -> None:
    alone, run = tiny.uninterrupted(RECIPE), store.create(tiny.job(recipe=RECIPE))
    process.start(run)
    tiny.until(run.checkpoint_step)
    steps, measures = set[int](), cycle(("gradients", "travel"))
    while run.status().state != "finished":
        moment = done(Moment(next(measures), Model.of(run), 20))
        assert len(moment.table)
        steps.add(moment.step)
    assert len(steps) > 1, "it trained for too short a time to be measured at two steps"
    assert all(step % 32 == 0 for step in steps), "a tiny run has a checkpoint after each epoch"
    tiny.assert_equal_results(run, alone)
