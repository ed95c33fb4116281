"""Gradients: before and after training; and with it what every page of an analysis shares."""

import json

import pytest
from safetensors.torch import save

from resnet.analysis.batches import noise_batch
from resnet.analysis.gradients import OUTPUT, gradient_norms
from resnet.data import dataset as datasets
from resnet.nets.codes import to_code
from resnet.nets.model import build
from resnet.nets.spec import plain_twin
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from tests.support.pages import TINY, address, field, fine, numbers, open_page, texts

PAGE = "why/gradients.py"


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_of_both_norms(norm: str) -> None:
    app = open_page(PAGE, net=to_code(TINY))
    field(app, "selectbox", "norm").set_value(norm).run()
    captions = "\n".join(caption.value for caption in fine(app).caption)
    assert captions.count("per layer") == 4  # two nets in each of two figures


def test_gradients_with_zero_init() -> None:
    app = open_page(PAGE, net=to_code(TINY))
    field(app, "selectbox", "start").set_value("zero").run()
    assert " are 0 " in texts(fine(app)), "a branch that starts at zero gets no gradient, and a log axis cannot show it"


def test_gradients_refuses_a_net_that_would_not_fit() -> None:
    app = open_page(PAGE, net="ResNet-152~stages.50x4096s1~image_size.1024")
    assert "too large to be run inside the app" in app.error[0].value


def test_gradients_after_training_beside_those_of_the_untrained_twin(pair: list[Run]) -> None:
    code = f"new:{to_code(plain_twin(TINY))}"
    app = open_page(PAGE, net=to_code(TINY))
    field(app, "multiselect", "why.nets").set_value([f"run:{pair[0].id}"]).run()
    assert field(fine(app), "selectbox", "images").value == "own"
    opened = open_run(pair[0])
    expected = gradient_norms(opened.model, *opened.test_batch(128))
    assert drawn(app) == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)
    field(app, "multiselect", "why.nets").set_value([f"run:{pair[0].id}", code]).run()
    assert field(fine(app), "selectbox", "images").value == "noise", "an untrained net has no images of its own"
    expected = gradient_norms(build(plain_twin(TINY)), *noise_batch(TINY, 128))
    assert drawn(app, 1) == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)


def test_gradients_with_weights_of_a_file_are_those_of_the_net_that_they_came_from() -> None:
    app = open_page(PAGE, net=to_code(TINY))
    field(app, "multiselect", "why.nets").set_value(["file"]).run()
    app.file_uploader[0].set_value(("own.safetensors", save(build(TINY, seed=4).state_dict()), "application/x")).run()
    expected = gradient_norms(build(TINY, seed=4), *noise_batch(TINY, 128))
    assert drawn(fine(app)) == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)


def test_the_address_holds_the_view() -> None:
    code = f"new:{to_code(TINY)}"
    other = open_page(PAGE, nets=code, norm="group norm", images="test images of shapes", seed="5")
    assert field(other, "multiselect", "why.nets").value == [code]
    assert field(other, "selectbox", "norm").value == "group"
    assert field(other, "selectbox", "images").value == "shapes"
    assert field(other, "number_input", "seed").value == 5
    assert address(other, "nets") == code


def test_the_first_figure_of_a_link_has_its_seed() -> None:
    app = open_page(PAGE, nets=f"new:{to_code(TINY)}", seed="5")
    expected = gradient_norms(build(TINY, seed=5), *noise_batch(TINY, 128, seed=5))
    assert drawn(app) == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)


def test_images_of_a_data_set() -> None:
    app = open_page(PAGE, net=to_code(TINY))
    field(app, "selectbox", "images").set_value("shapes").run()
    data = datasets.load_offered("shapes", size=TINY.image_size, train=2000)
    images, labels = datasets.some_tests(data, 128)
    expected = gradient_norms(build(TINY), datasets.normalise(images, data.mean, data.std), labels)
    assert drawn(fine(app)) == pytest.approx(expected[expected.kind == OUTPUT].norm.tolist(), rel=1e-4)


def drawn(app, line: int = 0) -> list:
    """The heights of a line of the first figure."""
    return numbers(json.loads(app.get("plotly_chart")[0].proto.spec)["data"][line]["y"])
