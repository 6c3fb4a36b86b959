"""Filters of the list of a run: by source, target, warning and by the fields of `meta`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from palrp_onnx.render.flow import visible

#: A field has no filter if it has more values; the search finds them.
MOST = 50

#: Name of a filter, and one of its values.
Trait = tuple[str, str]


@dataclass(frozen=True)
class Facet:
    """A filter: number, text and count of each of its values, the most frequent first."""

    name: str
    values: list[tuple[int, str, int]]


def meta_traits(meta: Any) -> Iterator[Trait]:
    """The fields of `meta` that are single values; `meta` itself if it is one."""
    fields = meta if isinstance(meta, dict) else {"": meta}
    for name, value in fields.items():
        if isinstance(value, str | int | float):
            yield visible(f"meta {name}".strip()), _text(value)


def _text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else visible(str(value))


def facets_of(rows: Sequence[Sequence[Trait]]) -> tuple[list[Facet], list[list[int]]]:
    """The filters that tell records apart, and the numbers of the values that each record has."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row:
            counts.setdefault(name, Counter())[value] += 1
    telling = {name: found for name, found in counts.items() if 1 < len(found) <= MOST}
    numbers = {
        trait: number
        for number, trait in enumerate(
            (name, value) for name, found in telling.items() for value, _ in found.most_common()
        )
    }
    facets = [
        Facet(name, [(numbers[name, value], value, count) for value, count in found.most_common()])
        for name, found in telling.items()
    ]
    return facets, [[numbers[trait] for trait in row if trait in numbers] for row in rows]
