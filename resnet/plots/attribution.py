"""Attribution maps over their photos, and what a net answers."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb

from resnet.plots.theme import NEUTRAL, RESIDUAL, color, framed

SIGNED = "RdBu_r"
COLOURS = ("Plasma", "Viridis", "Inferno", "Greys")  # of maps without a sign
SHARPNESS = 2  # pixels of a photo's longer side for each of the figure's width; a file has them all
MARGINS, TALLEST = 16, 1.4  # pixels above and below a photo; of its figure, times the width
CRISP = 300  # photos with fewer pixels are enlarged as squares, so that the browser does not blur them
Box = tuple[float, float, float, float]  # left, top, right, bottom, in the photo's pixels


class Look(NamedTuple):
    """How maps are drawn: the colours of those without a sign, their opacity, the largest magnitude on the scale."""

    colours: str
    opacity: float
    high: float


def overlay(
    photo: np.ndarray,
    values: np.ndarray | None,
    window: Box,
    look: Look,
    signed: bool = False,
    boxes: Sequence[Box] = (),
    width: int = 340,
) -> go.Figure:
    """A photo (H, W, 3) uint8, and over its `window` an attribution map (S, S); `boxes` are outlined.

    The scale runs to `look.high`, from 0 or, where the map is signed, from the negative of it. Axes count the photo's
    pixels. None instead of a map draws the photo alone. The figure is as high as a photo of about that `width` needs.
    """
    figure = go.Figure()
    if values is not None:
        figure.add_trace(_heat(values, window, look, signed))
    return _frame(figure, photo, [*([window] if window != whole(photo) else []), *boxes], width)


def whole(photo: np.ndarray) -> Box:
    """The box around all of a photo (H, W, ...)."""
    return 0.0, 0.0, float(photo.shape[1]), float(photo.shape[0])


def _heat(values: np.ndarray, window: Box, look: Look, signed: bool) -> go.Heatmap:
    left, top, right, bottom = window
    across, down = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
    return go.Heatmap(
        z=values.astype(np.float32),
        x0=left + across / 2,
        dx=across,
        y0=top + down / 2,
        dy=down,
        zmin=-look.high if signed else 0,
        zmax=look.high,
        opacity=look.opacity,
        colorscale=SIGNED if signed else look.colours,
        colorbar={"thickness": 10, "exponentformat": "power", "nticks": 5, "len": 1.0},
        hovertemplate="x %{x:.0f}, y %{y:.0f}: %{z:.3g}<extra></extra>",
    )


def _frame(figure: go.Figure, photo: np.ndarray, boxes: Sequence[Box], width: int) -> go.Figure:
    """The photo below the traces, one unit an original pixel, the first row on top."""
    high, wide = photo.shape[:2]
    source = data_uri(Image.fromarray(photo), SHARPNESS * width)
    place = {"x": 0, "y": 0, "sizex": wide, "sizey": high, "xref": "x", "yref": "y"}
    figure.add_layout_image(source=source, sizing="stretch", layer="below", **place)
    for number, (left, top, right, bottom) in enumerate(boxes):
        line = {"color": "#ffffff" if number == 0 else "#22c55e", "width": 2, "dash": "dot" if number == 0 else "solid"}
        figure.add_shape(type="rect", x0=left, y0=top, x1=right, y1=bottom, line=line)
    # A map's cells and the box of a receptive field may lie outside; the photo alone decides what is seen.
    figure.update_xaxes(visible=False, range=[0, wide], constrain="domain")
    figure.update_yaxes(visible=False, range=[high, 0], constrain="domain", scaleanchor="x")
    height = MARGINS + round(width * min(TALLEST, high / wide))
    return framed(figure, height, plot_bgcolor="rgba(0,0,0,0)").update_layout(margin_t=8, dragmode=False)


def data_uri(photo: Image.Image, longest: int) -> str:
    """The photo as a file in a string, at most so many pixels a side: PNG of small ones, JPEG of others."""
    kind = "jpeg"
    if max(photo.size) < CRISP:
        kind, scale = "png", -(-CRISP // max(photo.size))
        photo = photo.resize((photo.width * scale, photo.height * scale), Image.Resampling.NEAREST)
    photo.thumbnail((longest, longest))
    out = io.BytesIO()
    photo.save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def brushable(figure: go.Figure, photo: np.ndarray) -> go.Figure:
    """The figure of a photo (H, W, 3) on which a rectangle can be drawn."""
    xs, ys = (np.linspace(0, side, 2) for side in (photo.shape[1], photo.shape[0]))
    corners = go.Scatter(x=xs, y=ys, mode="markers", marker={"opacity": 0}, hoverinfo="skip", showlegend=False)
    figure.add_trace(corners)  # Plotly selects only where a trace has points
    active = {"fillcolor": "#dc2626", "opacity": 0.25}
    return figure.update_layout(
        dragmode="select", newselection_line={"color": "#dc2626", "width": 2}, activeselection=active
    )


def picture(photo: np.ndarray, values: np.ndarray, window: Box, look: Look, signed: bool = False) -> Image.Image:
    """The same as `overlay` as an image with all of the photo's pixels, for files and contact sheets."""
    share = values / look.high if look.high else np.zeros_like(values)
    share = (share + 1) / 2 if signed else share
    left, top, right, bottom = (round(edge) for edge in window)
    small = Image.fromarray((255 * np.clip(share, 0, 1)).astype(np.uint8))
    large = np.asarray(small.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR))
    out = photo.copy()
    under = out[top:bottom, left:right].astype(np.float32)
    heat = _table(SIGNED if signed else look.colours)[large][: under.shape[0], : under.shape[1]]
    out[top:bottom, left:right] = ((1 - look.opacity) * under + look.opacity * heat).round().astype(np.uint8)
    return Image.fromarray(out)


def _table(colours: str) -> np.ndarray:
    """256 colours (256, 3)."""
    return np.array([unlabel_rgb(each) for each in sample_colorscale(colours, np.linspace(0, 1, 256))], np.float32)


def probabilities(names: list[str], values: np.ndarray, plain: bool, right: Sequence[str] = ()) -> go.Figure:
    """Top classes as horizontal bars, the likeliest on top; values in 0..1. `right` are the true classes, if known."""
    marks = [f"{name} ✓" if name in right else name for name in names]
    bars = go.Bar(
        x=100 * values[::-1],
        y=marks[::-1],
        orientation="h",
        marker_color=color(plain),
        texttemplate="%{x:.1f} %",
        textposition="auto",
        hoverinfo="skip",
    )
    figure = go.Figure(bars).update_xaxes(title="probability (%)", range=[0, 100]).update_yaxes(type="category")
    return framed(figure, 60 + 32 * len(names)).update_layout(margin_t=8)


def before_and_after(names: list[str], before: np.ndarray, after: np.ndarray, plain: bool) -> go.Figure:
    """Probabilities (K,) in 0..1 of the same classes before and after a change of the picture."""
    figure = go.Figure()
    for title, values, hue in (("after", after, NEUTRAL), ("before", before, color(plain))):
        figure.add_bar(
            name=title,
            x=100 * values[::-1],
            y=names[::-1],
            orientation="h",
            marker_color=hue,
            texttemplate="%{x:.1f} %",
            hoverinfo="skip",
        )
    figure.update_xaxes(title="probability (%)", range=[0, 100]).update_yaxes(type="category")
    return framed(figure, 70 + 48 * len(names)).update_layout(legend_traceorder="reversed")


def curve(frame: pd.DataFrame) -> go.Figure:
    """A score over the share of pixels, the first column: of the `map`, and of random orders from `low` to `high`."""
    share, *_ = frame.columns
    x = 100 * frame[share]
    figure = go.Figure()
    figure.add_scatter(x=x, y=frame.high, mode="lines", line_width=0, showlegend=False, hoverinfo="skip")
    band = {"fill": "tonexty", "fillcolor": "rgba(135, 145, 161, 0.3)", "line_width": 0, "hoverinfo": "skip"}
    figure.add_scatter(x=x, y=frame.low, mode="lines", showlegend=False, **band)
    figure.add_scatter(x=x, y=frame.random, mode="lines", name="random orders", line_color=NEUTRAL)
    figure.add_scatter(x=x, y=frame["map"], mode="lines", name="this map", line_color=RESIDUAL)
    return framed(figure.update_xaxes(title=f"pixels {share} (%)").update_yaxes(title="score"), 260)
