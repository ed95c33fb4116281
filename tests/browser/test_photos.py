"""From a folder of one's own photos to a net that tells them apart, and to what it looks at."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from tests.support.browser import fine, pick, pictures, settled
from tests.support.visitors import app

EACH = 100  # photos of a class
GROUNDS = {"ships": "#7fb2e5", "sunsets": "#e8743b"}


def write_photos(folder: Path) -> None:
    """Two folders of JPEGs: ships on water, and suns over a field, with another place and size in each."""
    draws = np.random.default_rng(0)
    for name, ground in GROUNDS.items():
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            image = Image.new("RGB", (96, 72), ground)
            draw, (x, y), r = ImageDraw.Draw(image), draws.integers(15, 50, 2).tolist(), int(draws.integers(8, 16))
            if name == "ships":
                draw.polygon([(x, y), (x + 2 * r, y), (x + r, y + r // 2)], fill="#8b1a1a")
            else:
                draw.ellipse((x, y, x + r, y + r), fill="#fff2b0")
            image.save(folder / name / f"{number:03}.jpg")


def test_own_photos_from_a_folder_to_saliency(tmp_path: Path, page: Page) -> None:
    write_photos(tmp_path / "data" / "mine")
    with app(tmp_path, RESNET_DATA_DIR=str(tmp_path / "data")) as started:
        page.goto(f"http://127.0.0.1:{started.port}/train?net=ResNet-20")
        settled(page)
        pick(page, "Data", "mine")
        expect(page.get_by_text("160 training and 40 test images, 2 classes.")).to_be_visible()
        page.get_by_text("Train with its plain twin").click()
        page.get_by_role("button", name="More options").click()
        page.get_by_text("Random crops and flips").click()
        page.get_by_label("Image size").fill("32")
        page.get_by_label("Image size").press("Enter")
        page.keyboard.press("Escape")
        pick(page, "Weights to begin with", re.compile(r"^run \S+-resnet-20-\S+$"))
        expect(page.get_by_text("that these weights were trained with")).to_be_visible()
        settled(page)
        pick(page, "Frozen", "The stem and stages 1 to 3")
        expect(page.get_by_text("the body's features are computed once")).to_be_visible()
        page.get_by_role("button", name="Start training").click()
        expect(page.get_by_text(re.compile(r"step 5 of 5 · test accuracy .* after epoch 5"))).to_have_count(2)
        expect(page.get_by_text("Began with run ")).to_be_visible()
        expect(page.get_by_text("The stem and stages 1 to 3 stayed frozen").first).to_be_visible()
        pictures(page, "8-own-photos")
        fine(page)
        page.get_by_role("button", name="What do they look at?").click()
        expect(page.get_by_role("heading", name="Saliency", exact=True)).to_be_visible()
        expect(page.get_by_role("heading", name="ResNet-20 from weights")).to_be_visible()
        expect(page.get_by_text(re.compile("for the logit of “(ships|sunsets)”"))).to_have_count(2)
        fine(page)
