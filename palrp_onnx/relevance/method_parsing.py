"""From a text or an object to a method, and the methods that users register."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.methods import BASELINES, DEFAULT_METHOD, METHODS, lines_of

#: Name of the map in random order that is in every evaluation.
_RANDOM = "random"

_registered: dict[str, Method] = {}


def register_method(added: Method) -> Method:
    """Make a method known by its name, in this process and the workers that it starts.

    Args:
        added: The method; numbers that differ from its defaults become its defaults.

    Returns:
        The method as it is known.

    Raises:
        UsageError: The name is taken, or the rules that the method names cannot decide anything.
    """
    if added.name in (*METHODS, *BASELINES, _RANDOM, *_registered):
        raise UsageError(
            "There is a method of this name already",
            place=f"method {added.name}",
            hint="Give yours another: dataclasses.replace(…, name=…).",
        )
    _check_rules(added)
    defaults = {
        name: replace(each, default=added.number(name)) for name, each in added.parameters.items()
    }
    _registered[added.name] = replace(added, parameters=defaults, changed={})
    return _registered[added.name]


def method(text: str) -> Method:
    """The method of the text ``NAME`` or ``NAME:PARAMETER=NUMBER,…``.

    Raises:
        UsageError: There is no such method or parameter, a parameter is given twice, or its number
            is none, not finite or out of range.
    """
    return _find(text)


def resolve_method(wanted: Method | str | None) -> Method:
    """The method of a text or an object; the default method for ``None``.

    Raises:
        UsageError: As :func:`method`; or an object has the name of another method, or names rules
            that nobody has registered.
    """
    if not isinstance(wanted, Method):
        return method(DEFAULT_METHOD if wanted is None else wanted)
    own = METHODS.get(wanted.name)
    if own is not None and wanted != replace(own, changed=wanted.changed):
        raise UsageError(
            "The method differs from the one that has its name",
            place=f"method {wanted.name}",
            hint="Give it another name: dataclasses.replace(…, name=…).",
        )
    _check_rules(wanted)
    return wanted


def compared_method_text(text: str) -> str:
    """The normal form of the text of a method, or the name of a baseline.

    Raises:
        UsageError: As :func:`method`; or parameters are given for a baseline.
    """
    name, colon, _ = text.partition(":")
    if name not in BASELINES:
        return _find(text, others=BASELINES).text
    if colon:
        raise UsageError(f"{name} has no parameters", place=f"method {text}", hint="Name it alone.")
    return name


def _find(text: str, others: Iterable[str] = ()) -> Method:
    known, (name, colon, rest) = {**METHODS, **_registered}, text.partition(":")
    if name not in known:
        raise UsageError(
            f"Unknown method {name!r}", hint=f"Methods: {', '.join((*known, *others))}."
        )
    return known[name].having(**(_numbers(text, rest) if colon else {}))


def _numbers(text: str, pairs: str) -> dict[str, float]:
    """Numbers by parameter of ``PARAMETER=NUMBER,…``; whether a method has them is not checked."""

    def refused(problem: str) -> UsageError:
        hint = "Write NAME:PARAMETER=NUMBER,… ."
        return UsageError(problem, place=f"method {text}", hint=hint)

    found: dict[str, float] = {}
    for pair in pairs.split(","):
        name, equals, number = (piece.strip() for piece in pair.partition("="))
        if not name or not equals:
            raise refused(f"{pair!r} is not PARAMETER=NUMBER")
        if name in found:
            raise refused(f"{name} is given twice")
        try:
            found[name] = float(number)
        except ValueError:
            raise refused(f"{name}={number} is not a number") from None
    return found


def _check_rules(found: Method) -> None:
    """Every set of rules must be there, and be asked for something that none before it has."""
    from palrp_onnx.rules import rule_sets, supported  # methods by name need none of it

    decided: dict[tuple[str, str], int] = {}
    for name in found.rules:
        # From its first opset on; rules are sorted by it, so that the last one seen is the first.
        covered = {(domain, op): since for domain, op, since in reversed(supported(name))}
        if not covered:
            raise UsageError(
                f"No rules are registered under {name!r}",
                place=f"method {found.name}",
                hint=f"Register them first, with @rule(…, under={name!r}). "
                f"There are: {', '.join(rule_sets())}.",
            )
        if all(key in decided and decided[key] <= since for key, since in covered.items()):
            raise UsageError(
                f"The rules {name!r} never decide: sets before them have all of their operations",
                place=f"method {found.name}",
                hint="Name them earlier, or leave them out.",
            )
        for key, since in covered.items():
            decided[key] = min(since, decided.get(key, since))


# The table is the one place for what methods there are. Python may run without docstrings.
if method.__doc__ is not None:
    method.__doc__ = (
        method.__doc__.rstrip()
        + "\n\n    Methods::\n\n"
        + "\n".join(f"        {line}" for line in lines_of(METHODS))
    )
