"""The ledger of one explanation: how the target's value is divided among entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from palrp_onnx.record import LEDGER_ENTRIES, LEDGER_SUMS, QUANTISED_ENTRIES
from palrp_onnx.types import Array

#: Prefix of the walk's entries for explained inputs.
INPUT = "input:"
#: Entry for the difference between integer kernels and exact arithmetic.
KERNEL = "kernel"


#: Largest residual, as a share of Σ |entries|, that rounding explains, in half precision too.
OPEN = 1e-2


def is_open(ledger: Mapping[str, Array]) -> bool:
    """Whether the residual of some sample is larger than rounding explains."""
    return bool((np.abs(ledger.get("residual_relative", np.zeros(1))) > OPEN).any())


def entry_name(entry: str, explained: str) -> str:
    """Public name of an entry: ``content`` for the explained input, other inputs by their names."""
    return "content" if entry == f"{INPUT}{explained}" else entry.removeprefix(INPUT)


def in_order(entries: Collection[str]) -> list[str]:
    """Names of entries in the order of records: fixed entries, inputs, entries of quantisation."""
    known = (*LEDGER_ENTRIES, *QUANTISED_ENTRIES, *LEDGER_SUMS)
    inputs = [name for name in entries if name not in known]
    ordered = [*LEDGER_ENTRIES, *inputs, *QUANTISED_ENTRIES]
    return [name for name in ordered if name in entries]


def close_ledger(ledger: Mapping[str, Array], target: Array) -> dict[str, Array]:
    """The target, all entries and the residual in float64, each [B], in units of the target.

    residual = target − Σ entries; residual_relative = residual / Σ |entries|. Where all entries
    are zero, residual_relative is the sign of the target: ±1, or 0 where the target is 0 too. It is
    1 where a sum is not finite.
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


def with_absorbed(
    ledger: Mapping[str, Array], values: Array, amounts: Array, entry: str
) -> dict[str, Array]:
    """The ledger of a log-probability: ``amounts`` [B] is what its seed leaves out of ``values``.

    It is added to ``entry``, so that the ledger accounts for the log-probability itself.
    """
    if not amounts.any():
        return dict(ledger)
    entries = {name: amount for name, amount in ledger.items() if name not in LEDGER_SUMS}
    return close_ledger({**entries, entry: entries[entry] + amounts}, values)


def _relative(residual: Array, scale: Array) -> Array:
    """residual / scale; the sign of the residual where the scale is zero; never NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.divide(residual, scale, out=np.sign(residual), where=scale > 0)
    return np.where(np.isfinite(scale) & np.isfinite(share), share, 1.0)
