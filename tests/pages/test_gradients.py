"""Gradients: before and after training."""

import json

import pytest
from safetensors.torch import save

from resnet.analysis.batches import noise_batch
from resnet.analysis.gradients import OUTPUT, gradient_norms
from resnet.nets.codes import to_code
from resnet.nets.model import build
from resnet.runs.store import Run
from tests.support.pages import TINY, field, fine, numbers, open_page, texts


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_of_both_norms(norm: str) -> None:
    app = open_page("insight/gradients.py", net=to_code(TINY))
    field(app, "button_group", "gradients.norm").set_value(norm).run()
    captions = "\n".join(caption.value for caption in fine(app).caption)
    assert captions.count("per layer") == 4  # two nets in each of two figures


def test_gradients_with_zero_init() -> None:
    app = open_page("insight/gradients.py", net=to_code(TINY))
    field(app, "toggle", "gradients.zero").set_value(True).run()
    assert " are 0 " in texts(fine(app)), "a branch that starts at zero gets no gradient, and a log axis cannot show it"


def test_gradients_refuses_a_net_that_would_not_fit() -> None:
    app = open_page("insight/gradients.py", net="ResNet-152~stages.50x4096s1~image_size.1024")
    assert "too large to be run inside the app" in app.error[0].value


def test_gradients_after_training(pair: list[Run]) -> None:
    app = open_page("insight/gradients.py")
    field(app, "button_group", "gradients.when").set_value("after training").run()
    assert "after training, on one batch" in texts(fine(app))


def test_gradients_with_weights_of_a_file_are_those_of_the_net_that_they_came_from() -> None:
    app = open_page("insight/gradients.py", net=to_code(TINY))
    field(app, "button_group", "gradients.when").set_value("other weights").run()
    field(app, "selectbox", "gradients.weights").set_value("my own file").run()
    app.file_uploader[0].set_value(("own.safetensors", save(build(TINY, seed=4).state_dict()), "application/x")).run()
    expected = gradient_norms(build(TINY, seed=4), *noise_batch(TINY, 128))
    drawn = numbers(json.loads(fine(app).get("plotly_chart")[0].proto.spec)["data"][0]["y"])
    assert drawn == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)
