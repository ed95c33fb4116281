"""Vega-Lite specifications for what is redrawn while a run goes on."""

from typing import Any

LAYERS = "layer (1 = input)"
_STEP = {
    "field": "step",
    "type": "quantitative",
    "title": "step",
    "axis": {"format": ",d", "tickMinStep": 1, "grid": False},
}


def _net_color(colors: dict[str, str]) -> dict[str, Any]:
    scale = {"domain": list(colors), "range": list(colors.values())}
    return {"field": "net", "type": "nominal", "scale": scale, "legend": {"orient": "top", "title": None}}


def _curve(field: str, title: str, colors: dict[str, str]) -> dict[str, Any]:
    """A line per net against the step; frame: step, net and the field."""
    return {
        "mark": {"type": "line", "interpolate": "linear", "strokeWidth": 2},
        "height": 320,
        "encoding": {
            "x": _STEP,
            "y": {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}},
            "color": _net_color(colors),
            "tooltip": [{"field": "net"}, {"field": "step"}, {"field": field, "format": ".4g"}],
        },
    }


_TEST_POINTS = {
    "transform": [{"filter": "isValid(datum.test_accuracy)"}],
    "mark": {"type": "point", "filled": True, "size": 90, "shape": "diamond", "opacity": 1},
    "encoding": {
        "y": {"field": "test_accuracy", "type": "quantitative"},
        "tooltip": [{"field": "net"}, {"field": "step"}, {"field": "test_accuracy", "format": ".2f"}],
    },
}


def loss_chart(colors: dict[str, str]) -> dict[str, Any]:
    """Training loss of the nets in `colors`; frame: step, net, loss."""
    return _curve("loss", "training loss (running average)", colors)


def accuracy_chart(colors: dict[str, str]) -> dict[str, Any]:
    """Accuracy of training batches as lines and of the test set as diamonds; frame: step, net, and both in %."""
    line = _curve("accuracy", "accuracy (%)", colors)
    return {
        "height": 320,
        "encoding": {name: line["encoding"][name] for name in ("x", "color")},
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.accuracy)"}],
                "mark": line["mark"],
                "encoding": {name: line["encoding"][name] for name in ("y", "tooltip")},
            },
            _TEST_POINTS,
        ],
    }


def heat_chart(low: int, high: int, title: str, rows: str = LAYERS) -> dict[str, Any]:
    """A heat-strip, depth x step, of log10 values on the colour scale low..high (decades); `rows` is the depth's title.

    frame: step, step_end, depth, layer (its name), norm, log10.
    """
    scale = {"scheme": "viridis", "domain": [low, high], "clamp": True}
    legend = {"type": "gradient", "orient": "top", "direction": "horizontal", "gradientLength": 140}
    return {
        "usermeta": {"embedOptions": {"renderer": "canvas"}},  # thousands of cells are too many for SVG
        "mark": {"type": "rect", "strokeWidth": 1, "stroke": {"expr": "scale('color', datum.log10)"}},  # no seams
        "height": 330,
        "encoding": {
            "x": _STEP | {"scale": {"nice": False}},
            "x2": {"field": "step_end"},
            "y": {
                "field": "depth",
                "type": "ordinal",
                "title": rows,
                "axis": {"labelOverlap": "greedy", "ticks": False, "grid": False},
            },
            "color": {"field": "log10", "type": "quantitative", "scale": scale, "title": title, "legend": legend},
            "tooltip": [
                {"field": "layer"},
                {"field": "depth"},
                {"field": "step_end", "title": "to step"},
                {"field": "norm", "format": ".3g", "title": "mean"},
            ],
        },
    }
