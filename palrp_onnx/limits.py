"""Limits of ``--fail-on``: with ``residual>1e-3`` a larger residual is a failure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palrp_onnx.errors import CheckError
from palrp_onnx.warning_codes import WARNINGS

if TYPE_CHECKING:
    from palrp_onnx.evaluate.agreement import Agreement
    from palrp_onnx.record import Attribution

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}

_WARNING = "warning:"
#: Metrics that are facts, which may stand alone.
_FACTS = ("truncated", _WARNING)


def _counter(code: str) -> Callable[[Attribution], float]:
    """The number of warnings with this code."""
    return lambda record: float(sum(warning.code == code for warning in record.warnings))


#: Metrics of a record.
RECORD_METRICS: dict[str, Callable[[Attribution], float | None]] = {
    "residual": lambda record: record.residual,
    "position_share": lambda record: record.position_share,
    "probability": lambda record: record.target.probability,
    "truncated": lambda record: float(record.input.truncated),
    "unknown": lambda record: record.unknown,
    **{f"{_WARNING}{code}": _counter(code) for code in WARNINGS},
}
#: Names of these metrics in help: warnings are named by their codes.
METRIC_NAMES = (
    *(name for name in RECORD_METRICS if not name.startswith(_WARNING)),
    f"{_WARNING}CODE",
)
#: Metrics of a comparison of two runs.
AGREEMENT_METRICS: dict[str, Callable[[Agreement], float | None]] = {
    "same_target": lambda found: found.same_target,
    "correlation": lambda found: found.correlation.mean,
    "worst_correlation": lambda found: found.correlation.least,
    "pearson": lambda found: found.pearson.mean,
    "overlap": lambda found: found.overlap.mean,
    "position_share": lambda found: found.position_share.mean,
    "unmatched": lambda found: len(found.a.only) + len(found.b.only),
    "failed": lambda found: len(found.a.failed) + len(found.b.failed),
    "incomparable": lambda found: len(found.incomparable),
}


@dataclass(frozen=True)
class Limit:
    """A condition for failure, such as ``residual>1e-3``.

    Attributes:
        metric: Name of the metric.
        operator: ``>``, ``<``, ``>=`` or ``<=``.
        bound: The number that the metric is compared with.
    """

    metric: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, text: str, metrics: Iterable[str] = tuple(RECORD_METRICS)) -> Limit:
        """Read ``METRIC OPERATOR NUMBER``, or a fact alone, as ``truncated``, that must not be.

        Raises:
            ValueError: The text is not of that form, the metric is unknown, or the number is not
                finite.
        """
        metrics = [*metrics]
        codes = [name for name in metrics if name.startswith(_WARNING)]
        if text in metrics and text.startswith(_FACTS):
            return cls(text, ">", 0.0)
        if text.startswith(_WARNING) and codes:
            raise ValueError(f"{text!r} is none of the warnings {', '.join(WARNINGS)}")
        match = re.fullmatch(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is not of the form 'residual>1e-3'")
        metric, sign, number = match.groups()
        if metric not in metrics:
            known = [name for name in metrics if name not in codes]
            known += [f"{_WARNING}CODE"] if codes else []
            raise ValueError(f"{metric!r} is not one of {', '.join(known)}")
        try:
            bound = float(number)
        except ValueError:
            raise ValueError(f"{number!r} is not a number") from None
        if not math.isfinite(bound):
            raise ValueError(f"{number!r} is not a finite number")
        return cls(metric, sign, bound)

    def failed(self, record: Attribution) -> str | None:
        """Why ``record`` fails; ``None`` if it passes."""
        return self.verdict(self.found(record))

    def found(self, record: Attribution) -> float | None:
        """The value of the metric."""
        return RECORD_METRICS[self.metric](record)

    def verdict(self, value: float | None) -> str | None:
        """Why ``value`` fails; ``None`` if it passes.

        A missing number fails too: a pipeline must not continue because a metric is not known.
        """
        if value is None or not math.isfinite(value):
            problem = "not known"
        elif _OPERATORS[self.operator](value, self.bound):
            problem = f"{value:.3g}"
        else:
            return None
        return f"{self.metric} is {problem} (--fail-on '{self}')"

    def __str__(self) -> str:
        if self.metric.startswith(_FACTS) and (self.operator, self.bound) == (">", 0.0):
            return self.metric
        return f"{self.metric}{self.operator}{self.bound:g}"


def with_checks(record: Attribution, limits: Sequence[Limit]) -> Attribution:
    """The record with the verdict of every limit."""
    from msgspec import structs  # loaded with records; options alone need neither

    from palrp_onnx.record import Check

    checks = [
        Check(check=str(limit), passed=limit.failed(record) is None, found=limit.found(record))
        for limit in limits
    ]
    return structs.replace(record, checks=checks) if checks else record


def check_records(limits: Sequence[Limit], records: Sequence[Attribution]) -> None:
    """Check every record against every limit.

    Raises:
        CheckError: A limit failed; the message names the first failure and counts the others.
    """
    failures = [
        (reason, record.id)
        for limit in limits
        for record in records
        if (reason := limit.failed(record)) is not None
    ]
    if not failures:
        return
    message, place = failures[0]
    others = f"; {len(failures) - 1} more failed" if len(failures) > 1 else ""
    raise CheckError(f"A check failed: {message}{others}", place=place)


def check_agreement(limits: Sequence[Limit], found: Agreement) -> None:
    """Check a comparison of two runs against every limit.

    Raises:
        CheckError: A limit failed; the message names all that failed.
    """
    verdicts = (limit.verdict(AGREEMENT_METRICS[limit.metric](found)) for limit in limits)
    if failures := [reason for reason in verdicts if reason is not None]:
        raise CheckError(f"A check failed: {'; '.join(failures)}")
