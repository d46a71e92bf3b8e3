"""Sketches against what they stand for: error bounds, and the same result however the stream is cut."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from sluice.rows.profile.sketches import ACCURACY, LogHistogram, Sample, Tally, wilson

RANDOM = np.random.default_rng(7)
STREAMS = {
    "lengths": np.rint(RANDOM.lognormal(6, 2, 20_011)).astype(np.int64),
    "turns": RANDOM.integers(1, 12, 4_999),
    "one": np.array([70_000]),
    "with zeros": RANDOM.integers(0, 3, 1_001),
    "huge": RANDOM.integers(1, 1 << 50, 5_003),
    "narrow": RANDOM.integers(1_000_000, 1_000_500, 3_000),
}


def counted(values: np.ndarray, parts: int = 1) -> LogHistogram:
    made = LogHistogram()
    for part in np.array_split(values, parts):
        made.add(part)
    return made


@pytest.mark.parametrize("name", STREAMS)
def test_quantiles_keep_their_bound(name):
    values = STREAMS[name]
    found = counted(values).lengths()
    assert found
    assert (found.count, found.total) == (len(values), values.sum())
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean())
    for share, quantile in ((0.05, found.p5), (0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true = np.quantile(values, share, method="inverted_cdf")
        assert abs(quantile - true) <= (ACCURACY * true + 0.5 if true >= 100 else 0), share


@pytest.mark.parametrize("name", STREAMS)
def test_bars_hold_every_value_once(name):
    values = STREAMS[name]
    found = counted(values).lengths()
    assert found
    bars = found.histogram
    assert sum(bar.count for bar in bars) == len(values)
    assert (bars[0].low, bars[-1].high) == (values.min(), values.max())
    assert all(before.high + 1 == after.low for before, after in pairwise(bars))
    assert len(bars) <= 31


def test_few_different_values_are_exact_however_large():
    found = counted(STREAMS["narrow"]).lengths()
    assert found
    assert found.p95 == np.quantile(STREAMS["narrow"], 0.95, method="inverted_cdf")


def test_small_bars_are_exact():
    values = STREAMS["turns"]
    found = counted(values).lengths()
    assert found
    assert {bar.low: bar.count for bar in found.histogram} == dict(
        zip(*np.unique(values, return_counts=True), strict=True)
    )


def test_the_cut_of_a_stream_does_not_show():
    assert counted(STREAMS["lengths"], 17).lengths() == counted(STREAMS["lengths"]).lengths()
    assert LogHistogram().lengths() is None


def test_a_tally_of_few_values_is_exact():
    tally = Tally(pl.String)
    for part in (["a", "b", None], ["b", "c"], []):
        tally.add(pl.Series(part, dtype=pl.String))
    assert tally.top(9) == [("b", 2), ("a", 1), ("c", 1)]
    assert (tally.total, tally.distinct, tally.error) == (4, 3, 0)


def test_a_tally_of_many_values_keeps_its_bound_and_finds_who_comes_late():
    tally, limit = Tally(pl.Int64, limit=50), 50
    stream = np.concatenate([RANDOM.permutation(5_000), np.repeat([-1, -2], [400, 300])])
    for part in np.array_split(stream, 40):
        tally.add(pl.Series(part))
    found = dict(tally.top(2))
    assert set(found) == {-1, -2}
    assert 400 - tally.error <= found[-1] <= 400
    assert 0 < tally.error <= len(stream) / limit
    assert tally.distinct is None


def test_a_sample_is_uniform_and_the_same_however_it_is_cut():
    texts = pl.Series([str(number) for number in range(2_000)])
    whole, cut = Sample(500, 9, seed=3), Sample(500, 9, seed=3)
    whole.add(texts)
    for start in range(0, 2_000, 300):
        cut.add(texts[start : start + 300])
    assert whole.texts() == cut.texts()
    assert len(set(whole.texts())) == 500
    assert abs(np.mean([int(text) for text in whole.texts()]) - 1_000) < 5 * 577 / np.sqrt(500)
    other = Sample(500, 9, seed=4)
    other.add(texts)
    assert other.texts() != whole.texts()


def test_a_sample_keeps_the_beginnings():
    sample = Sample(2, 3, seed=0)
    sample.add(pl.Series(["诊断意见书"]))
    assert sample.texts() == ["诊断意"]


def test_wilson_is_the_published_interval():
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=5e-5)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)
