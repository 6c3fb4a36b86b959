"""The methods: one table, those that users add to it, and how one is asked for.

The command line's help, ``docs/methods.md`` and the docstring of :func:`method` are made of the
table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.method import Method, Parameter
from palrp_onnx.rules import rule_sets, supported

DEFAULT_METHOD = "pa-lrp"

_KEPT = Parameter(0.5, 0.0, 1.0, "share λ that scores take of what is linear in them")
_EPSILON = Parameter(1e-6, 1e-7, 1.0, "stabiliser ε of every sum")
_GAMMA = Parameter(0.05, 0.0, 1e3, "γ of products with weights")
_GAMMA_CONV = Parameter(100.0, 0.0, 1e3, "γ of convolutions")

#: The methods that come with the package, by name.
METHODS: Mapping[str, Method] = {
    each.name: each
    for each in (
        Method(
            name="pa-lrp",
            summary="Positional-Aware LRP: a sink at every position; the default",
            source="PA-LRP (2025), eq. 5, 10 and 11",
            map="sum",
            shares=("positions", "attention", "gates"),
        ),
        Method(
            name="attnlrp",
            summary="AttnLRP: content alone, positions that multiply are constants",
            source="Achtibat et al. 2024, prop. 3.3 and 3.4",
            map="content",
            shares=("attention", "gates"),
        ),
        Method(
            name="pe-only",
            summary="the position part of pa-lrp",
            source="PA-LRP (2025), eq. 11",
            map="position",
            shares=("positions", "attention", "gates"),
        ),
        Method(
            name="cp-lrp",
            summary="CP-LRP: attention probabilities and gates are constants too",
            source="Ali et al. 2022",
            map="content",
            shares=(),
        ),
        Method(
            name="pa-lrp-kept",
            summary="pa-lrp whose softmax keeps its constant part for the values",
            source="ours",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("kept",),
            parameters={"kept": _KEPT},
        ),
        Method(
            name="attnlrp-kept",
            summary="attnlrp whose softmax keeps its constant part for the values",
            source="ours",
            map="content",
            shares=("attention", "gates"),
            rules=("kept",),
            parameters={"kept": _KEPT},
        ),
        Method(
            name="pa-lrp-adaptive",
            summary="pa-lrp-kept with a share λ of its own for every query",
            source="ours",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("adaptive",),
        ),
        Method(
            name="pa-cp-lrp",
            summary="cp-lrp with position sinks",
            source="Ali et al. 2022 with PA-LRP's sinks",
            map="sum",
            shares=("positions",),
        ),
        Method(
            name="eps-lrp",
            summary="ε-rule at every sum, identity rule for softmax",
            source="Bach et al. 2015, eq. 58",
            map="content",
            shares=("attention", "gates"),
            rules=("epsilon",),
            parameters={"epsilon": _EPSILON},
        ),
        Method(
            name="gradient-x-input",
            summary="gradient × input",
            source="Shrikumar et al. 2016",
            map="content",
            shares=("attention", "gates"),
            rules=("gradient",),
        ),
        Method(
            name="pa-lrp-gamma",
            summary="pa-lrp for images: γ-rules, nothing passes attention scores",
            source="PA-LRP (2025), tables for vision",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("gamma", "stopped"),
            spared=True,
            parameters={"gamma": _GAMMA, "gamma_conv": _GAMMA_CONV},
        ),
        Method(
            name="attnlrp-gamma",
            summary="the content of pa-lrp-gamma",
            source="PA-LRP (2025), baseline for vision",
            map="content",
            shares=("attention", "gates"),
            rules=("gamma", "stopped"),
            spared=True,
            parameters={"gamma": _GAMMA, "gamma_conv": _GAMMA_CONV},
        ),
        Method(
            name="pa-lrp-alpha",
            summary="pa-lrp for images, smoother: α1-rule, normalised sums",
            source="PA-LRP (2025), figures; Bach et al. 2015, eq. 60",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("alpha", "stopped"),
        ),
        Method(
            name="cp-lrp-gamma",
            summary="cp-lrp for images: γ-rules",
            source="Achtibat et al. 2024, vision transformers",
            map="content",
            shares=(),
            rules=("gamma",),
            spared=True,
            parameters={"gamma": _GAMMA, "gamma_conv": replace(_GAMMA_CONV, default=0.25)},
        ),
    )
}


class Comparison(NamedTuple):
    """What methods are held against: a map without rules and ledger."""

    summary: str
    source: str


#: What only evaluations know, by name; :mod:`palrp_onnx.evaluate.baselines` computes it.
COMPARISONS: Mapping[str, Comparison] = {
    "single-sink": Comparison("pa-lrp with one sink for all layers", "PA-LRP (2025), ablation"),
    "rollout": Comparison("attention rollout, the same for every class", "Abnar & Zuidema 2020"),
    "chefer": Comparison(
        "attention weighed by its gradient", "Chefer et al. 2021 (self-attention)"
    ),
    "ig": Comparison("integrated gradients, 32 steps", "Sundararajan et al. 2017"),
}
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
    if added.name in (*METHODS, *COMPARISONS, _RANDOM, *_registered):
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


def own_method(used: Method) -> Method | None:
    """The method, if it does not come with the package: elsewhere its name says nothing."""
    return None if used.name in METHODS else used


def method(text: str) -> Method:
    """The method that ``NAME`` or ``NAME:PARAMETER=NUMBER,…`` asks for.

    Raises:
        UsageError: There is no such method or parameter, a parameter is given twice, or its number
            is none, not finite or out of range.
    """
    return _asked(text, {**METHODS, **_registered})


def resolve_method(asked: Method | str | None) -> Method:
    """The method that is meant by a text, an object or, with ``None``, by saying nothing.

    Raises:
        UsageError: As :func:`method`; or an object has the name of another method, or names rules
            that nobody has registered.
    """
    if not isinstance(asked, Method):
        return method(DEFAULT_METHOD if asked is None else asked)
    own = METHODS.get(asked.name)
    if own is not None and asked != replace(own, changed=asked.changed):
        raise UsageError(
            "The method differs from the one that has its name",
            place=f"method {asked.name}",
            hint="Give it another: dataclasses.replace(…, name=…).",
        )
    _check_rules(asked)
    return asked


def competitor_text(text: str) -> str:
    """The name of a comparison, or what a method is called, with its numbers.

    Raises:
        UsageError: As :func:`method`; or numbers are given for a comparison.
    """
    name, colon, _ = text.partition(":")
    if name in COMPARISONS and colon:
        raise UsageError(f"{name} has no parameters", place=f"method {text}", hint="Name it alone.")
    if name in COMPARISONS:
        return name
    return _asked(text, {**METHODS, **_registered}, tuple(COMPARISONS)).text


def record_params(used: Method) -> dict[str, Any]:
    """What a record must say beyond the name of the method: nothing where the name says it all.

    Returns:
        ``parameters``, all numbers that were used, where one of them is not the package's; and
        ``definition`` for a method that does not come with the package.
    """
    own = own_method(used) is not None
    found: dict[str, Any] = {}
    if used.numbers and (own or used.changed):
        found["parameters"] = used.numbers
    if own:
        found["definition"] = {
            "map": used.map,
            "shares": list(used.shares),
            "rules": list(used.rules),
            "spared": used.spared,
        }
    return found


def lines_of(rows: Mapping[str, Method] | Mapping[str, Comparison]) -> Iterator[str]:
    """``NAME  summary``, and a line more for the parameters, if there are any."""
    width = max(map(len, METHODS)) + 2
    for name, row in rows.items():
        yield f"{name:{width}}{row.summary}"
        if isinstance(row, Method) and row.parameters:
            yield " " * width + ", ".join(f"{k}={v:g}" for k, v in row.numbers.items())


def _asked(text: str, known: Mapping[str, Method], others: tuple[str, ...] = ()) -> Method:
    name, colon, rest = text.partition(":")
    if name not in known:
        raise UsageError(
            f"Unknown method {name!r}", hint=f"Methods: {', '.join((*known, *others))}."
        )
    numbers: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, equals, number = (piece.strip() for piece in part.partition("="))
        problem = None
        if not key or not equals:
            problem = f"{part!r} is not PARAMETER=NUMBER"
        elif key in numbers:
            problem = f"{key} is given twice"
        else:
            try:
                numbers[key] = float(number)
            except ValueError:
                problem = f"{key}={number} is not a number"
        if problem is not None:
            raise UsageError(
                problem, place=f"method {text}", hint="Write NAME:PARAMETER=NUMBER,… ."
            )
    return known[name].having(**numbers)


def _check_rules(found: Method) -> None:
    """Every set of rules must be there, and be asked for something that none before it has."""
    decided: set[tuple[str, str]] = set()
    for name in found.rules:
        covered = {(domain, operation) for domain, operation, _ in supported(name)}
        if not covered:
            raise UsageError(
                f"No rules are registered under {name!r}",
                place=f"method {found.name}",
                hint=f"Register them first, with @rule(…, under={name!r}). "
                f"There are: {', '.join(rule_sets())}.",
            )
        if covered <= decided:
            raise UsageError(
                f"The rules {name!r} never decide: sets before them have all of their operations",
                place=f"method {found.name}",
                hint="Name them earlier, or leave them out.",
            )
        decided |= covered


# The table is the one place for what methods there are. Python may run without docstrings.
if method.__doc__ is not None:
    method.__doc__ = (
        method.__doc__.rstrip()
        + "\n\n    Methods::\n\n"
        + "\n".join(f"        {line}" for line in lines_of(METHODS))
    )
