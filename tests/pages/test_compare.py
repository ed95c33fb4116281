"""Compare: what differs and what is published, of the visitor's own net too."""

import json
from collections.abc import Generator

import pytest

from resnet.costs.speed import Latency
from resnet.work.contract import Progress
from resnet.work.requests import NetLatency
from tests.support.pages import field, fine, numbers, open_page, press, texts


def test_compare_explains_the_two_listings() -> None:
    app = open_page("design/compare.py", net="ResNet-50")
    assert "ResNet-50 Keras listing" in field(app, "multiselect", "compare.nets").value
    field(app, "button_group", "compare.view").set_value("Difference of two").run()
    assert "stride of stage 1: `1` → `2`" in texts(fine(app))
    assert "exactly -2,978,611,200" in texts(app)
    field(app, "button_group", "compare.view").set_value("Published accuracy").run()
    assert {76.13, 80.858} <= set(fine(app).dataframe[-1].value["value"])
    field(app, "multiselect", "compare.nets").set_value(["VGG-11"]).run()
    assert "two nets or more" in texts(fine(app))
    field(app, "multiselect", "compare.nets").set_value(["VGG-11", "FCN ResNet-50"]).run()
    for view in ("Costs", "Difference of two", "Published accuracy"):
        field(app, "button_group", "compare.view").set_value(view).run()
        assert not fine(app).error


def test_an_accuracy_measured_at_another_size_is_marked() -> None:
    app = open_page("design/compare.py", net="ResNet-50~image_size.160")
    field(app, "button_group", "compare.view").set_value("Published accuracy").run()
    marks = {trace["name"]: trace for trace in json.loads(fine(app).get("plotly_chart")[0].proto.spec)["data"]}
    own = marks["My net: ResNet-50"]
    assert set(numbers(own["marker"]["symbol"])) <= set(range(100, 108))  # hollow
    assert all("measured at 224 px" in text for text in own["text"])
    for other in ("ResNet-50", "ResNeXt-50 32x4d"):
        assert set(numbers(marks[other]["marker"]["symbol"])) <= set(range(8))
    assert "A hollow mark was measured at another size" in texts(app)


def test_compare_follows_the_visitors_net() -> None:
    app = open_page("design/compare.py", net="ResNet-20~stem_width.9~shortcut.B")
    chosen = field(app, "multiselect", "compare.nets").value
    assert chosen[0] == "My net: ResNet-20 (custom)"
    app.query_params["net"] = "plain-56"
    fine(app.run())
    assert not app.error
    assert "My net: plain-56" in field(app, "multiselect", "compare.nets").options


def test_compare_measures_and_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.010, 0.020, 0.030, 0.040])

    def run(request: NetLatency) -> Generator[Progress, None, Latency]:
        yield Progress(0.0, request.name)
        return Latency(1, "cpu", "fp32", 1, (next(seconds),))

    monkeypatch.setattr(NetLatency, "run", run)
    app = open_page("design/compare.py", net="ResNet-20")
    field(app, "multiselect", "compare.nets").set_value(["ResNet-20", "ResNet-56"]).run()
    press(app, next(button.label for button in app.button if button.label.startswith("Measure their speed here (")))
    assert [round(value) for value in app.dataframe[0].value["latency"]] == [10, 20]
    press(app, "Measure their speed here again")
    assert [round(value) for value in app.dataframe[0].value["latency"]] == [30, 40]
