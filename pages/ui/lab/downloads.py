"""What a visitor takes away: a picture of the maps, their values, and how they were made."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw, ImageFont

import resnet
from pages.ui.lab.scene import Scene
from resnet.attribution.methods import METHODS
from resnet.plots import attribution as plots
from resnet.work.explaining import Query

PACKAGES = ("torch", "torchvision", "captum", "numpy", "pillow")
GAP, LINE = 12, 22  # pixels


def offer(scene: Scene, queries: Sequence[Query], maps: Sequence[np.ndarray]) -> None:
    """Three files, made when they are asked for."""
    name = f"{scene.setting.method}-{(scene.picked.id or 'photo').replace(':', '-')}"
    with st.container(horizontal=True):
        st.download_button("Picture (PNG)", lambda: picture(scene, queries, maps), f"{name}.png", "image/png")
        st.download_button("Values (npz)", lambda: values_of(maps), f"{name}.npz", "application/octet-stream")
        made = "How it was made (JSON)"
        st.download_button(made, lambda: record(scene, queries, maps), f"{name}.json", "application/json")


def picture(scene: Scene, queries: Sequence[Query], maps: Sequence[np.ndarray]) -> bytes:
    """The maps over the photo side by side, in the photo's own resolution, each under what it shows."""
    look = scene.look(list(maps))
    drawn = []
    for index, (query, values) in enumerate(zip(queries, maps, strict=True)):
        photo, window = scene.ground(index)
        over = plots.picture(photo, values, window, look, METHODS[query.method].signed)
        drawn.append(_titled(over, [scene.shown[index].title, METHODS[query.method].title, scene.asked(index)]))
    sheet = Image.new(
        "RGB", (sum(each.width + GAP for each in drawn) - GAP, max(each.height for each in drawn)), "white"
    )
    left = 0
    for each in drawn:
        sheet.paste(each, (left, 0))
        left += each.width + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _titled(image: Image.Image, lines: list[str]) -> Image.Image:
    """The image below lines of text; small ones are enlarged, so that the text fits."""
    scale = max(1, -(-320 // image.width))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    size = max(14, image.width // 40)
    font, step = ImageFont.load_default(size), size * 3 // 2
    sheet = Image.new("RGB", (image.width, image.height + step * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((2, number * step), line, "black", font)
    sheet.paste(image, (0, step * len(lines)))
    return sheet


def values_of(maps: Sequence[np.ndarray]) -> bytes:
    """The maps (S, S) as map_0, map_1, …"""
    out = io.BytesIO()
    named: dict[str, Any] = {f"map_{index}": each for index, each in enumerate(maps)}
    np.savez_compressed(out, **named)
    return out.getvalue()


def record(scene: Scene, queries: Sequence[Query], maps: Sequence[np.ndarray]) -> str:
    """What was computed, with which weights and versions, as JSON."""
    entries = []
    for index, (query, each) in enumerate(zip(queries, maps, strict=True)):
        names, view = scene.shown[index].class_names, scene.picked.views[index]
        entries.append(
            {
                "net": scene.shown[index].title,
                "weights": dataclasses.asdict(query.model.weights),
                "method": query.method,
                "source": METHODS[query.method].source,
                "options": dict(METHODS[query.method].options),
                "layer": query.layer,
                "logit": names[query.target],
                "minus the logit": None if query.against is None else names[query.against],
                "part of the photo (left, top, right, bottom)": list(view.box),
                "pixels seen (SHA-256)": hashlib.sha256(query.picture.pixels).hexdigest(),
                "least value": float(each.min()),
                "largest value": float(each.max()),
            }
        )
    versions = {"resnet-explorer": resnet.__version__, **{name: version(name) for name in PACKAGES}}
    name = scene.picked.id or scene.picked.title
    return json.dumps({"picture": name, "maps": entries, "versions": versions}, indent=2)
