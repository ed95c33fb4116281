"""Relatives: other nets, as far as they run."""

from tests.support.pages import field, fine, open_page


def test_a_relative_on_too_small_an_image_is_shown_up_to_there() -> None:
    app = open_page("design/relatives.py")
    assert {"Parameters": "132,863,336"}.items() <= {metric.label: metric.value for metric in app.metric}.items()
    field(app, "number_input", "relatives.size").set_value(16).run()
    assert "stops at features.20" in fine(app).error[0].value
    assert len(app.dataframe[0].value) == 20
    field(app, "button_group", "relatives.kind").set_value("Systems").run()
    assert not fine(app).error
