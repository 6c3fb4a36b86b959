"""``python docs/write_operations.py`` writes the tables of ``operations.md`` from the package's."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from tables import table, with_tables

from palrp_onnx.model import maps
from palrp_onnx.model.lowering.table import find_lowering, lowerable
from palrp_onnx.model.passes import branches, functions, opset, sequences
from palrp_onnx.rules import NO_PATH, find_rule, supported
from palrp_onnx.rules.refused import REFUSED

PAGE = Path(__file__).with_name("operations.md")
#: The last opset of the standard that the page knows.
LAST = 28
STANDARD, TABULAR = "", "ai.onnx.ml"
#: Domain and name.
Operation = tuple[str, str]


def standard() -> set[Operation]:
    """All operations of the standard up to the last opset."""
    return {
        (s.domain, s.name)
        for s in onnx.defs.get_all_schemas_with_history()
        if s.domain == TABULAR or (s.domain == STANDARD and s.since_version <= LAST)
    }


def ruled() -> dict[Operation, tuple[str, str]]:
    """Operation → the law of its rule in the latest opset, and the law's source."""
    found = {}
    for domain, op_type, _ in supported():
        entry = find_rule(domain, op_type, LAST)
        assert entry is not None
        own, module = (_text(each) for each in (entry.rule, sys.modules[entry.rule.__module__]))
        source = _source(own) or _source(module)
        assert source, f"The rule of {op_type} names no source"
        found[domain, op_type] = _first(entry.rule), source
    return found


def _text(documented: object) -> str:
    """A docstring as one line of Markdown."""
    return " ".join((documented.__doc__ or "").split()).replace("``", "`")


def _first(documented: object) -> str:
    """Its first sentence."""
    return _text(documented).partition(" Source: ")[0].partition(". ")[0].rstrip(".")


def _source(text: str) -> str:
    found = re.search(r"Source: (.*?)(?:\. (?=[A-Z])|\.?$)", text)
    return found[1] if found else ""


def lowered() -> dict[Operation, str]:
    """Operation → what its lowering is about."""
    return {key: _first(sys.modules[find_lowering(*key).__module__]) for key in lowerable()}


def replaced() -> dict[Operation, str]:
    """Operation → the pass that removes it."""
    defined = (op for domain, op in standard() if not domain and functions.written_out(op, LAST))
    passes = {
        "stored as weights": ["Constant"],
        _first(branches): ["If", "Loop", "Scan"],
        _first(sequences): sequences.CONCERNED,
        _first(functions): [op for op in defined if op not in sequences.CONCERNED],
        _first(opset): ["Scatter", "Upsample"],
    }
    found = {(STANDARD, op): how for how, ops in passes.items() for op in ops}
    return {**found, (TABULAR, "ZipMap"): _first(maps)}


def without_relevance() -> dict[Operation, str]:
    """Operations that carry no relevance on purpose."""
    return {(STANDARD, op): why for op, why in NO_PATH.items()}


def kinds() -> dict[str, dict[Operation, object]]:
    """What happens to operations → these, each in the first kind that has it."""
    listed: dict[str, Mapping[Operation, object]] = {
        "rules": ruled(),
        "rewritten": lowered(),
        "replaced": replaced(),
        "without": without_relevance(),
        "refused": REFUSED,
    }
    found: dict[str, dict[Operation, object]] = {}
    seen: set[Operation] = set()
    for kind, operations in listed.items():
        found[kind] = {key: value for key, value in operations.items() if key not in seen}
        seen |= operations.keys()
    return found


def codes(operations: Iterable[Operation]) -> str:
    """Operations as code, the standard's first."""
    return ", ".join(f"`{f'{domain}.{name}'.lstrip('.')}`" for domain, name in sorted(operations))


def grouped(operations: Mapping[Operation, object]) -> Iterator[tuple[str, ...]]:
    """Operations with the same facts in one row."""
    groups: dict[object, list[Operation]] = {}
    for key, facts in sorted(operations.items()):
        groups.setdefault(facts, []).append(key)
    for facts, members in groups.items():
        texts = facts if isinstance(facts, tuple) else (facts,)
        yield codes(members), *(str(text).replace("|", r"\|") for text in texts)


def written(page: str) -> str:
    """The page with its tables as they are now."""
    found = kinds()
    heads = {
        "rules": ("operation", "rule", "source"),
        "rewritten": ("operation", "among"),
        "replaced": ("operation", "how"),
        "without": ("operation", "why"),
        "refused": ("operation", "why"),
    }
    texts = {name: table(*line, rows=grouped(found[name])) for name, line in heads.items()}
    return with_tables(page, "write_operations.py", texts)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
