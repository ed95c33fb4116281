"""Curves and heat-strips: bins against a slow reference."""

import math

import numpy as np
import pandas as pd
import pytest

from resnet.curves import NORM_FLOOR, bin_width, curves, heat, step_seconds

KIND = np.dtype([("step", "<i4"), *[(n, "<f4") for n in ("loss", "accuracy", "lr", "seconds")], ("norms", "<f4", (3,))])


def records(count: int) -> np.ndarray:
    draw = np.random.default_rng(0)  # the first n of more records are the same
    made = np.zeros(count, KIND)
    values = draw.random((count, 7), np.float32)
    made["step"] = np.arange(1, count + 1)
    for column, name in enumerate(("loss", "accuracy", "lr", "seconds")):
        made[name] = values[:, column]
    made["norms"] = values[:, 4:] + 1e-3
    return made


def bins(count: int, width: int) -> list[range]:
    return [range(first, min(first + width, count)) for first in range(0, count, width)]


@pytest.mark.parametrize("limit", [1, 7, 300])
@pytest.mark.parametrize("steps", [0, 1, 2, 6, 7, 8, 14, 15, 299, 300, 301, 600, 601, 64_000])
def test_width_is_the_smallest_power_of_two_within_the_limit(steps: int, limit: int) -> None:
    width = bin_width(steps, limit)
    assert math.log2(width).is_integer()
    assert math.ceil(steps / width) <= limit
    assert width == 1 or math.ceil(steps / (width / 2)) > limit


@pytest.mark.parametrize("count", [1, 5, 16, 17, 33, 100, 257])
def test_curves_equal_a_slow_loop(count: int) -> None:
    made = records(count)
    parts = bins(count, bin_width(count, 16))
    frame = curves(made, 16)
    assert list(frame.columns) == ["step", "loss", "accuracy"]
    assert len(frame) == len(parts) <= 16
    for row, part in zip(frame.itertuples(), parts, strict=True):
        assert row.step == part[-1] + 1
        assert row.loss == pytest.approx(sum(float(made["loss"][i]) for i in part) / len(part))
        assert row.accuracy == pytest.approx(100 * sum(float(made["accuracy"][i]) for i in part) / len(part))


@pytest.mark.parametrize("count", [1, 5, 16, 17, 33, 100, 257])
def test_heat_equals_a_slow_loop(count: int) -> None:
    made = records(count)
    parts = bins(count, bin_width(count, 16))
    frame = heat(made, 16)
    assert len(frame) == 3 * len(parts) <= 3 * 16
    cells = [(part, layer) for part in parts for layer in range(3)]
    for row, (part, layer) in zip(frame.itertuples(), cells, strict=True):
        logs = [math.log10(made["norms"][i][layer]) for i in part]
        assert (row.step, row.step_end, row.depth) == (part[0], part[-1] + 1, layer + 1)
        assert row.log10 == pytest.approx(sum(logs) / len(logs), rel=1e-5, abs=1e-6)
        assert row.norm == pytest.approx(math.prod(10**log for log in logs) ** (1 / len(logs)), rel=1e-4)


@pytest.mark.parametrize("make", [curves, heat])
def test_bins_keep_their_borders_and_values_as_records_are_added(make) -> None:
    """Within one width only the last bin changes; when the width doubles, the new borders are among the old."""
    everything, key, before = records(200), "step" if make is curves else "step_end", None
    for count in range(1, 201):
        frame = make(everything[:count], 16)
        if before is not None and bin_width(count, 16) == bin_width(count - 1, 16):
            whole = before[before[key] % bin_width(count, 16) == 0]
            pd.testing.assert_frame_equal(frame.iloc[: len(whole)], whole)
        elif before is not None:
            assert {end for end in frame[key] if end < count} <= set(before[key])
        before = frame


@pytest.mark.parametrize("make", [curves, heat])
def test_no_records_give_an_empty_frame_with_the_same_columns(make) -> None:
    empty = make(records(0))
    assert len(empty) == 0
    assert list(empty.columns) == list(make(records(3)).columns)


def test_a_norm_of_0_is_drawn_at_the_floor() -> None:
    made = records(4)
    made["norms"][:, 1] = 0
    dead = heat(made).query("depth == 2")
    assert dead.norm.tolist() == pytest.approx([NORM_FLOOR] * 4)
    assert np.isfinite(heat(made)[["norm", "log10"]]).all(axis=None)


def test_records_without_layers_give_curves_and_no_strip() -> None:
    kind = np.dtype([*[(n, KIND[n]) for n in ("step", "loss", "accuracy", "lr", "seconds")], ("norms", "<f4", (0,))])
    made = np.zeros(5, kind)
    assert len(curves(made)) == 5
    assert len(heat(made)) == 0


def test_step_seconds_is_the_median_of_the_last_steps() -> None:
    made = records(30)
    made["seconds"] = [100] * 10 + [1] * 11 + [9] * 9
    assert step_seconds(made) == 1
    assert step_seconds(made, 5) == 9
    assert math.isnan(step_seconds(made[:0]))
