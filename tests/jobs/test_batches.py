"""Batches hold every record once, alike and of nearly one length."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx.jobs.batches import WASTE, around, cut

pytestmark = pytest.mark.quick


@dataclass(frozen=True)
class Item:
    number: int
    key: str
    length: int


ITEMS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), max_size=60)


@given(ITEMS, st.integers(1, 9), st.integers(1, 900))
def test_every_item_once_in_batches_that_fit(
    pairs: list[tuple[str, int]], size: int, tokens: int
) -> None:
    items = [Item(number, *pair) for number, pair in enumerate(pairs)]
    batches = list(cut(items, size=size, tokens=tokens))
    numbers = [item.number for batch in batches for item in batch]
    assert sorted(numbers) == list(range(len(items)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len({item.key for item in batch}) == 1
        whole = len(batch) * max(item.length for item in batch)
        assert len(batch) == 1 or whole <= tokens
        assert whole - sum(item.length for item in batch) <= WASTE * whole
    assert batches == list(cut(items, size=size, tokens=tokens))


def test_equal_lengths_share_full_batches() -> None:
    items = [Item(number, "a", 5) for number in range(10)]
    assert [len(batch) for batch in cut(items, size=4, tokens=1000)] == [4, 4, 2]


@given(ITEMS.filter(bool), st.integers(1, 9), st.integers(1, 900), st.integers(0))
def test_a_batch_around_an_item_is_one_that_fits(
    pairs: list[tuple[str, int]], size: int, tokens: int, place: int
) -> None:
    items = [Item(number, *pair) for number, pair in enumerate(pairs)]
    first = items[place % len(items)]
    batch = around(first, items, size=size, tokens=tokens)
    assert first in batch
    assert set(batch) <= set(items)
    assert list(cut(batch, size=size, tokens=tokens)) == [batch]


def test_a_batch_around_an_item_takes_the_nearest() -> None:
    items = [Item(k, "a", length) for k, length in enumerate((100, 10, 104, 98, 50, 101))]
    batch = around(items[0], items, size=3, tokens=10_000)
    assert [each.length for each in batch] == [98, 100, 101]
