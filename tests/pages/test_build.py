"""Build: figures of the net and its twin, edits that follow one another, and rules that are named."""

import pytest

from resnet.costs.conventions import count
from resnet.costs.profiler import profile
from resnet.nets.codes import from_code, to_code
from resnet.nets.spec import PRESETS, plain_twin
from tests.support.pages import address, field, fine, open_page, texts


@pytest.mark.parametrize(
    "name", ["ResNet-20", "ResNet-1202", "ResNet-152", "SE-ResNet-50", "Pre-ResNet-50", "ResNet3D-18"]
)
def test_build_shows_a_preset_and_its_twin(name: str) -> None:
    app = open_page("design/build.py")
    field(app, "selectbox", "build.preset").set_value(name).run()
    figures = {metric.label: metric for metric in fine(app).metric}
    own, twin = profile(PRESETS[name]), profile(plain_twin(PRESETS[name]))
    assert figures["Parameters"].value == f"{own.params:,}"
    assert figures["MACs per image"].value == f"{own.macs:,}"
    assert figures["FLOPs per image"].value == f"{2 * own.macs:,}"
    assert figures["MACs per image"].delta.endswith(f"{twin.macs:,}")
    assert address(app) == to_code(PRESETS[name])


def test_build_keeps_the_last_valid_net_and_names_the_rule() -> None:
    app = open_page("design/build.py")
    field(app, "number_input", "build.width.2").set_value(8).run()
    said = fine(app).error[0].value
    assert "[16, 16, 32, 8]" in said, "what was received"
    assert "shortcut B" in said, "what would do"
    assert address(app) == "ResNet-20"
    field(app, "button_group", "build.shortcut").set_value("B").run()
    assert not fine(app).error
    assert "8s2" in address(app)


def test_build_edits_follow_one_another() -> None:
    app = open_page("design/build.py", net="ResNet-56")
    for blocks in (10, 11, 12):
        field(app, "number_input", "build.blocks.0").set_value(blocks).run()
        assert f"{blocks}x16s1" in address(fine(app))
    field(app, "number_input", "build.stages").set_value(4).run()
    assert address(fine(app)).endswith("9x64s2-9x128s2")
    for view in ("Layers", "Costs by stage", "Stages"):
        field(app, "button_group", "build.view").set_value(view).run()
        fine(app)


def test_build_marks_the_field_that_breaks_a_rule_and_opens_its_topic() -> None:
    app = open_page("design/build.py", net="ResNet-50")
    field(app, "number_input", "build.cardinality").set_value(32).run()
    assert "cardinality.32" in address(fine(app))
    field(app, "button_group", "build.block").set_value("basic").run()
    assert "ardinality" in fine(app).error[0].value
    assert "32" in app.error[0].value
    assert "bottleneck" in app.error[0].value
    assert "cardinality.32" in address(app), "the last valid net stays"
    assert [e.label for e in app.expander if e.proto.expanded] == ["Inside a block"]
    assert any(".st-key-build-cardinality" in getattr(html, "body", "") for html in app.get("html"))


def test_a_net_from_elsewhere_replaces_a_form_that_breaks_a_rule() -> None:
    app = open_page("design/build.py")
    field(app, "number_input", "build.width.2").set_value(8).run()
    assert fine(app).error
    field(app, "button_group", "build.view").set_value("Layers").run()
    assert fine(app).error, "another view does not fix the form"
    assert field(app, "number_input", "build.width.2").value == 8
    app.query_params["net"] = "ResNet-32"  # as Back or a link does
    assert not fine(app.run()).error
    assert field(app, "number_input", "build.width.2").value == 64
    assert field(app, "number_input", "build.blocks.0").value == 5


def test_output_stride_dilates() -> None:
    app = open_page("design/build.py", net="ResNet-50")
    field(app, "selectbox", "build.output_stride").set_value(8).run()
    assert address(fine(app)) == "ResNet-50_OS8"
    assert field(app, "number_input", "build.dilation.3").value == 4


@pytest.mark.parametrize("view", ["Counting rules", "Memory", "Speed"])
@pytest.mark.parametrize("net", ["ResNet-20", "ResNet3D-10_volume~frames.8~image_size.16"])
def test_views_of_costs(view: str, net: str) -> None:
    app = open_page("design/build.py", net=net)
    field(app, "button_group", "build.view").set_value(view).run()
    if view == "Counting rules":
        assert count(profile(from_code(net)), "he2015") == int(fine(app).metric[-1].value.replace(",", ""))
        field(app, "selectbox", "costs.convention").set_value("thop").run()
        assert count(profile(from_code(net)), "thop") == int(fine(app).metric[-1].value.replace(",", ""))
    if view == "Memory" and net == "ResNet-20":
        field(app, "number_input", "costs.batch").set_value(8).run()
        next(button for button in app.button if "Measure the peak" in button.label).click().run()
        values = {metric.label: float(metric.value.split()[0].replace(",", "")) for metric in fine(app).metric[4:]}
        assert values["Measured peak while training"] == pytest.approx(values["Peak while training"], rel=0.25)
    if view == "Speed":
        next(button for button in app.button if "Measure" in button.label).click().run()
        assert "Median of" in texts(app)
    assert not fine(app).error
