"""Rank correlation against SciPy's, ties included; intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from palrp_onnx.evaluate.statistics import crossed_mean, pearson, ranks, spearman

pytestmark = pytest.mark.quick


def test_spearman() -> None:
    generator = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        one, other = generator.integers(0, levels, size=(2, 40)).astype(float)
        assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
        assert spearman(one, other) == pytest.approx(pearson(ranks(one), ranks(other)))
    assert spearman(one, np.exp(one / 1000)) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)


def test_a_constant_map_orders_nothing() -> None:
    assert spearman(np.zeros(4), np.arange(4.0)) is None
    assert pearson(np.zeros(4), np.arange(4.0)) is None


def test_intervals() -> None:
    same = crossed_mean(np.full((1, 10), 0.5))
    assert same.low == pytest.approx(0.5) and same.high == pytest.approx(0.5)
    values = np.array([[0.0, 1.0] * 10])
    spread = crossed_mean(values)
    assert spread.low < spread.value == 0.5 < spread.high
    assert spread == crossed_mean(values)


def test_draws_count_as_samples_do() -> None:
    generator = np.random.default_rng(0)
    draws, samples = generator.normal(size=(40, 1)), generator.normal(size=(1, 60))
    found = crossed_mean(draws + samples)
    # Of a sum of two independent means: σ² = 1/40 + 1/60.
    width = 2 * 1.96 * np.hypot(draws.std() / 40**0.5, samples.std() / 60**0.5)
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    one = crossed_mean(samples)
    assert one.high - one.low == pytest.approx(2 * 1.96 * samples.std() / 60**0.5, rel=0.1)
