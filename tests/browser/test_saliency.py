"""Saliency in a real browser: from a sample photo to a photo of one's own, a covered part, a trust card and a link."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.support.browser import fine, photo, pick, pictures, settled

MAP = re.compile("for the logit of")


def view(page: Page, title: str) -> None:
    page.get_by_role("radio", name=title).click()
    settled(page)


def test_from_a_sample_to_a_link_that_others_open(address: str, page: Page, browser: Browser) -> None:
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
    page.get_by_role("button", name="Coffee").click()
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
