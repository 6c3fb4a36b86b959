"""The account of one explanation: where the target's value went."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from palrp_onnx.record import LEDGER_ENTRIES, LEDGER_SUMS, QUANTISED_ENTRIES
from palrp_onnx.types import Array

#: What the walk puts before the name of an explained input.
INPUT = "input:"
#: Where results of kernels for whole numbers differ from exact arithmetic.
KERNEL = "kernel"


#: Share of the entries' magnitudes below which rounding explains a residual, in half precision too.
OPEN = 1e-2


def is_open(ledger: Mapping[str, Array]) -> bool:
    """Whether the ledger of some sample misses the target by more than rounding does."""
    return bool((np.abs(ledger.get("residual_relative", np.zeros(1))) > OPEN).any())


def entry_name(entry: str, explained: str) -> str:
    """An entry as readers know it: ``content`` for the explained input, others by their names."""
    return "content" if entry == f"{INPUT}{explained}" else entry.removeprefix(INPUT)


def in_order(entries: Collection[str]) -> list[str]:
    """Names of entries as every record has them: the usual ones, inputs, those of quantisation."""
    known = (*LEDGER_ENTRIES, *QUANTISED_ENTRIES, *LEDGER_SUMS)
    inputs = [name for name in entries if name not in known]
    ordered = [*LEDGER_ENTRIES, *inputs, *QUANTISED_ENTRIES]
    return [name for name in ordered if name in entries]


def close_books(ledger: Mapping[str, Array], target: Array) -> dict[str, Array]:
    """Entries in float64, the target, and what is left of it, each [B].

    residual = target − Σ entries; residual_relative = residual / Σ |entries|. Where all entries
    are zero, nothing of the target is accounted for: residual_relative is then ±1, with the sign
    of the target, and 0 only where the target is 0 too. Where a sum is not finite it is 1.
    """
    known = {entry: np.zeros_like(target) for entry in LEDGER_ENTRIES} | dict(ledger)
    entries = {entry: known[entry] for entry in in_order(known)}
    total = sum(entries.values(), np.zeros_like(target))
    scale = sum((np.abs(e) for e in entries.values()), np.zeros_like(target))
    residual = target - total
    return {
        "target": target,
        **entries,
        "residual": residual,
        "residual_relative": _relative(residual, scale),
    }


def _relative(residual: Array, scale: Array) -> Array:
    """residual / scale; the sign of the residual where the scale is zero; never NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.divide(residual, scale, out=np.sign(residual), where=scale > 0)
    return np.where(np.isfinite(scale) & np.isfinite(share), share, 1.0)
