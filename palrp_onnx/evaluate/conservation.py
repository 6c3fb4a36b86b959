"""The share of positions in the relevance, over a data set (PA-LRP, appendix F)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.statistics import quartiles
from palrp_onnx.record import LEDGER_ENTRIES, LEDGER_SUMS, Attribution


class Spread(Struct, frozen=True, kw_only=True):
    """Mean, standard deviation and quartiles of one number over the samples."""

    mean: float
    deviation: float
    quartiles: tuple[float, float, float]


class Layer(Struct, frozen=True, kw_only=True):
    """Mean share of one position site in the ledger, |Σ relevance| / Σ |entries|."""

    kind: str
    layer: int
    part: str
    share: float


class Conservation(Struct, frozen=True, kw_only=True):
    """Shares over a data set.

    Attributes:
        samples: Number of records.
        position_share: Of signed sums, as in appendix F, over the samples:
            :attr:`palrp_onnx.Attribution.signed_position_share`.
        ledger: Mean of |amount| / Σ |entries| for each entry.
        layers: The same for every position site, with the signed sum over its units as amount.
        residual: Largest |residual_relative|.
    """

    samples: int
    position_share: Spread
    ledger: dict[str, float]
    layers: list[Layer]
    residual: float


def conservation(records: Iterable[Attribution]) -> Conservation:
    """Shares of positions, and of all other entries of the ledger, over ``records``.

    Raises:
        InputError: There are no records.
    """
    shares: list[float] = []
    ledgers: dict[str, list[float]] = defaultdict(list)
    layers: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    residual = 0.0
    for record in records:
        ledger = record.ledger
        entries = {k: abs(v) for k, v in ledger.items() if k not in LEDGER_SUMS}
        whole = sum(entries.values()) or 1.0
        shares.append(record.signed_position_share)
        for name, amount in entries.items():
            ledgers[name].append(amount / whole)
        for site in record.sites:
            layers[site.kind, site.layer, site.part].append(abs(sum(site.relevance)) / whole)
        residual = max(residual, record.residual)
    if not shares:
        raise InputError("There is nothing to evaluate")
    return Conservation(
        samples=len(shares),
        position_share=_spread(shares),
        ledger={
            name: sum(ledgers[name]) / len(shares)
            for name in [*LEDGER_ENTRIES, *sorted(set(ledgers) - set(LEDGER_ENTRIES))]
        },
        layers=[
            Layer(kind=kind, layer=layer, part=part, share=sum(found) / len(shares))
            for (kind, layer, part), found in sorted(layers.items(), key=lambda item: item[0][1])
        ],
        residual=residual,
    )


def _spread(numbers: Sequence[float]) -> Spread:
    return Spread(
        mean=float(np.mean(numbers)),
        deviation=float(np.std(numbers)),
        quartiles=quartiles(numbers),
    )
