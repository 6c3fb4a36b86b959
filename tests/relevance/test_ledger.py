"""The ledger's residual: nothing that is accounted for is not an account that is closed."""

from __future__ import annotations

import numpy as np
import pytest

from palrp_onnx.relevance.ledger import close_ledger, is_open

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("target", "expected"), [(0.64, 1.0), (-3.0, -1.0), (0.0, 0.0)])
def test_entries_that_are_all_zero_account_for_nothing(target: float, expected: float) -> None:
    ledger = close_ledger({"content": np.zeros(1)}, np.array([target]))
    assert ledger["residual"].tolist() == [target]
    assert ledger["residual_relative"].tolist() == [expected]


def test_the_residual_is_a_share_of_all_entries() -> None:
    ledger = close_ledger({"content": np.array([3.0]), "bias": np.array([-1.0])}, np.array([2.5]))
    assert ledger["residual_relative"].tolist() == [0.125]


@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf, 1e-320])
def test_the_relative_residual_is_always_a_number(entry: float) -> None:
    ledger = close_ledger({"content": np.array([entry])}, np.array([1.0]))
    assert abs(ledger["residual_relative"]) >= 1.0
    assert not np.isnan(ledger["residual_relative"]).any()


def test_an_open_ledger_is_noticed() -> None:
    assert not is_open(close_ledger({"content": np.array([1.0, -2.0])}, np.array([1.001, -2.0])))
    assert is_open(close_ledger({"content": np.array([1.0, -2.0])}, np.array([1.0, -1.9])))
