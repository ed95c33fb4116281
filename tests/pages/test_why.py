"""The pages of the analyses: every view opens, on untrained twins or a trained pair, and says what the library says."""

import json

import pytest

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.contract import last
from resnet.analysis.lesions import Lesions
from resnet.claims import figures
from resnet.claims.claims import CLAIMS
from resnet.files import ROOT
from resnet.nets.codes import to_code
from resnet.runs import store as runs
from resnet.runs.jobs import Job
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.runs.worker import work as train
from resnet.train.recipes import Recipe
from tests.support.pages import TINY, field, fine, numbers, open_page, press, texts

UNTRAINED = {
    "why/signal.py": ("Signal forward", "Layer responses"),
    "why/paths.py": ("Where the gradient travels", "Path lengths"),
    "why/batches.py": ("Do mini-batches agree?", "Shattered gradients"),
}
TRAINED = {
    "why/lesions.py": ("One block broken", "Blocks dropped"),
    "why/landscape.py": ("Loss along a line", "Loss over a plane"),
    "why/features.py": ("Which layers are alike?", "Receptive fields"),
}


@pytest.mark.parametrize(("page", "view"), [(page, view) for page, views in UNTRAINED.items() for view in views])
def test_untrained_twins_side_by_side(page: str, view: str) -> None:
    app = open_page(page, net=to_code(TINY), view=view)
    [entry] = [entry for entry in ANALYSES.values() if entry.title == view]
    compute(app)
    assert app.get("plotly_chart")
    assert entry.look in texts(app)
    assert entry.question in texts(app)
    assert entry.expect in texts(app)


@pytest.mark.parametrize(("page", "view"), [(page, view) for page, views in TRAINED.items() for view in views])
def test_a_trained_pair_side_by_side(page: str, view: str, pair: list[Run]) -> None:
    app = open_page(page, view=view)
    assert len(field(app, "multiselect", "why.trained").value) == 2
    for slider in app.select_slider:
        if slider.key == "landscape.points.surface":
            slider.set_value(9).run()  # 81 points a net, not 289
    compute(app)
    assert app.get("plotly_chart")


def compute(app) -> None:
    """Start what is not light."""
    if any(button.label.startswith("Compute") for button in app.button):
        press(app, next(button.label for button in app.button if button.label.startswith("Compute")))
    assert not fine(app).error, app.error[0].value


def test_the_recorded_pairs_surfaces_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHIPPED", ROOT / "assets" / "runs")
    app = open_page("why/landscape.py", view="Loss over a plane")
    assert not any(button.label.startswith("Compute") for button in app.button)
    assert len(app.get("plotly_chart")) == 2
    rows = app.dataframe[0].value
    assert rows.groupby("net").size().tolist() == [17 * 17] * 2
    middle = rows[(rows.a == 0) & (rows.b == 0)].set_index("net")
    half = rows[rows.a.abs() + rows.b.abs() == 0.5].query("a == 0 or b == 0").groupby("net").accuracy
    for net, accuracies in half:
        assert f"{100 * accuracies.min():.0f} % to {100 * accuracies.max():.0f} %" in texts(app), net
        assert f"of {100 * middle.accuracy[str(net)]:.0f} %" in texts(app), net
    for run in (run for run in runs.recorded_twins() if run.job.net.depth == 56):
        recorded = run.epochs().test_accuracy.iloc[-1]
        assert middle.accuracy[run.job.net.name] == pytest.approx(recorded, abs=0.05), "250 images of 10,000"


def test_the_recorded_pairs_lines_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHIPPED", ROOT / "assets" / "runs")
    app = open_page("why/landscape.py", view="Loss along a line")
    assert not any(button.label.startswith("Compute") for button in app.button)
    rows = app.dataframe[0].value
    assert rows.groupby("net").size().tolist() == [17] * 2
    for net, own in rows.groupby("net"):
        loss = own.set_index("a").loss
        ends = sorted([loss[-0.25], loss[0.25]])
        said = f"from {loss[0.0]:.2f} to {ends[0]:.2f}", f"{ends[1]:.2f}"
        assert all(number in texts(app) for number in said), net


def test_the_path_of_a_training(pair: list[Run]) -> None:
    app = open_page("why/landscape.py", view="Path of a training")
    assert "No run here has kept its weights after two epochs" in app.info[0].value, "these trained for one"
    run = runs.create(Job(TINY, "shapes", Recipe(epochs=3, batch=32), train_images=64))
    assert train(run.path).state == "finished"
    app = open_page("why/landscape.py", view="Path of a training")
    compute(app)
    assert "after epochs 1, 2, the last" in texts(app)
    assert len(app.get("plotly_chart")) == 1


def test_a_net_to_which_an_analysis_does_not_apply_is_left_out() -> None:
    app = open_page("why/paths.py", net=to_code(TINY))
    assert "plain-6 (custom) is left out. This net adds no shortcut" in "\n".join(box.value for box in app.info)
    assert app.get("plotly_chart"), "the residual twin is still shown"


def test_the_figure_is_the_librarys() -> None:
    app = open_page("why/signal.py", net=to_code(TINY))
    from resnet.analysis.batches import noise_batch
    from resnet.nets.model import build

    expected = last(ANALYSES["signal"].function(build(TINY), *noise_batch(TINY, 128)))
    drawn = numbers(json.loads(app.get("plotly_chart")[0].proto.spec)["data"][0]["y"])
    assert drawn == pytest.approx(expected.output.tolist(), rel=1e-4)


def test_a_block_is_broken_in_a_link_and_mended(pair: list[Run]) -> None:
    run = next(run for run in pair if not run.job.net.plain)
    app = open_page("why/lesions.py", nets=f"run:{run.id}", cuts="layer2.0:branch")
    opened = open_run(run)
    images, labels = opened.test_batch(1000)
    left = Lesions(opened.model, images).score(labels, {"layer2.0": "branch"})["accuracy"]
    assert app.metric[0].value == f"{left:.1%}"
    press(app, "Put all back")
    assert app.metric[0].delta == "+0.0 points"
    assert "cuts" not in app.query_params


def test_a_cut_that_cannot_be_made_is_told(pair: list[Run]) -> None:
    app = open_page("why/lesions.py", cuts="layer2.0:cut")
    assert "layer2.0 (cut the block (y = x))" in "\n".join(box.value for box in app.info), "it changes the shape"
    assert all(metric.delta == "+0.0 points" for metric in app.metric)


def test_gradients_follow_the_broken_net(pair: list[Run]) -> None:
    app = open_page("why/lesions.py", cuts="layer2.0:branch")
    field(app, "toggle", "gradients").set_value(True).run()
    assert len(fine(app).get("plotly_chart")) == 3  # the diagram and the two figures


def test_grad_cam_follows_the_broken_net(pair: list[Run]) -> None:
    whole = open_page("why/lesions.py")
    field(whole, "toggle", "cam").set_value(True).run()
    broken = open_page("why/lesions.py", cuts="layer2.0:branch")
    field(broken, "toggle", "cam").set_value(True).run()
    [whole_map, broken_map] = [fine(app).get("plotly_chart")[1].proto.spec for app in (whole, broken)]
    assert whole_map != broken_map, "the residual net's is another"


@pytest.mark.parametrize("view", ["A picture, layer by layer", "Layers of two nets"])
def test_features_of_a_picture_and_of_two_nets(view: str, pair: list[Run]) -> None:
    app = open_page("why/features.py", view=view, photo="sample:cat")
    assert fine(app).get("plotly_chart")
    assert not app.error


def test_nearest_training_images(pair: list[Run]) -> None:
    app = open_page("why/features.py")
    field(app, "toggle", "nearest").set_value(True).run()
    for button in [button.label for button in fine(app).button if button.label.startswith("Find them")]:
        press(app, button)
    assert "Among 2,000 training images" in texts(app)


def test_every_claim_has_its_figures_and_a_verdict() -> None:
    app = open_page("why/claims.py")
    measured = figures.read().set_index("id")
    for key, claim in CLAIMS.items():
        assert set(claim.figures) <= set(measured.index), key
        assert claim.why
        field(app, "toggle", f"claims.{key}").set_value(True).run()
        assert claim.why in texts(fine(app))
