"""The strongest words, patches or columns of a map, for and against the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palrp_onnx.record import Map
from palrp_onnx.render.flow import Paragraph, visible, words

#: How many are listed on each side.
TEN = 10
_MAPS = ("total", "content", "position")


@dataclass(frozen=True)
class Ranked:
    """One word or unit: its name, its units, and the sum of each signed map over them."""

    name: str
    units: list[int]
    total: float
    content: float
    position: float


def ranked(shown: Map, flow: Sequence[Paragraph]) -> tuple[list[Ranked], list[Ranked]]:
    """The strongest by total relevance, the largest first: for the target, and against it."""
    items = [_ranked(shown, *each) for each in _items(shown, flow)]
    order = sorted(items, key=lambda each: -each.total)
    plus = [each for each in order[:TEN] if each.total > 0]
    return plus, [each for each in order[: -TEN - 1 : -1] if each.total < 0]


def _items(shown: Map, flow: Sequence[Paragraph]) -> list[tuple[str, list[int]]]:
    """Words of a text; elsewhere units."""
    if shown.units.kind == "token":
        return [
            ("".join(piece.text for piece in word), [piece.unit for piece in word])
            for word in words(list(flow))
        ]
    return [(visible(shown.units.name(k)), [k]) for k in range(len(shown.relevance.total))]


def _ranked(shown: Map, name: str, units: list[int]) -> Ranked:
    sums = {each: sum(getattr(shown.relevance, each)[k] for k in units) for each in _MAPS}
    return Ranked(name, units, **sums)
