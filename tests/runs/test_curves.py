"""Curves, heat-strips and tables of predictions: bins and counts against a slow reference."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from resnet.plots.live import heat_chart
from resnet.runs import curves as curves_module
from resnet.runs.curves import (
    FLOOR,
    Digest,
    bin_width,
    class_accuracy,
    confusion,
    curves,
    follow,
    hardest,
    heat,
    race_curves,
    robust_limits,
    same_batches,
    strip,
)

SCALARS = [(n, "<f4") for n in ("loss", "accuracy", "lr", "seconds")]
KIND = np.dtype([("step", "<i4"), *SCALARS, ("batch", "<u4"), ("norms", "<f4", (3,)), ("updates", "<f4", (3,))])

LAYERS = ["conv1", "layer1.0.conv1", "fc"]


def records(count: int) -> np.ndarray:
    draw = np.random.default_rng(0)  # the first n of more records are the same
    made = np.zeros(count, KIND)
    values = draw.random((count, 11), np.float32)
    made["step"] = np.arange(1, count + 1)
    for column, name in enumerate(("loss", "accuracy", "lr", "seconds")):
        made[name] = values[:, column]
    made["norms"], made["updates"] = values[:, 4:7] + 1e-3, values[:, 7:10] / 100 + 1e-5
    made["batch"] = values[:, 10] * 2**32
    return made


def digest(count: int) -> Digest:
    return Digest().grown(records(count))


def bins(count: int, width: int) -> list[range]:
    return [range(first, min(first + width, count)) for first in range(0, count, width)]


@pytest.mark.parametrize("limit", [1, 7, 300])
@pytest.mark.parametrize("steps", [0, 1, 2, 6, 7, 8, 14, 15, 299, 300, 301, 600, 601, 64_000])
def test_width_is_the_smallest_power_of_two_within_the_limit(steps: int, limit: int) -> None:
    width = bin_width(steps, limit)
    assert math.log2(width).is_integer()
    assert math.ceil(steps / width) <= limit
    assert width == 1 or math.ceil(steps / (width / 2)) > limit


COUNTS = [1, 5, 16, 17, 33, 100, 257]


@pytest.mark.parametrize("count", COUNTS)
def test_curves_equal_a_slow_loop(count: int) -> None:
    made = records(count)
    parts = bins(count, bin_width(count, 16))
    frame = curves(digest(count), 16)
    assert list(frame.columns) == ["step", "loss", "accuracy", "lr"]
    assert len(frame) == len(parts) <= 16
    for row, part in zip(frame.itertuples(), parts, strict=True):
        assert row.step == part[-1] + 1
        assert row.loss == pytest.approx(sum(float(made["loss"][i]) for i in part) / len(part))
        assert row.accuracy == pytest.approx(100 * sum(float(made["accuracy"][i]) for i in part) / len(part))
        assert row.lr == pytest.approx(sum(float(made["lr"][i]) for i in part) / len(part))


@pytest.mark.parametrize("quantity", ["norms", "updates"])
@pytest.mark.parametrize("count", COUNTS)
def test_heat_equals_a_slow_loop(count: int, quantity: str) -> None:
    made = records(count)
    parts = bins(count, bin_width(count, 16))
    frame = heat(strip(digest(count), quantity, 16), LAYERS)
    assert len(frame) == 3 * len(parts) <= 3 * 16
    cells = [(part, layer) for part in parts for layer in range(3)]
    for row, (part, layer) in zip(frame.itertuples(), cells, strict=True):
        logs = [math.log10(made[quantity][i][layer]) for i in part]
        assert (row.step, row.step_end, row.depth, row.layer) == (part[0], part[-1] + 1, layer + 1, LAYERS[layer])
        assert row.log10 == pytest.approx(sum(logs) / len(logs), rel=1e-5, abs=1e-6)
        assert row.norm == pytest.approx(math.prod(10**log for log in logs) ** (1 / len(logs)), rel=1e-4)


def curves_of(made: Digest) -> pd.DataFrame:
    return curves(made, 16)


def heat_of(made: Digest) -> pd.DataFrame:
    return heat(strip(made, "norms", 16), LAYERS[: made.layers])


@pytest.mark.parametrize("make", [curves_of, heat_of])
def test_bins_keep_their_borders_and_values_as_records_are_added(make) -> None:
    """Within one width only the last bin changes; when the width doubles, the new borders are among the old."""
    everything, key, before = records(200), "step" if make is curves_of else "step_end", None
    made = Digest()
    for count in range(1, 201):
        made = made.grown(everything[count - 1 : count])
        frame = make(made)
        if before is not None and bin_width(count, 16) == bin_width(count - 1, 16):
            whole = before[before[key] % bin_width(count, 16) == 0]
            pd.testing.assert_frame_equal(frame.iloc[: len(whole)], whole)
        elif before is not None:
            assert {end for end in frame[key] if end < count} <= set(before[key])
        before = frame


@pytest.mark.parametrize("sizes", [[1] * 90, [7, 64, 1, 18], [32, 32, 26], [89, 1]])
def test_a_digest_is_the_same_however_the_records_come(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves_module, "BINS", 8)
    made, done, everything = Digest(), 0, records(90)
    for size in sizes:
        made, done = made.grown(everything[done : done + size]), done + size
    whole = digest(90)
    assert (made.count, made.width, made.layers) == (whole.count, whole.width, whole.layers) == (90, 16, 3)
    np.testing.assert_allclose(made.sums, whole.sums, rtol=1e-12)
    np.testing.assert_array_equal(made.batches, everything["batch"])
    np.testing.assert_array_equal(made.seconds, everything["seconds"][-20:])


def test_follow_reads_what_a_file_gained_and_begins_anew_when_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, everything, grown = tmp_path / "steps.bin", records(50), Digest.grown
    read: list[int] = []

    def counted(self: Digest, rows: np.ndarray) -> Digest:
        read.append(len(rows))
        return grown(self, rows)

    monkeypatch.setattr(Digest, "grown", counted)
    monkeypatch.setattr(curves_module, "CHUNK", 16)
    assert follow(Digest(), path, KIND).count == 0
    path.write_bytes(everything[:20].tobytes() + b"torn")
    first = follow(Digest(), path, KIND)
    path.write_bytes(everything.tobytes())
    second = follow(first, path, KIND)
    assert (first.count, second.count, read) == (20, 50, [16, 4, 16, 14])
    np.testing.assert_allclose(second.sums, digest(50).sums)
    path.write_bytes(everything[30:45].tobytes())
    np.testing.assert_array_equal(follow(second, path, KIND).batches, everything["batch"][30:45])


@pytest.mark.parametrize("make", [curves_of, heat_of])
def test_no_records_give_an_empty_frame_with_the_same_columns(make) -> None:
    empty = make(Digest().grown(records(0)))
    assert len(empty) == 0
    assert list(empty.columns) == list(make(digest(3)).columns)


def test_a_norm_of_0_is_drawn_at_the_floor() -> None:
    made = records(4)
    made["norms"][:, 1] = 0
    frame = heat(strip(Digest().grown(made)), LAYERS)
    assert frame.query("depth == 2").norm.tolist() == pytest.approx([FLOOR] * 4)
    assert np.isfinite(frame[["norm", "log10"]]).all(axis=None)


def test_the_live_chart_finds_its_fields_in_the_frame_and_names_each_layer() -> None:
    encoding, frame = heat_chart(-3, 0, "log10 ||dL/dW||")["encoding"], heat_of(digest(5))
    told = {field["field"] for field in encoding["tooltip"]}
    assert {"layer", "depth"} <= told | {encoding["y"]["field"]} <= set(frame.columns)
    assert frame.columns[-1] == "log10", "Streamlit compares the last column, which has to change as a run grows"


def test_records_without_layers_give_curves_and_no_strip() -> None:
    kind = [(n, KIND[n]) for n in ("step", "loss", "accuracy", "lr", "seconds", "batch")]
    made = Digest().grown(np.zeros(5, np.dtype([*kind, ("norms", "<f4", (0,)), ("updates", "<f4", (0,))])))
    assert len(curves(made)) == 5
    assert len(heat(strip(made), [])) == 0


def test_step_seconds_is_the_median_of_the_last_steps() -> None:
    made = records(30)
    made["seconds"] = [100] * 10 + [1] * 11 + [9] * 9
    assert Digest().grown(made).step_seconds == 1
    assert Digest().grown(made[-9:]).step_seconds == 9
    assert math.isnan(Digest().step_seconds)


def test_robust_limits_are_decades_around_most_values_of_all_parts() -> None:
    most = np.linspace(-3.5, -1.2, 990)
    assert robust_limits([most, np.full(5, 9.0), np.full(5, -30.0)]) == (-4, -1)
    assert robust_limits([np.array([np.nan, np.inf, -2.0])]) == (-2, -1)
    assert robust_limits([np.empty(0)]) == robust_limits([]) == (0, 1)
    frozen = np.full(5000, np.log10(FLOOR), np.float32)
    assert robust_limits([most, frozen]) == (-4, -1)


def test_same_batches_up_to_the_last_common_step_and_the_first_difference() -> None:
    ours, other = records(30), records(20)
    assert same_batches([Digest().grown(ours), Digest().grown(other)]) == (20, None)
    other["batch"][12] += 1
    assert same_batches([Digest().grown(ours), Digest().grown(ours), Digest().grown(other)]) == (20, 13)
    assert same_batches([Digest().grown(ours), Digest()]) == (0, None)
    assert same_batches([]) == (0, None)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_confusion_and_class_accuracy_equal_a_plain_loop(classes: int) -> None:
    draw = np.random.default_rng(classes)
    labels, predicted = draw.integers(0, classes - 1, 50), draw.integers(0, classes, 50).astype(np.uint8)
    matrix = confusion(labels, predicted, classes)
    for true in range(classes):
        for said in range(classes):
            pairs = zip(labels, predicted, strict=True)
            assert matrix[true, said] == sum(1 for a, b in pairs if a == true and b == said)
        own = [said == true for label, said in zip(labels, predicted, strict=True) if label == true]
        if own:
            assert class_accuracy(matrix)[true] == pytest.approx(sum(own) / len(own))
        else:
            assert math.isnan(class_accuracy(matrix)[true])
    assert math.isnan(class_accuracy(matrix)[-1])  # the last class has no images


def test_the_curves_of_a_race_have_equal_bins_and_the_tests_in_rows_of_their_own() -> None:
    digests = {"long": Digest().grown(records(90)), "short": Digest().grown(records(20))}
    tests = {
        name: pd.DataFrame({"step": [15], "test_accuracy": [share]}) for name, share in [("long", 0.5), ("short", 0)]
    }
    frame = race_curves(digests, tests, 16)
    assert list(frame) == ["step", "loss", "accuracy", "test_accuracy", "net"]
    for name, digest in digests.items():
        own = frame[frame.net == name].reset_index(drop=True)
        lines = own[own.test_accuracy.isna()][["step", "loss", "accuracy"]].astype(float)
        expected = curves(digest, 16, steps=90)[["step", "loss", "accuracy"]].astype(float)
        pd.testing.assert_frame_equal(lines, expected)
        [tested] = own[own.test_accuracy.notna()].to_dict("records")
        assert (tested["step"], tested["test_accuracy"]) == (15, 100 * tests[name].test_accuracy[0])


def test_the_hardest_classes_come_first_and_those_without_images_last() -> None:
    assert hardest(np.array([0.5, np.nan, 0.1, 0.5, 1.0]), 4).tolist() == [2, 0, 3, 4]
