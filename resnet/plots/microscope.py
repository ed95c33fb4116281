"""Figures of one block: its tensors as small maps side by side, and what a step changes in each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from resnet.plots.attribution import SIGNED, data_uri
from resnet.plots.theme import NEUTRAL, color, framed

ACROSS = 2  # maps in a row of a mosaic
MOSAICS = 5  # in a row of the figure
TILE, TILES, PICTURE = 120, 4, 240  # pixels of a map whose cells can be pointed at, such maps in a row, a picture


def mosaics(
    maps: Mapping[str, np.ndarray], channels: Mapping[str, Sequence[int]], norms: Mapping[str, float], quantity: str
) -> go.Figure:
    """Tensors side by side in the order of `maps`, each a mosaic of its channels' maps (M, h, w) under its L2 norm.

    All are on one scale, symmetric around 0. channels: the maps' numbers in the net; quantity: what the scale shows.
    """
    titles = [f"{name.replace(' through ', '<br>through ')}<br>{norms[name]:.3g}" for name in maps]
    rows, across = -(-len(maps) // MOSAICS), min(len(maps), MOSAICS)
    figure = make_subplots(rows, across, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.24)
    figure.update_annotations(font_size=12)
    high = max((float(np.nanmax(np.abs(each), initial=0)) for each in maps.values()), default=0) or 1.0
    for place, (name, each) in enumerate(maps.items()):
        row, column = place // MOSAICS + 1, place % MOSAICS + 1
        hover = (
            f"channel %{{customdata[0]}}, x %{{customdata[1]}}, y %{{customdata[2]}}: %{{z:.3g}}<extra>{name}</extra>"
        )
        heat = go.Heatmap(
            z=_tiled(each), customdata=_places(each, channels[name]), coloraxis="coloraxis", hovertemplate=hover
        )
        figure.add_trace(heat, row, column)
        figure.update_xaxes(visible=False, constrain="domain", row=row, col=column)
        axis = figure.data[-1].xaxis or "x"
        figure.update_yaxes(
            visible=False, autorange="reversed", constrain="domain", scaleanchor=axis, row=row, col=column
        )
    bar = {"title": {"text": quantity, "side": "right"}, "thickness": 10, "exponentformat": "power", "nticks": 5}
    scale = {"colorscale": SIGNED, "cmin": -high, "cmax": high, "colorbar": bar}
    return framed(figure, 60 + 230 * rows, coloraxis=scale, plot_bgcolor="rgba(0,0,0,0)").update_layout(margin_t=64)


def _tiled(maps: np.ndarray) -> np.ndarray:
    """Values (M, ...) in rows of `ACROSS` tiles of h x w with a cell of nothing between them."""
    count, height, width = maps.shape
    rows = -(-count // ACROSS)
    tiles = np.full((rows * ACROSS, height + 1, width + 1), np.nan, np.float32)
    tiles[:count, :height, :width] = maps
    grid = tiles.reshape(rows, ACROSS, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), ACROSS * (width + 1))[:-1, :-1]


def _places(maps: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """The channel, column and row of each cell of the mosaic."""
    channel, row, column = np.indices(maps.shape)
    return np.stack([_tiled(np.asarray(each)) for each in (np.asarray(channels)[channel], column, row)], axis=-1)


def pointed(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], boxes: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and a Vega-Lite chart: a picture, and maps of which the cell under the pointer is a box on the picture.

    picture: (H, W, 3) uint8; maps: (h, w), each on a scale of its own around 0; boxes: (h, w, 4), the left, top, right
    and bottom edges of each cell's box, in the picture's pixels.
    """
    tables, titles = [], list[dict[str, Any]]()
    for number, (name, values) in enumerate(maps.items()):
        down, across = np.indices(values.shape)
        left, top = 1.1 * (number % TILES), 1.25 * (number // TILES) + 0.15
        (rows, columns), cell = values.shape, boxes[name].reshape(-1, 4).T
        table = {
            "cell": [f"{name} {at}" for at in range(values.size)],
            "map": name,
            "column": across.ravel(),
            "row": down.ravel(),
            "x": left + across.ravel() / columns,
            "x2": left + (across.ravel() + 1) / columns,
            "y": top + down.ravel() / rows,
            "y2": top + (down.ravel() + 1) / rows,
            "value": values.ravel(),
            "shade": values.ravel() / (np.abs(values).max() or 1),
        }
        tables.append(pd.DataFrame(table | dict(zip(("left", "top", "right", "bottom"), cell, strict=True))))
        titles.append({"x": left, "y": top - 0.03, "map": name})
    high, wide = picture.shape[:2]
    height, width = (TILE * span for span in (titles[-1]["y"] + 1.03, 1.1 * min(TILES, len(titles)) - 0.1))
    return pd.concat(tables, ignore_index=True), {
        "usermeta": {"embedOptions": {"renderer": "canvas"}},  # thousands of cells are too many for SVG
        "hconcat": [
            _outlined(data_uri(Image.fromarray(picture), PICTURE), wide, high),
            {"width": width, "height": height, "layer": [_cells(), _titles(titles)]},
        ],
        "config": {"view": {"stroke": None}},
    }


def _place(*fields: str, low: float = 0.0, high: float | None = None, down: bool = False) -> dict[str, Any]:
    """Both ends of a mark along one axis, which is not drawn."""
    scale = {"nice": False, "zero": False, "reverse": down} | ({} if high is None else {"domain": [low, high]})
    names = ("y", "y2") if down else ("x", "x2")
    first = {"field": fields[0], "type": "quantitative", "axis": None, "scale": scale}
    return {names[0]: first} | {name: {"field": field} for name, field in zip(names[1:], fields[1:], strict=False)}


def _cells() -> dict[str, Any]:
    scale = {"scheme": "redblue", "reverse": True, "domain": [-1, 1]}
    shade = {"field": "shade", "type": "quantitative", "legend": None, "scale": scale}
    told = [{"field": name} for name in ("map", "column", "row")] + [{"field": "value", "format": ".3g"}]
    told += [{"field": name, "format": "d"} for name in ("left", "right", "top", "bottom")]
    return {
        "params": [{"name": "cell", "select": {"type": "point", "on": "pointerover", "fields": ["cell"]}}],
        "mark": "rect",
        "encoding": _place("x", "x2") | _place("y", "y2", down=True) | {"color": shade, "tooltip": told},
    }


def _titles(titles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    text = {"type": "text", "align": "left", "baseline": "bottom", "fontSize": 12, "color": NEUTRAL}
    places = _place("x") | _place("y", down=True)
    return {"data": {"values": list(titles)}, "mark": text, "encoding": places | {"text": {"field": "map"}}}


def _outlined(source: str, wide: int, high: int) -> dict[str, Any]:
    """The picture and the box of the cell under the pointer."""
    side = PICTURE / max(wide, high)
    size = {"width": wide * side, "height": high * side}
    picture = {"type": "image", "url": source, "align": "left", "baseline": "top", "x": 0, "y": 0, **size}
    box = {"type": "rect", "fillOpacity": 0, "stroke": "#22c55e", "strokeWidth": 3, "clip": True}
    places = _place("left", "right", high=wide) | _place("top", "bottom", high=high, down=True)
    pointed = [{"filter": {"param": "cell", "empty": False}}]
    layers = [
        {"data": {"values": [{}]}, "mark": picture},
        {"transform": pointed, "mark": box, "encoding": places},
    ]
    return size | {"layer": layers}


def update_ratios(frame: pd.DataFrame, plain: bool) -> go.Figure:
    """What a step changes of each weight layer, ||update|| / ||W||, as bars on a log axis: name, weight, update, ratio.

    Bars of 0 have no logarithm and stay empty.
    """
    bars = go.Bar(
        x=frame.name,
        y=frame.ratio.where(frame.ratio > 0),
        marker_color=color(plain),
        customdata=frame[["update", "weight"]],
        hovertemplate="%{x}: %{y:.3g}<br>update %{customdata[0]:.3g}, weight %{customdata[1]:.3g}<extra></extra>",
    )
    figure = go.Figure(bars).update_xaxes(title="weight layer, from the input", type="category", showticklabels=False)
    figure.update_yaxes(title="||update|| / ||W||", type="log", exponentformat="power")
    return framed(figure, 300)
