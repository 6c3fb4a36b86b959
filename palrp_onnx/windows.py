"""A text that is longer than its model, explained in overlapping windows.

The target is the mean over K windows, ``(1/K) Σ_k y_k``. It is a sum of what the windows compute,
so that relevance of the whole text needs no further rules: every token has 1/K of its relevance in
all windows that it is in, and every entry of the ledger is the mean of those of the windows. The
ledger closes if it does in every window. Special tokens of all windows are those of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import UNSET, UnsetType, structs

from palrp_onnx.describe import Explanation
from palrp_onnx.errors import UsageError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import (
    LEDGER_SUMS,
    PARTS,
    Attribution,
    Fidelity,
    OffMap,
    Relevance,
    Site,
    Warning_,
)
from palrp_onnx.relevance.ledger import close_ledger

#: [K lists of numbers, one a unit of the window] → one number a unit of the text.
_Join = Callable[[Sequence[Sequence[float]]], list[float]]


def join_windows(sample: Sample, found: Sequence[Explanation]) -> Explanation:
    """The explanation of a whole text from those of its windows, all for the same target.

    Args:
        sample: The text, with its windows.
        found: The explanation of every window. Raw arrays of the windows are left out.

    Raises:
        UsageError: Another input is explained, too.
    """
    records = [each.record for each in found]
    first = records[0]
    assert sample.units is not None
    if first.others is not UNSET:
        raise UsageError(
            "Windows are for a text that is explained alone",
            place=f"input {first.others[0].input}",
            hint=f"--explain-input {first.input_name or ''}",
        )
    count = len(sample.units.text)

    def joined(parts: Sequence[Sequence[float]]) -> list[float]:
        total = np.zeros(count)
        for window, values in zip(sample.windows, parts, strict=True):
            np.add.at(total, np.array(window.places), np.asarray(values) / len(parts))
        return total.tolist()

    value = float(np.mean([each.target.value for each in records]))
    return Explanation(
        structs.replace(
            first,
            id=sample.id,
            run=structs.replace(first.run, ms=_sums(records)),
            input=sample.facts,
            target=structs.replace(first.target, value=value, probability=None),
            units=sample.units,
            relevance=_relevance(records, joined),
            sites=_sites(records, joined),
            ledger=_ledger(records, value),
            warnings=[*sample.warnings, *_warnings(records)],
            fidelity=max((each.fidelity for each in records), key=_difference),
        ),
        tensors={},
    )


def _difference(fidelity: Fidelity | UnsetType) -> float:
    return 0.0 if fidelity is UNSET else fidelity.difference or 0.0


def _sums(records: Sequence[Attribution]) -> dict[str, float]:
    return {name: sum(each.run.ms.get(name, 0.0) for each in records) for name in records[0].run.ms}


def _relevance(records: Sequence[Attribution], joined: _Join) -> Relevance:
    return Relevance(
        **{part: joined([getattr(each.relevance, part) for each in records]) for part in PARTS},
        off_map=OffMap(
            **{
                part: float(np.mean([getattr(each.relevance.off_map, part) for each in records]))
                for part in ("content", "position")
            }
        ),
    )


def _sites(records: Sequence[Attribution], joined: _Join) -> list[Site]:
    columns = zip(*(each.sites for each in records), strict=True)
    return [
        structs.replace(
            same[0],
            relevance=joined([each.relevance for each in same]),
            off_map=float(np.mean([each.off_map for each in same])),
        )
        for same in columns
    ]


def _ledger(records: Sequence[Attribution], value: float) -> dict[str, float]:
    """The mean of every entry, and what they miss of the mean target."""
    entries = {
        name: np.array([np.mean([each.ledger[name] for each in records])])
        for name in records[0].ledger
        if name not in LEDGER_SUMS
    }
    closed = close_ledger(entries, np.array([value]))
    return {name: float(amount[0]) for name, amount in closed.items()}


def _warnings(records: Sequence[Attribution]) -> list[Warning_]:
    return list(dict.fromkeys(warning for each in records for warning in each.warnings))
