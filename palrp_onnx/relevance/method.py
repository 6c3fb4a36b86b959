"""A method as data: what takes a share, which rules come first, and what numbers it leaves open."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from palrp_onnx.errors import UsageError

#: What may take half of a product of two activations.
Share = Literal["positions", "attention", "gates"]
#: What units are ranked by.
MapKind = Literal["sum", "content", "position"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
#: Sets of rules that divide what attention probabilities and values have in common.
_OF_ATTENTION = frozenset(("kept", "adaptive"))


@dataclass(frozen=True)
class Parameter:
    """A number that a method leaves open.

    Attributes:
        default: The number that is used if none is given.
        low: Smallest allowed number.
        high: Largest allowed number.
        meaning: Its meaning, in a few words.

    Raises:
        UsageError: One of the numbers is not finite, or the default is outside of the range.
    """

    default: float
    low: float
    high: float
    meaning: str

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.default, self.low, self.high))):
            raise UsageError(f"A parameter takes finite numbers ({self.meaning})")
        if not self.low <= self.default <= self.high:
            raise UsageError(
                f"The default {short(self.default)} of a parameter is not within {self.range} "
                f"({self.meaning})"
            )

    @property
    def range(self) -> str:
        """``LOW … HIGH``, both included."""
        return f"{short(self.low)} … {short(self.high)}"


@dataclass(frozen=True)
class Ranking:
    """How units get their score.

    Attributes:
        kind: Content, reduced positions, or their sum.
        position_weight: Factor of the reduced positions.
        layer_weight: Weight of a layer's sinks, divided by that of the layer before it.
        magnitude: 0 for signed scores, 1 for their magnitudes; between, a weighted mean of both.
    """

    kind: MapKind
    position_weight: float = 1.0
    layer_weight: float = 1.0
    magnitude: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to explain.

    Built from another one: ``dataclasses.replace(method("pa-lrp"), name="mine", …)``. Pickled, it
    takes along the rules that were registered outside of this package and that it can use.

    Attributes:
        name: Letters, digits, ``-``, ``_`` and ``.``.
        summary: What it is, in one line.
        source: Paper and equation.
        map: What units are ranked by, the score: content, position reduced to magnitudes, or their
            sum.
        shares: What takes half of a product of two activations, and does not only scale it:
            ``positions`` that multiply (cosines and sines), ``attention`` probabilities beside
            values, ``gates``, the activated branches of gated units.
        rules: Sets of rules that come before the usual ones, the first first. With ``gradient``,
            gates, statistics and normalisers are content as well: multipliers are the gradient.
        spared: Linear layers that make values of attention, or read what it made, keep the usual
            rules.
        parameters: The numbers that the rules ask for.
        changed: Those of them that are not the defaults.

    Raises:
        UsageError: A name cannot be one, a choice is unknown, or two contradict each other.
    """

    name: str
    summary: str
    source: str
    map: MapKind
    shares: tuple[Share, ...]
    rules: tuple[str, ...] = ()
    spared: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.parameters):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} cannot name a method or a parameter",
                    hint="Use letters, digits, '-', '_' and '.'.",
                )
        self._one_of("map", (self.map,), get_args(MapKind))
        self._one_of("share", self.shares, get_args(Share))
        if len(set(self.rules)) < len(self.rules):
            raise self._refused("A set of rules is named twice", f"Rules: {', '.join(self.rules)}.")
        idle = sorted(_OF_ATTENTION.intersection(self.rules))
        if idle and "attention" not in self.shares:
            raise self._refused(
                f"The rules {idle[0]!r} say how attention shares, but it takes no share",
                "Add attention to the shares, or leave these rules out.",
            )
        if self.spared and not self.rules:
            raise self._refused(
                "No layer has other rules than the usual ones, so that none can be spared",
                "Name sets of rules, or leave spared out.",
            )
        for name, value in self.changed.items():
            self._check(name, value)

    @property
    def text(self) -> str:
        """The name, with the numbers that are not the defaults: ``NAME:PARAMETER=NUMBER,…``."""
        numbers = [f"{k}={short(self.changed[k])}" for k in self.parameters if k in self.changed]
        return f"{self.name}:{','.join(numbers)}" if numbers else self.name

    @property
    def every_path(self) -> bool:
        """Whether gates, statistics and normalisers are content."""
        return "gradient" in self.rules

    @property
    def own_slopes(self) -> bool:
        """Whether gates of self-gated activations are content."""
        return "slopes" in self.rules

    @property
    def numbers(self) -> dict[str, float]:
        """Every parameter with the number that is used."""
        return {**{k: each.default for k, each in self.parameters.items()}, **self.changed}

    @property
    def ranking(self) -> Ranking:
        """How units get their score: :attr:`map`, and the parameters named like its numbers."""
        names = ("position_weight", "layer_weight", "magnitude")
        return Ranking(self.map, **{k: v for k, v in self.numbers.items() if k in names})

    def number(self, name: str) -> float:
        """The number that is used for a parameter.

        Raises:
            UsageError: There is no such parameter.
        """
        self._check_name(name)
        return self.changed.get(name, self.parameters[name].default)

    def having(self, /, **numbers: float) -> Method:
        """The same with other numbers.

        Raises:
            UsageError: There is no such parameter, or its number is not finite or out of range.
        """
        for name, value in numbers.items():
            self._check(name, value)
        asked = {**self.changed, **{name: float(value) for name, value in numbers.items()}}
        defaults = self.parameters
        changed = {k: asked[k] for k in defaults if k in asked and asked[k] != defaults[k].default}
        return replace(self, changed=changed)

    def _check_name(self, name: str) -> None:
        if name not in self.parameters:
            known = [f"{k} ({each.range})" for k, each in self.parameters.items()]
            raise self._refused(
                f"Unknown parameter {name!r}",
                f"Parameters: {', '.join(known)}." if known else "The method has no parameters.",
            )

    def _check(self, name: str, value: float) -> None:
        self._check_name(name)
        parameter = self.parameters[name]
        if not math.isfinite(value):
            raise self._refused(f"{name} is not finite", f"It may be {parameter.range}.")
        if not parameter.low <= value <= parameter.high:
            raise self._refused(
                f"{name} = {short(value)} is out of range", f"It may be {parameter.range}."
            )

    def _one_of(self, what: str, found: tuple[str, ...], known: tuple[str, ...]) -> None:
        unknown = [each for each in found if each not in known]
        if unknown:
            raise self._refused(f"Unknown {what} {unknown[0]!r}", f"One of {', '.join(known)}.")

    def _refused(self, problem: str, hint: str) -> UsageError:
        return UsageError(problem, place=f"method {self.name}", hint=hint)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: another process may not know rules from outside of this package."""
        from palrp_onnx.rules.registry import rules_from_outside  # the table of methods needs none

        return {**self.__dict__, "carried": rules_from_outside(self.rules)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from palrp_onnx.rules.registry import add_rules

        add_rules(state.pop("carried"))
        self.__dict__.update(state)


def short(number: float) -> str:
    """A number that reads back as the same one, without a needless ``.0``."""
    return repr(float(number) + 0.0).removesuffix(".0")
