"""The path that people walk, in a real browser on a running app, with a picture of every page."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from safetensors.torch import load_file

from resnet.files import ROOT
from tests.support.browser import fine, legible_in_the_dark, photo, pick, pictures, settled, whole

MAP = re.compile("for the logit of")
DRAWN_TEXTS, FAINT_TEXTS = (ROOT / "tests" / "support" / name for name in ("drawn_texts.js", "faint_texts.js"))


def test_a_deep_link_on_a_fresh_server_opens_its_page(address: str, page: Page) -> None:
    page.goto(f"{address}/build?net=ResNet-32")
    settled(page)
    expect(page.get_by_role("heading", name="ResNet-32")).to_be_visible()
    expect(page.get_by_text("464,154").first).to_be_visible()
    assert not page.get_by_text("Page not found").count()
    fine(page)


def test_home_is_alive(address: str, page: Page) -> None:
    page.goto(address)
    settled(page)
    expect(page.get_by_text("269,722").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    pictures(page, "1-start")
    page.get_by_role("link", name="Build").last.click()
    expect(page).to_have_url(re.compile("/build"))
    fine(page)


def test_every_edit_changes_the_net_and_the_address(address: str, page: Page) -> None:
    page.goto(f"{address}/build?net=ResNet-20")
    settled(page)
    page.get_by_role("radio", name="B: projection").click()
    expect(page.get_by_text("272,474").first).to_be_visible()
    expect(page).to_have_url(re.compile("shortcut.B"))
    for blocks, params in [("4", "277,146"), ("5", "281,818")]:  # two edits of one field: none may get lost
        page.get_by_label("Stage 1 blocks").fill(blocks)
        page.get_by_label("Stage 1 blocks").press("Enter")
        expect(page.get_by_text(params).first).to_be_visible()
    address_of_edit = page.url
    page.get_by_role("radio", name="none: plain").click()
    page.goto(address_of_edit)
    settled(page)
    expect(page.get_by_text("281,818").first).to_be_visible()
    page.reload()
    settled(page)
    expect(page.get_by_text("281,818").first).to_be_visible()
    fine(page)


def test_a_click_on_a_box_opens_its_stage_and_a_broken_rule_is_marked(address: str, page: Page) -> None:
    page.goto(f"{address}/build?net=ResNet-152")
    settled(page)
    expect(page.locator(".js-plotly-plot").get_by_text("x 35", exact=True).first).to_be_visible()
    box, area = page.locator(".js-plotly-plot .bars path").nth(3), page.locator(".js-plotly-plot .nsewdrag")
    inside, around = box.bounding_box(), area.bounding_box()
    assert inside
    assert around
    x = inside["x"] + inside["width"] / 2 - around["x"]
    y = inside["y"] + inside["height"] / 2 - around["y"]
    area.hover(position={"x": x, "y": y})
    expect(page.locator(".hoverlayer").get_by_text("layer2.0")).to_be_visible()
    area.click(position={"x": x, "y": y})
    expect(page.get_by_text("Layers of stage2")).to_be_visible()
    page.get_by_text("Inside a block", exact=True).click()
    cardinality = page.get_by_role("spinbutton", name="Cardinality")
    cardinality.fill("32")
    cardinality.press("Enter")
    expect(page).to_have_url(re.compile("cardinality.32"))
    page.get_by_role("radio", name="basic", exact=True).click()
    expect(page.get_by_text(re.compile("32.*bottleneck"))).to_be_visible()
    expect(page.locator(".st-key-build-cardinality")).to_have_css("outline-style", "solid")
    expect(page.locator(".js-plotly-plot").get_by_text("x 35", exact=True).first).to_be_visible()
    pictures(page, "2-build-broken")
    fine(page)


def test_no_table_cuts_off_a_number_when_the_net_changes(address: str, page: Page) -> None:
    page.add_init_script(path=DRAWN_TEXTS)
    page.goto(f"{address}/build?net=ResNet-20")
    settled(page)
    whole(page, "203,520")
    page.get_by_role("combobox", name="Start from a preset").fill("ResNet-50")
    page.get_by_role("option", name="ResNet-50", exact=True).click()
    whole(page, "14,964,736", "1,464,336,384")
    page.get_by_label("Image size").fill("640")
    page.get_by_label("Image size").press("Enter")
    whole(page, "11,953,766,400")
    page.get_by_role("radio", name="Layers", exact=True).click()
    whole(page, "9,408", "2,359,296", "AdaptiveAvgPool2d")
    fine(page)


def test_a_number_far_down_a_table_is_whole(address: str, page: Page) -> None:
    page.add_init_script(path=DRAWN_TEXTS)
    page.set_viewport_size({"width": 390, "height": 1000})
    page.goto(f"{address}/relatives")
    settled(page)
    page.get_by_role("radio", name="Layers", exact=True).click()
    whole(page, "kernel", "102,764,544")
    fine(page)


VIEWS = {
    "compare": ["Difference of two", "Published accuracy", "Costs"],
    "budget": [],
    "relatives": ["Layers", "Counting rules", "Stages"],
    "export": [],
    "block": ["Back", "One step"],
    "gradients": [],
    "signal": ["Layer responses"],
    "paths": ["Path lengths"],
    "batches": ["Shattered gradients"],
    "lesions": ["One block broken"],
    "landscape": [],
    "features": ["Which layers are alike?"],
    "claims": [],
}


def choose(page: Page, section: str, title: str) -> None:
    """Open a page from the menu of its section."""
    page.locator("header").get_by_text(section, exact=True).click()
    page.get_by_role("menuitem", name=title).click()


@pytest.mark.parametrize("name", VIEWS)
def test_a_page_on_a_desktop_on_a_phone_and_in_the_dark(address: str, page: Page, name: str) -> None:
    page.add_init_script(path=FAINT_TEXTS)
    page.goto(f"{address}/{name}?net=ResNet-20")
    settled(page)
    for view in VIEWS[name]:
        page.get_by_role("radio", name=view).click()
        expect(page.get_by_role("radio", name=view)).to_be_checked()
        settled(page)
        pictures(page, f"6-{name}-{view}")
        fine(page)
    if name == "budget":
        page.get_by_role("button", name="Find nets").click()
        expect(page.get_by_text("The largest nets that fit")).to_be_visible()
    pictures(page, f"6-{name}")
    legible_in_the_dark(page)
    fine(page)


REPLAYS = {
    "Confusion matrix": "of 10,000 test images are off the diagonal",
    "Classes": "Share of each class's test images",
    "Pictures": "what each net says at this epoch",
    "Weight updates": "Update-to-weight ratio",
    "Curves": "what came after it is faint",
}


def test_long_work_starts_at_a_click_and_can_be_cancelled(address: str, page: Page) -> None:
    page.goto(f"{address}/gradients?net=ResNet-50")
    compute = page.get_by_role("button", name=re.compile(r"Compute \(about \d+ (s|min), .+ GB\)"))
    compute.click()
    page.get_by_role("button", name="Cancel").click()
    compute.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_text("Gradient of the loss with respect to each layer's weights")).to_be_visible(timeout=120_000)
    settled(page)
    fine(page)


def test_a_file_with_weights_is_sent_from_the_disk(address: str, page: Page) -> None:
    page.goto(f"{address}/export?net=ResNet-20")
    page.get_by_text("Weights (safetensors)").click()
    with page.expect_download() as started:
        page.get_by_role("link", name="Download resnet-20.safetensors").click()
    assert started.value.suggested_filename == "resnet-20.safetensors"
    weights = load_file(started.value.path())
    assert weights["fc.weight"].shape == (10, 64)
    fine(page)


def test_a_recorded_run_is_replayed(address: str, page: Page) -> None:
    recorded = sorted(path.parent.name for path in ROOT.glob("assets/runs/*/run.json"))
    page.goto(f"{address}/train?run={recorded[0]}")
    settled(page)
    badges = page.locator("[data-testid=stMarkdownContainer]").get_by_text("recorded", exact=True)
    expect(badges).to_have_count(2)
    page.get_by_role("slider", name="Epoch").press("ArrowLeft")
    expect(page.get_by_text(re.compile(r"at epoch \d+, step")).first).to_be_visible()
    for view, said in REPLAYS.items():
        page.get_by_role("radio", name=view).click()
        expect(page.get_by_text(said).first).to_be_visible()
        settled(page)
        pictures(page, f"7-replay-{view}")
        fine(page)
    slider = page.get_by_role("slider", name="Epoch")
    expect(slider).to_have_value("14")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(slider).to_have_value("15")
    expect(page.get_by_role("button", name="Play")).to_be_visible()  # at the end
    fine(page)


def test_the_main_path(address: str, page: Page, cifar10: Path) -> None:
    page.goto(f"{address}/build")
    settled(page)
    pick(page, "Start from a preset", "ResNet-20")
    expect(page.get_by_text("40,551,040").first).to_be_visible()
    pictures(page, "2-build")

    choose(page, "Training", "Train")
    expect(page.get_by_role("heading", name="Train", exact=True)).to_be_visible()
    pick(page, "Data", "CIFAR-10")
    expect(page.get_by_text("50,000 training")).to_be_visible()
    page.get_by_role("button", name="Start training").click()
    for kind in ("ResNet-20", "plain-20"):
        expect(page.get_by_text(f"Gradient norms of {kind}")).to_be_visible()
    expect(page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg)")).to_have_count(4)
    progress = page.get_by_text(re.compile(r"step \d+ of 1,950"))
    expect(progress).to_have_count(2)
    first = progress.all_inner_texts()
    expect(progress.first).not_to_have_text(first[0])
    expect(progress.last).not_to_have_text(first[1])
    followed = page.url
    page.reload()  # the run is in the address and on the disk
    expect(progress).to_have_count(2)
    assert page.url == followed
    pictures(page, "3-train")
    page.get_by_role("button", name="Stop").click()
    badges = page.locator("[data-testid=stMarkdownContainer]").get_by_text("stopped", exact=True)
    expect(badges).to_have_count(2)  # beside each net's name; the table of runs below says it too
    fine(page)

    choose(page, "Why it works", "Gradients")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(page.get_by_text("Towards the input:").first).to_be_visible()
    pictures(page, "4-gradients")
    fine(page)

    choose(page, "Insight", "Saliency")
    expect(page.get_by_text(re.compile("Grad-CAM at .* for the logit of"))).to_have_count(2)  # of a sample, at once
    page.get_by_role("radio", name="Upload").click()
    page.locator("input[type=file]").set_input_files({"name": "ship.jpg", "mimeType": "image/jpeg", "buffer": photo()})
    expect(page.get_by_text("An uploaded photo is not in the link")).to_be_visible()
    expect(page.get_by_text(re.compile("Grad-CAM at .* for the logit of"))).to_have_count(2)
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    pictures(page, "5-saliency")
    fine(page)


def view(page: Page, title: str) -> None:
    page.get_by_role("radio", name=title).click()
    settled(page)


def test_saliency_from_a_sample_to_a_link_that_others_open(address: str, page: Page, browser: Browser) -> None:
    page.goto(f"{address}/saliency")
    settled(page)
    expect(page.get_by_text(MAP)).to_have_count(2)  # the recorded pair on a sample photo, without a click
    expect(page.get_by_text("is right").or_(page.get_by_text("is wrong")).first).to_be_visible()
    pictures(page, "6-saliency-nets")

    view(page, "All methods")
    expect(page.get_by_text(re.compile("^Random"))).not_to_have_count(0)
    expect(page.get_by_role("heading", name="Not for this net").or_(page.get_by_text(MAP).first).first).to_be_visible()
    fine(page)

    view(page, "Layer by layer")
    expect(page.get_by_text(MAP)).to_have_count(3)
    pictures(page, "7-saliency-layers")

    page.get_by_role("radio", name="Upload").click()
    shot = photo(scale=6)  # 3,840 x 2,880 pixels, turned
    upload = page.locator("input[type=file]").first
    upload.set_input_files({"name": "phone.jpg", "mimeType": "image/jpeg", "buffer": shot})
    expect(page.get_by_text("An uploaded photo is not in the link")).to_be_visible()
    expect(page.get_by_text(MAP)).to_have_count(3)

    view(page, "Cover a part")
    expect(page.get_by_text("Drag a rectangle over the photo.")).to_be_visible()
    area = page.locator(".nsewdrag").first.bounding_box()
    assert area
    page.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.7, area["y"] + area["height"] * 0.7, steps=8)
    page.mouse.up()
    expect(page.get_by_text(re.compile("The probability of .* changes by")).first).to_be_visible()
    expect(page.get_by_text(MAP)).to_have_count(4)
    pictures(page, "8-saliency-covered")
    fine(page)

    view(page, "Nets side by side")
    page.get_by_role("radio", name="Photos", exact=True).click()
    page.get_by_role("button", name="Coffee", exact=True).click()
    pick(page, "Class to explain", "cat")
    expect(page.get_by_text("the logit of “cat”")).to_have_count(2)
    page.get_by_text("Can these maps be believed?").click()
    expect(page.get_by_text("Deletion").first).to_be_visible()
    expect(page).to_have_url(re.compile("class=cat"))
    expect(page).to_have_url(re.compile("photo=sample%3Acoffee"))
    pictures(page, "9-saliency-trust")
    fine(page)

    other = browser.new_page(viewport={"width": 390, "height": 844})  # a phone of somebody else
    other.set_default_timeout(60_000)
    other.goto(page.url)
    settled(other)
    expect(other.get_by_text("the logit of “cat”")).to_have_count(2)
    expect(other.get_by_role("combobox", name="Class to explain")).to_be_visible()
    fine(other)
    other.close()
