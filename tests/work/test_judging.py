"""Checks of maps and leagues as work: what the library says, kept on the disk and read while nothing has changed."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from resnet.attribution.methods import METHODS, common_layers, explain
from resnet.cli.main import main
from resnet.data.dataset import load, some_tests
from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.codes import from_code
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.trust import league
from resnet.trust.checks import CHECKS, judge, label
from resnet.trust.contract import Case, Finding
from resnet.work import judging
from resnet.work.explaining import Picture, Query
from resnet.work.judging import Judged, League, sampled
from resnet.work.process import Process
from resnet.work.weights import Model, Weights, usual
from resnet.work.worker import DONE
from tests.support.tiny import RECIPE, uninterrupted
from tests.support.work import done

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back")
QUICK = ("content", "single")


@pytest.fixture
def run(tiny_data: Path) -> Run:
    return uninterrupted(dataclasses.replace(RECIPE, epochs=1, mask=True))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where leagues are kept."""
    monkeypatch.setattr(league, "FOLDERS", SimpleNamespace(user_cache_path=tmp_path / "cache"))
    return tmp_path / "cache" / "leagues"


def asked(run: Run, **changes: Any) -> League:
    return dataclasses.replace(League(Model.of(run), "tiny.npz", 6, "", ("saliency", "grad-cam"), QUICK), **changes)


def equal(a: Finding, b: Finding) -> bool:
    values = (a.value, a.verdict, a.sentence, a.random, a.each)
    return str(values) == str((b.value, b.verdict, b.sentence, b.random, b.each))  # NaN is NaN


@pytest.mark.parametrize("check", CHECKS)
def test_a_judged_picture_is_what_the_check_says_of_it(run: Run, check: str) -> None:
    trained = open_run(run)
    [(pixels, *_)] = [some_tests(load("tiny.npz"), 1)]
    request = Judged(Query(Model.of(run), Picture.of(pixels[0].numpy()), "grad-cam", "layer2", 1), check)
    others, _ = trained.test_batch(judging.OTHERS)
    case = Case(trained.prepare(pixels), torch.tensor([1]), "grad-cam", "layer2", masked=True, others=others)
    if reason := CHECKS[check].reason(trained.model, "grad-cam"):
        with pytest.raises(Refused, match=re.escape(reason)):
            done(request)
    else:
        assert equal(done(request), judge(check, trained.model, case))
    assert request.cost().seconds > 0


def test_a_league_has_the_checks_values_on_the_same_pictures(run: Run) -> None:
    rows = done(asked(run))
    trained = open_run(run)
    images, _ = trained.test_batch(6)
    with torch.no_grad():
        named = trained.model.eval()(images).argmax(1)
    layer = common_layers([trained.model])[-1]
    assert [row["method"] for row in rows] == ["saliency", "grad-cam"]
    for row in rows:
        maps = explain(row["method"], trained.model, images, named, layer)
        case = Case(images, named, row["method"], layer, maps=maps, masked=True)
        findings = {check: judge(check, trained.model, case) for check in QUICK}
        assert set(row["findings"]) == set(QUICK)
        for check, expected in findings.items():
            kept = league.finding_of(row, check)
            assert kept.value == pytest.approx(expected.value, abs=1e-5)
            assert (kept.verdict, kept.random) == (expected.verdict, pytest.approx(expected.random, abs=1e-5))
        assert row["label"] == label(findings)[0]


def test_progress_has_the_rows_so_far(run: Run) -> None:
    seen = [progress for progress in asked(run).run() if progress.so_far is not None]
    assert [len(progress.so_far) for progress in seen] == sorted(len(progress.so_far) for progress in seen)
    assert {len(progress.so_far) for progress in seen} == {0, 1, 2}
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_kept_league_is_read_and_not_made_again(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(run)
    rows = done(request)
    [path] = folder.iterdir()
    assert json.loads(path.read_text())["rows"] == rows
    monkeypatch.setattr(league, "explaining", lambda *_: pytest.fail("it was made again"))
    assert done(request) == rows
    monkeypatch.setattr(judging, "in_batches", lambda *_: pytest.fail("there is nothing to run"))
    assert request.cost().light
    assert [path] == list(folder.iterdir()), "no part of a file is left"


CHANGES: dict[str, dict[str, Any]] = {
    "pictures": {"images": 5},
    "layer": {"layer": "layer1"},
    "file of the data": {"changed": 2.0},
    "methods": {"methods": ("saliency",)},
    "checks": {"checks": ("content",)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_question_is_another_league(run: Run, what: str) -> None:
    first, other = asked(run), asked(run, **CHANGES[what])
    done(first)
    assert league.kept(first.depends_on()) is not None
    assert league.kept(other.depends_on()) is None


def test_other_weights_code_options_or_versions_make_a_league_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(run)
    done(request)
    later = request.model._replace(weights=dataclasses.replace(request.model.weights, step=99))
    assert league.kept(dataclasses.replace(request, model=later).depends_on()) is None
    with monkeypatch.context() as patch:
        patch.setattr(league, "COUNTED", ("resnet/trust",))
        assert league.kept(request.depends_on()) is None
    with monkeypatch.context() as patch:
        patch.setattr(league.importlib.metadata, "version", lambda name: "0.0")
        assert league.kept(request.depends_on()) is None
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "saliency", dataclasses.replace(METHODS["saliency"], options={"more": 1}))
        assert league.kept(request.depends_on()) is None
    assert league.kept(request.depends_on()) is not None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": {}, "rows": []}', b'{"rows": [{}]}', b"\xff"])
def test_a_damaged_league_is_made_anew(run: Run, folder: Path, damage: bytes) -> None:
    request = asked(run)
    rows = done(request)
    [path] = folder.iterdir()
    path.write_bytes(damage)
    assert league.kept(request.depends_on()) is None
    assert done(request) == rows
    assert json.loads(path.read_text())["rows"] == rows


def test_a_check_that_takes_long_sees_fewer_pictures_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = done(asked(run, methods=("saliency",)))
    monkeypatch.setattr(league, "LEAST_IMAGES", 2)
    monkeypatch.setattr(league, "PASSES", 10)
    [row] = done(dataclasses.replace(asked(run, methods=("saliency",)), layer="layer2"))
    [(two, _)] = [open_run(run).test_batch(2)]
    named = open_run(run).model.eval()(two).argmax(1)
    expected = judge("single", open_run(run).model, Case(two, named, "saliency", "layer2", masked=True))
    assert row["findings"]["single"]["sentence"] == f"On the first 2 pictures: {expected.sentence}"
    assert row["findings"]["content"] == whole[0]["findings"]["content"]  # takes nothing once the maps are there


def test_the_table_has_a_line_a_method_and_can_be_sorted(run: Run, tmp_path: Path) -> None:
    table = league.table(done(asked(run)))
    assert list(table.method) == ["Saliency", "Grad-CAM"]
    column = CHECKS["single"].title
    assert table[column].dtype == np.float64
    ordered = table.sort_values(column)
    assert ordered[column].is_monotonic_increasing
    assert list(table.columns)[-2:] == ["label", "why"]


def test_the_command_writes_the_table(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["judge", run.id, "--images", "6", "--methods", "saliency", "grad-cam", "--checks", *QUICK]
    assert main([*typed, "--out", str(tmp_path / "table.csv")]) == 0
    first = capsys.readouterr().out
    expected = league.table(done(asked(run)))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), expected)
    assert "Saliency: " in first
    assert main([*typed, "--out", str(tmp_path / "again.csv")]) == 0
    assert capsys.readouterr().out == first, "also where it is read"
    assert main(["judge", run.id, "--checks", "none"]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["judge", run.id, "--images", "0"]) == 2


def test_the_pictures_are_those_of_some_tests_with_their_masks() -> None:
    data = load("shapes")
    images, labels = some_tests(data, 7)
    found = sampled(data, 7)
    assert torch.equal(found.test_images, images)
    assert torch.equal(found.test_labels, labels)
    assert found.test_masks is not None
    assert data.test_masks is not None
    [row] = [i for i in range(1000) if torch.equal(data.test_images[i], images[3])]
    assert torch.equal(found.test_masks[3], data.test_masks[row])


def test_only_a_recipe_with_blanked_patches_makes_scores_comparable(run: Run) -> None:
    other = uninterrupted(dataclasses.replace(RECIPE, epochs=1, seed=1))
    said = [done(asked(each, methods=("saliency",)))[0]["findings"]["single"]["sentence"] for each in (run, other)]
    assert ["Not comparable" in sentence for sentence in said] == [False, True]
    assert runs.find(run.id).job.recipe.mask


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_league_gets_the_memory_that_it_needs() -> None:
    """On Linux a process gets no more than was predicted, and methods run hundreds of small pictures at once."""
    net = from_code("ResNet-56")
    model = Model(net, Weights("seed", "0"), usual(net, "CIFAR-10's"))
    request = League(model, "shapes", 4, "", ("integrated-gradients",), ("content",))
    cost = request.cost()
    assert cost.bytes <= WORK_BYTES
    process = Process()
    *_, end = process.answers(request, cost.bytes)
    process.kill()
    assert end.kind == DONE, end.value


def test_checks_of_a_relative_have_a_price() -> None:
    model = Model(None, Weights("torchvision", "IMAGENET1K_V1"), name="DenseNet-121")
    picture = Picture.of(np.zeros((3, model.image_size, model.image_size), np.uint8))
    cost = Judged(Query(model, picture, "grad-cam", model.layers()["stage4"], 0), "deletion").cost()
    assert cost.seconds > 1
    assert cost.bytes > 100e6
