"""Gradients: before and after training."""

import pytest

from resnet.nets.codes import to_code
from resnet.runs.store import Run
from tests.support.pages import TINY, field, fine, open_page, texts


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
