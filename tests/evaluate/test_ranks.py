"""Rank correlation against SciPy's, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from palrp_onnx.evaluate.ranks import mean_correlation, spearman


def test_spearman() -> None:
    generator = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        one, other = generator.integers(0, levels, size=(2, 40)).astype(float)
        assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert spearman(one, np.exp(one / 1000)) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)


def test_a_constant_map_orders_nothing() -> None:
    assert spearman(np.zeros(4), np.arange(4.0)) == 0


def test_intervals() -> None:
    same = mean_correlation([0.5] * 10)
    assert same.low == pytest.approx(0.5) and same.high == pytest.approx(0.5)
    spread = mean_correlation([0.0, 1.0] * 10)
    assert spread.low < spread.value == 0.5 < spread.high
    assert spread == mean_correlation([0.0, 1.0] * 10)
