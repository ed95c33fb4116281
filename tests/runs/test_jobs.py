"""Jobs: the same in run.json as in memory, also where an older or a newer program wrote them."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from resnet.errors import Refused
from resnet.nets.spec import plain_twin, twins
from resnet.runs.jobs import Job, fitted, unknown_fields
from resnet.runs.process import race
from resnet.runs.store import all_runs
from resnet.train.recipes import RECIPES, Recipe
from tests.support.tiny import TINY, job


def test_a_job_comes_back_from_json() -> None:
    whole = job(group="g", train_images=7, recipe=RECIPES["paper"])
    assert Job.from_json(whole.to_json()) == whole
    assert json.loads(whole.to_json())["recipe"] == vars(RECIPES["paper"])


def test_a_recipe_of_an_older_or_newer_program_is_read_as_far_as_it_is_known() -> None:
    values = json.loads(job().to_json())
    text = json.dumps(values | {"recipe": {"epochs": 9, "lr": 0.2, "speed": 1, "age": 2}})
    assert Job.from_json(text) == job(recipe=Recipe(epochs=9, lr=0.2))
    assert unknown_fields(text) == ["age", "speed"]
    assert unknown_fields(job().to_json()) == []


@pytest.mark.parametrize(("field", "value"), [("recipe", {"lr": 0.1}), ("data", 5), ("threads", "all")])
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(Refused, match=rf"A run's {field} must be \w+\. Received"):
        dataclasses.replace(job(), **{field: value})


def test_a_net_is_fitted_to_its_data() -> None:
    data = SimpleNamespace(classes=7, channels=1, size=24)
    net = fitted(TINY, data)
    assert (net.classes, net.in_channels, net.image_size) == (7, 1, 24)
    assert dataclasses.replace(net, classes=3, in_channels=3, image_size=8) == TINY
    assert fitted(TINY, data, 16).image_size == 16


def test_twins_are_a_net_and_its_plain_twin_and_a_plain_net_is_alone() -> None:
    assert twins(TINY) == [TINY, plain_twin(TINY)]
    assert twins(plain_twin(TINY)) == [plain_twin(TINY)]


def test_a_race_is_one_job_for_many_nets_that_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("resnet.runs.process.start", lambda *found: started.extend(found))
    monkeypatch.setattr("resnet.runs.process.cores", lambda workers: 12 // workers)
    shared = race(job(threads=0), twins(TINY))
    given = race(job(threads=5), [TINY])
    assert [run.job.net for run in shared] == twins(TINY)
    assert {dataclasses.replace(run.job, net=TINY) for run in shared} == {job(threads=6, group=shared[0].job.group)}
    assert [run.job.threads for run in given] == [5]
    assert given[0].job.group != shared[0].job.group
    assert started == [*shared, *given]
    assert {run.id for run in all_runs()} == {run.id for run in started}
