"""Points in a plane as values of a template: places in per cent, axes with round numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palrp_onnx.render.curves import ticks

#: Width and height of the plane, in units of the picture.
WIDTH, HEIGHT = 400, 300


@dataclass(frozen=True)
class Dot:
    """A point of the picture: its place, what it is, and whether it stands out."""

    x: float
    y: float
    name: str
    other: bool


@dataclass(frozen=True)
class Scatter:
    """Dots, and the marks of both axes with their numbers.

    ``diagonal`` are the two ends of the line on which both numbers are equal.
    """

    title: str
    across: str
    upwards: str
    dots: list[Dot]
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]
    diagonal: tuple[float, float, float, float] | None


def scatter(
    title: str,
    labels: tuple[str, str],
    points: Sequence[tuple[float, float, str, bool]],
    *,
    same_axes: bool = False,
) -> Scatter:
    """Place points ``(x, y, name, other)``; with ``same_axes`` both axes have the same range."""
    xs, ys = [each[0] for each in points], [each[1] for each in points]
    if same_axes:
        xs = ys = [*xs, *ys]
    x_axis, y_axis = _Axis.of(xs, WIDTH), _Axis.of(ys, HEIGHT)
    low, high = x_axis.low, x_axis.high
    return Scatter(
        title,
        *labels,
        [Dot(x_axis.at(x), HEIGHT - y_axis.at(y), name, other) for x, y, name, other in points],
        [(at, text) for at, text in x_axis.marks()],
        [(HEIGHT - at, text) for at, text in y_axis.marks()],
        (x_axis.at(low), HEIGHT - y_axis.at(low), x_axis.at(high), HEIGHT - y_axis.at(high))
        if same_axes
        else None,
    )


@dataclass(frozen=True)
class _Axis:
    """Numbers from ``low`` to ``high`` along a length."""

    low: float
    high: float
    length: float

    @classmethod
    def of(cls, values: Sequence[float], length: float) -> _Axis:
        """An axis with a little room beyond the numbers."""
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
        return cls(low - room, high + room, length)

    def at(self, value: float) -> float:
        """The place of a number."""
        return round((value - self.low) / (self.high - self.low) * self.length, 2)

    def marks(self) -> list[tuple[float, str]]:
        """Places of round numbers, and the numbers."""
        found = ticks(self.low, self.high)
        return [
            (self.at(v), f"{v:.6g}".replace("-", "−")) for v in found if self.low <= v <= self.high
        ]
