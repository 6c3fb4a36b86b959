"""The ledger as one bar: what speaks for the target to the right of zero, what against it left."""

from __future__ import annotations

from dataclasses import dataclass

from palrp_onnx.record import Attribution, entry_names
from palrp_onnx.render.scale import number
from palrp_onnx.render.wording import entry_words

#: Smaller parts of Σ |entries| are not drawn.
_SMALL = 1e-3


@dataclass(frozen=True)
class AccountPart:
    """One entry of the ledger: its name in words, and its place on the bar in per cent."""

    name: str
    value: str
    place: str
    left: float
    width: float


@dataclass(frozen=True)
class Account:
    """The parts, the largest first, and where zero and the target are, in per cent."""

    parts: list[AccountPart]
    zero: float
    target: float
    value: str


def account_of(record: Attribution) -> Account | None:
    """The stacked bar of a record; ``None`` where it has no ledger or all entries are zero.

    From zero on, positive entries follow each other to the right and negative ones to the left, so
    that the target is at the length of the right side minus that of the left.
    """
    names = entry_names(record.ledger) if record.ledger else []
    size = sum(abs(record.ledger[name]) for name in names)
    if not size:
        return None
    mapped = ("content", "position", *(each.input for each in record.maps[1:]))
    entries = [(name, record.ledger[name]) for name in names]
    shown = [each for each in entries if abs(each[1]) > _SMALL * size]
    shown.sort(key=lambda each: (each[0] not in mapped, -abs(each[1])))
    against = -sum(value for _, value in shown if value < 0)
    share = 100 / sum(abs(value) for _, value in shown)
    ends = {True: against, False: against}  # how far each side reaches, from the left
    parts = []
    for name, value in shown:
        start = ends[value > 0]
        ends[value > 0] = start + value
        place = name if name in ("content", "position") else "input" if name in mapped else "rest"
        left = min(start, start + value) * share
        words = entry_words(name, record.maps)
        parts.append(AccountPart(words, number(value), place, left, abs(value) * share))
    target = record.ledger["target"]
    return Account(parts, against * share, (against + target) * share, number(target))
