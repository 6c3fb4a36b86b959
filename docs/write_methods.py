"""``python docs/write_methods.py`` writes the tables of ``methods.md`` from that of the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tables import table, with_tables

from palrp_onnx.relevance.methods import BASELINES, METHODS

PAGE = Path(__file__).with_name("methods.md")


def codes(names: Iterable[str]) -> str:
    """Names as code, with commas; a dash where there are none."""
    return ", ".join(f"`{name}`" for name in names) or "–"


def methods() -> Iterator[tuple[str, ...]]:
    """What every method is made of."""
    for each in METHODS.values():
        numbers = (f"{name}={value:g}" for name, value in each.numbers.items())
        rules = codes(each.rules) + (", not next to attention" if each.spared else "")
        yield (
            f"`{each.name}`",
            each.summary,
            each.map,
            ", ".join(each.shares) or "–",
            rules,
            codes(numbers),
            each.source,
        )


def parameters() -> Iterator[tuple[str, ...]]:
    """What every number is, and what it may be."""
    found = {}
    for each in METHODS.values():
        for name, parameter in each.parameters.items():
            found.setdefault((name, parameter.range, parameter.meaning), []).append(each.name)
    for (name, allowed, meaning), users in found.items():
        yield f"`{name}`", meaning, allowed, codes(users)


def written(page: str) -> str:
    """The page with its tables as they are now."""
    tables = {
        "methods": table(
            *("`--method`", "what it is", "score", "receives half", "rules before the usual ones"),
            *("parameters", "source"),
            rows=methods(),
        ),
        "parameters": table("parameter", "what it is", "range", "methods", rows=parameters()),
        "baselines": table(
            *("`--method`", "what it is", "source"),
            rows=((f"`{name}`", row.summary, row.source) for name, row in BASELINES.items()),
        ),
    }
    return with_tables(page, "write_methods.py", tables)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
