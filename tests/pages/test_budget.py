"""Budget: the nets that fit."""

from tests.support.pages import field, fine, open_page, texts


def test_budget_lists_the_nets_that_fit_and_keeps_them_until_the_next_search() -> None:
    app = open_page("design/budget.py", net="ResNet-20")
    field(app, "number_input", "budget.params").set_value(0.3).run()
    next(button for button in app.button if button.label == "Find nets").click().run()
    table = fine(app).dataframe[0].value
    assert len(table) > 1
    assert (table.params <= 300_000).all()
    field(app, "number_input", "budget.params").set_value(0.000001).run()
    assert "Your limits have changed" in texts(fine(app))
    assert len(app.dataframe[0].value) == len(table), "the old nets stay until the next search"
    next(button for button in app.button if button.label == "Find nets").click().run()
    assert "No net of the grid fits" in texts(fine(app))
