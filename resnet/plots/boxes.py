"""Photos with boxes, masks and segments, and maps over them; arrays in, figures out."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, qualitative
from plotly.utils import image_array_to_data_uri

from resnet.plots.theme import framed

HEIGHT, EDGE = 460, 24  # of a figure; of a label, in the photo's pixels, roughly
TINT = 0.5  # of a mask over the photo
MAP_SIDE = 400  # values of a map along its longer side that are sent to the browser


def hue(label: int) -> str:
    """The colour of a class, the same in every figure."""
    return qualitative.Dark24[label % len(qualitative.Dark24)]


def detections(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str], masks: np.ndarray | None = None
) -> go.Figure:
    """Boxes (K, 4) as x1, y1, x2, y2 and masks (K, H, W) bool over a photo (H, W, 3) uint8, coloured by class."""
    figure = _photo(_tinted(image, masks if masks is not None else (), labels))
    for box, label, text in zip(boxes, labels, texts, strict=True):
        _frame(figure, box, hue(label))
        _tag(figure, box, text, hue(label))
    return figure


def segments(image: np.ndarray, classes: np.ndarray, shown: dict[int, str]) -> go.Figure:
    """The pixels of each class in `shown`, tinted over a photo (H, W, 3) uint8, with a legend; classes (H, W)."""
    figure = _photo(_tinted(image, [classes == label for label in shown], list(shown)))
    for label, text in shown.items():
        marker = {"color": hue(label), "size": 12, "symbol": "square"}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=text)
    return figure.update_layout(showlegend=True)


def heat(
    image: np.ndarray,
    values: np.ndarray,
    opacity: float,
    solid: np.ndarray | None = None,
    dashed: np.ndarray | None = None,
) -> go.Figure:
    """A map (H, W) >= 0 over its photo (H, W, 3) uint8, from 0 to its maximum, and up to two boxes (4,)."""
    every = max(1, round(max(values.shape) / MAP_SIDE))
    figure = _photo(image).add_heatmap(
        z=values[every // 2 :: every, every // 2 :: every].astype(np.float32),
        x0=every // 2, dx=every, y0=every // 2, dy=every,
        zmin=0, zmax=float(values.max()) or 1.0, opacity=opacity, colorscale="Plasma",
        colorbar={"thickness": 10, "exponentformat": "power", "nticks": 5},
        hovertemplate="x %{x}, y %{y}: %{z:.3g}<extra></extra>",
    )  # fmt: skip
    if solid is not None:
        _frame(figure, solid, "white")
    if dashed is not None:
        _frame(figure, dashed, "white", "dash")
    return figure


def _photo(image: np.ndarray) -> go.Figure:
    height, width = image.shape[:2]
    source = image_array_to_data_uri(image, backend="pil", compression=4, ext="jpg")
    figure = go.Figure(go.Image(source=source, hoverinfo="skip"))
    figure.update_xaxes(visible=False, range=[-0.5, width - 0.5], constrain="domain")
    figure.update_yaxes(visible=False, range=[height - 0.5, -0.5], scaleanchor="x", constrain="domain")
    return framed(figure, HEIGHT).update_layout(margin_t=EDGE)


def _tinted(image: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray, labels: Sequence[int]) -> np.ndarray:
    tinted = image.astype(np.float32)
    for mask, label in zip(masks, labels, strict=len(masks) > 0):
        tinted[mask] += TINT * (np.array(hex_to_rgb(hue(label)), np.float32) - tinted[mask])
    return tinted.astype(np.uint8)


def _frame(figure: go.Figure, box: np.ndarray, colour: str, dash: str = "solid") -> None:
    x0, y0, x1, y1 = map(float, box)
    figure.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": colour, "width": 2, "dash": dash})


def _tag(figure: go.Figure, box: np.ndarray, text: str, colour: str) -> None:
    """Above the box's upper left corner, or in it where the photo ends there."""
    x, y = map(float, box[:2])
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", yanchor="bottom" if y > EDGE else "top",
        bgcolor=colour, font={"color": "white", "size": 11}, borderpad=1,
    )  # fmt: skip
