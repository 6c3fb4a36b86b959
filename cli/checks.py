"""``--fail-on``: a number of the record held against a limit."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palrp_onnx.errors import CheckError, ModelError

if TYPE_CHECKING:
    from palrp_onnx.record import Attribution

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def residual(record: Attribution) -> float:
    """|residual_relative| of the ledger."""
    return abs(record.ledger["residual_relative"])


def position_share(record: Attribution) -> float:
    """Σ|position| / (Σ|position| + Σ|content|) over the units; 0 where both are nothing."""
    position = math.fsum(map(abs, record.relevance.position))
    content = math.fsum(map(abs, record.relevance.content))
    return position / (position + content) if position + content else 0.0


def probability(record: Attribution) -> float | None:
    """Of the target, where it has one."""
    return record.target.probability


METRICS: dict[str, Callable[[Attribution], float | None]] = {
    "residual": residual,
    "position_share": position_share,
    "probability": probability,
}


@dataclass(frozen=True)
class Check:
    """One condition under which the run has failed."""

    metric: str
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str, known: Iterable[str] = tuple(METRICS)) -> Check:
        """Read ``METRIC OPERATOR NUMBER``, where the metric is one of those ``known``.

        Raises:
            ValueError: It is not of that form, the metric is unknown or the number not finite.
        """
        match = re.fullmatch(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is not of the form 'residual>1e-3'")
        metric, sign, number = match.groups()
        if metric not in known:
            raise ValueError(f"{metric!r} is not one of {', '.join(known)}")
        try:
            limit = float(number)
        except ValueError:
            raise ValueError(f"{number!r} is not a number") from None
        if not math.isfinite(limit):
            raise ValueError(f"{number!r} is not a finite number")
        return cls(metric, sign, limit)

    def failure(self, record: Attribution) -> str | None:
        """Why ``record`` fails; ``None`` where it passes."""
        return self.verdict(METRICS[self.metric](record))

    def verdict(self, value: float | None) -> str | None:
        """Why ``value`` fails; ``None`` where it passes.

        A number that is not there cannot pass: a pipeline must not go on because of it.
        """
        if value is None or not math.isfinite(value):
            return f"{self.metric} is not known"
        if _OPERATORS[self.operator](value, self.limit):
            return f"{self.metric} is {value:.3g}"
        return None

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self.limit:g}"


def run_checks(checks: Sequence[Check], records: Sequence[Attribution]) -> None:
    """Hold every record against every check.

    Raises:
        CheckError: One did not pass; the message counts the others.
    """
    failures = [
        (f"{reason} (--fail-on '{check}')", record.id)
        for check in checks
        for record in records
        if (reason := check.failure(record)) is not None
    ]
    if not failures:
        return
    message, place = failures[0]
    others = f"; {len(failures) - 1} more failed" if len(failures) > 1 else ""
    raise CheckError(f"A check failed: {message}{others}", place=f"sample {place}")


def require_finite(records: Sequence[Attribution]) -> None:
    """NaN and infinity are never written: JSON would turn them into nulls.

    Raises:
        ModelError: A record holds one of them.
    """
    import msgspec

    for record in records:
        if not _finite(msgspec.to_builtins(record)):
            raise ModelError(
                "The result holds NaN or infinity",
                place=f"sample {record.id}",
                hint="The model overflows on this input; try --dtype float64.",
            )


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
