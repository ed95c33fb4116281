"""What browser tests do on every page."""

import io
import re

from PIL import Image, ImageDraw
from playwright.sync_api import Page, TimeoutError

from resnet.files import ROOT
from tests.support.visitors import REPORTED

PICTURES = ROOT / "tests" / "screenshots"


def settled(page: Page) -> None:
    """Wait until the app's script has run and every element is drawn."""
    page.wait_for_selector("h1")
    busy = "[data-testid=stSkeleton], [data-testid=stStatusWidget], [data-testid=stSpinner]"
    page.wait_for_function(f"!document.querySelector('{busy}')", timeout=90_000)


def pictures(page: Page, name: str) -> None:
    """The whole page at a desktop's and a phone's width; nothing may stick out sideways on the phone."""
    PICTURES.mkdir(exist_ok=True)
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 1000})
        settled(page)
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": width, "height": min(height + 20, 6000)})
        settled(page)
        page.screenshot(path=PICTURES / f"{name}-{width}.png")
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth + 1"), f"{name} is wider than {width} pixels"
    page.set_viewport_size({"width": 1440, "height": 1000})


def legible_in_the_dark(page: Page) -> None:
    """Texts stand out from the dark page (WCAG's contrast of 3 or more); those inside bars have another ground."""
    page.emulate_media(color_scheme="dark")
    ground = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    page.wait_for_function(f"Math.max(...{ground}.match(/\\d+/g).slice(0, 3)) < 60")
    settled(page)
    page.wait_for_function("faintTexts().length === 0")
    page.emulate_media(color_scheme="light")


def fine(page: Page) -> None:
    assert not page.get_by_text(REPORTED).count(), "an unexpected error; the app's log has it"
    assert not page.locator("[data-testid=stException]").count(), page.locator("[data-testid=stException]").inner_text()


def pick(page: Page, label: str, option: str | re.Pattern) -> None:
    """Choose an option of a select box by what it shows; once more where a redraw has closed the list meanwhile."""
    box, wanted = page.get_by_role("combobox", name=label), page.get_by_role("option", name=option).first
    box.click()
    try:
        wanted.click(timeout=15_000)
    except TimeoutError:
        box.click()
        wanted.click()


def whole(page: Page, shown: str, *others: str) -> None:
    """Wait until a table shows `shown`; no cell may be narrower than its text, `others` further down included."""
    page.wait_for_function("text => hasDrawn(text)", arg=shown)
    texts = page.evaluate("text => cutTexts(text)", shown)
    assert set(others) <= set(texts["all"])
    assert texts["cut"] == []


def photo(scale: int = 1) -> bytes:
    """A JPEG of a ship, more or less, of 640 x 480 pixels times the scale, turned by its EXIF tag."""
    image = Image.new("RGB", (640, 480), "#7fb2e5")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 320, 640, 480), fill="#1c4f82")
    draw.polygon([(120, 300), (520, 300), (460, 380), (180, 380)], fill="#8b1a1a")
    draw.rectangle((280, 160, 300, 300), fill="#443322")
    draw.polygon([(305, 170), (305, 290), (420, 290)], fill="white")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    out = io.BytesIO()
    turned = image.resize((640 * scale, 480 * scale)).rotate(90, expand=True)
    turned.save(out, "JPEG", exif=exif)
    return out.getvalue()
