"""Every kind of work that the app asks for: as plain values, through a real process, and against the library."""

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from safetensors.torch import load, save
from torch import nn

from resnet.analysis.travel import travel
from resnet.costs.budget import Budget, search
from resnet.costs.memory import memory
from resnet.errors import Refused
from resnet.files import FOLDERS
from resnet.nets.codes import from_code
from resnet.nets.model import build
from resnet.nets.spec import twins
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.work import analysing, explaining, judging, landscapes, requests, spool
from resnet.work.contract import Request
from resnet.work.process import Process
from resnet.work.weights import Model, Weights
from resnet.work.worker import DONE
from tests.support.tiny import RECIPE, TINY_CODE, uninterrupted
from tests.support.work import done

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back", "own_cache")
NET = from_code(TINY_CODE)
SEED = Weights("seed", "0")
PICTURE = explaining.Picture.of(np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8))


@pytest.fixture
def run(tiny_data: Path) -> Run:
    return uninterrupted(dataclasses.replace(RECIPE, epochs=3))


@pytest.fixture
def every(run: Run, tmp_path: Path) -> dict[str, Request]:
    """One request of each kind, by the name of its class."""
    trained = (Model.of(run),)
    made: list[Request] = [
        analysing.Analysed("gradients", tuple(Model(net, SEED) for net in twins(NET)), analysing.NOISE, 4),
        analysing.Moment("gradients", *trained, 4),
        analysing.Inspected(*trained, PICTURE, "layer1.0"),
        analysing.Broken(*trained, (("layer1.0", "cut"),), 20),
        analysing.Alike(*trained, *trained, 20),
        analysing.Features(*trained, PICTURE, "layer1"),
        analysing.Nearest(*trained, PICTURE, "layer1", 20),
        landscapes.PathOfTraining(*trained, (1, 2), 20, 3),
        explaining.Answers(trained, (PICTURE,)),
        explaining.Maps((explaining.Query(*trained, PICTURE, "grad-cam", "layer1", 0),)),
        judging.Judged(explaining.Query(*trained, PICTURE, "grad-cam", "layer1", 0), "single"),
        judging.League(*trained, "tiny.npz", 4, "", ("saliency",), ("content",)),
        requests.Speed(NET, 2, "fp32", "cpu"),
        requests.NetLatency("net", NET),
        requests.Peak(NET, 2, "sgd", "fp32"),
        requests.Search(NET, Budget(100_000, 0), ("basic",), ("3x3",)),
        requests.Fitting(NET, SEED),
        requests.Beginning(NET, SEED, "drawn", str(tmp_path)),
        requests.Exported("weights", NET, SEED, str(tmp_path)),
    ]
    return {type(request).__name__: request for request in made}


KINDS = [
    name
    for module in (requests, analysing, explaining, judging, landscapes)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "cost")
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_work_is_plain_values_with_a_price(every: dict[str, Request], kind: str) -> None:
    request = every[kind]
    copy = pickle.loads(pickle.dumps(request))  # noqa: S301 - its own
    assert copy == request
    assert hash(copy) == hash(request)
    cost = request.cost()
    assert cost.bytes > 0
    assert cost.seconds > 0


@pytest.mark.slow
def test_every_kind_of_work_is_done_in_a_process(every: dict[str, Request]) -> None:
    process = Process()
    for request in every.values():
        *said, end = process.answers(request, request.cost().bytes)
        assert end.kind == DONE, end.value
        assert said, "it tells how far it is"
        assert all(0 <= answer.value.share <= 1 and answer.value.text for answer in said)
    process.kill()


def test_two_pictures_are_one_only_where_every_pixel_is_equal() -> None:
    pixels = np.zeros((3, 300, 300), np.uint8)
    other = pixels.copy()
    other[2, 299, 298] = 1
    assert explaining.Picture.of(pixels) == explaining.Picture.of(pixels.copy())
    assert explaining.Picture.of(pixels) != explaining.Picture.of(other)
    assert np.array_equal(explaining.Picture.of(other).batch(), other[None])


def test_gradients_of_a_data_sets_images_know_versions_of_its_file() -> None:
    first = analysing.Analysed("gradients", (Model(NET, SEED),), "tiny.npz", 4, changed=1.0)
    assert first != dataclasses.replace(first, changed=2.0)
    assert_frame_equal(done(first), done(first))


def surface(run: Run, count: int = 20) -> analysing.Analysed:
    return analysing.Analysed("surface", (Model.of(run),), analysing.OWN, count, options=(("points", 3),))


def test_a_runs_surface_is_computed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, before = done(surface(run)), surface(run).cost()
    monkeypatch.setattr(analysing.Analysed, "_batch", None)  # another computation would end in an error
    assert_frame_equal(done(surface(run)), first.astype(done(surface(run)).dtypes))
    assert before == landscapes.Cost(landscapes.READ_BYTES, 0.1)
    with pytest.raises(TypeError):
        done(surface(run, 10))


def test_a_surface_of_fewer_pictures_than_asked_for_is_not_kept(run: Run) -> None:
    done(surface(run, 1000))
    assert surface(run, 1000).cost().bytes != landscapes.READ_BYTES


def test_a_cache_that_cannot_be_written_costs_no_result(
    run: Run, every: dict[str, Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(done(surface(run))) == 9
    assert len(done(every["League"])) == 1


def test_a_damaged_surface_is_computed_again(run: Run) -> None:
    first = done(surface(run))
    [path] = (FOLDERS.user_cache_path / "landscapes").iterdir()
    path.write_bytes(b"no table")
    assert_frame_equal(done(surface(run)), first)


def test_a_training_ends_at_the_middle_of_its_path(run: Run) -> None:
    found = done(landscapes.PathOfTraining(Model.of(run), (1, 2), 20, 3))
    assert found.path.epoch.tolist() == ["1", "2", "the last"]
    assert found.path[["a", "b"]].iloc[-1].tolist() == [0, 0]
    assert len(found.surface) == 9
    low, high = found.path.a.min(), found.path.a.max()
    assert found.surface.a.min() < low
    assert found.surface.a.max() > high


@pytest.mark.parametrize("epoch", [1, None])
def test_a_moment_is_of_the_weights_that_are_there(run: Run, epoch: int | None) -> None:
    asked = Model(run.job.net, Weights("run", run.id, step=1, epoch=epoch))  # the worker has gone on since
    found, opened = done(analysing.Moment("travel", asked, 20)), open_run(run, epoch)
    assert found.step == (8 if epoch else 24)
    assert_frame_equal(found.table, travel(opened.model, *opened.test_batch(20)))


def test_a_search_ends_with_the_last_list() -> None:
    budget = Budget(100_000, 0)
    *_, (_, found) = search(NET, budget, ("basic",), ("3x3",))
    assert done(requests.Search(NET, budget, ("basic",), ("3x3",))) == found


def test_a_peak_is_measured_near_the_prediction() -> None:
    net = from_code("ResNet-8")
    assert done(requests.Peak(net, 32, "sgd", "fp32")) == pytest.approx(memory(net, 32).peak, rel=0.25)


def assert_equal(content: bytes, model: nn.Module) -> None:
    found = load(content)
    assert all(found[name].equal(value) for name, value in model.state_dict().items())


def test_an_exported_file_is_named_by_its_content(tmp_path: Path) -> None:
    path = done(requests.Exported("weights", NET, SEED, str(tmp_path)))
    content = path.read_bytes()
    assert path.name == hashlib.sha256(content).hexdigest()
    assert_equal(content, build(NET, 0))


def test_weights_of_a_file_are_those_that_are_exported(tmp_path: Path) -> None:
    model = build(NET, seed=5)
    file = spool.put(tmp_path, save(model.state_dict()))
    path = done(requests.Exported("weights", NET, Weights("file", str(file)), str(tmp_path)))
    assert_equal(path.read_bytes(), model)
    wrong = spool.put(tmp_path, save({"conv1.weight": model.state_dict()["conv1.weight"]}))
    assert not done(requests.Fitting(NET, Weights("file", str(wrong)))).report.fits
    with pytest.raises(Refused, match="not the weights of"):
        done(requests.Exported("weights", NET, Weights("file", str(wrong)), str(tmp_path)))


def test_the_oldest_files_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FILE_BYTES", 250)
    folder = tmp_path / "files"
    folder.mkdir()
    paths = []
    for number, letter in enumerate("abc"):
        paths.append(spool.put(folder, letter.encode() * 100))
        os.utime(paths[-1], (number, number))
    assert [path.exists() for path in paths] == [False, True, True]
    assert spool.put(folder, b"b" * 100) == paths[1]
    spool.put(folder, b"d" * 100)
    assert [path.exists() for path in paths] == [False, True, False], "b has been asked for again"
