"""The methods that come with the package, one row each, and the baselines of evaluations.

The command line's help, ``docs/methods.md`` and the docstring of :func:`palrp_onnx.method` are made
of these tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from palrp_onnx.relevance.method import Method, Parameter

DEFAULT_METHOD = "pa-lrp"

_KEPT = Parameter(0.5, 0.0, 1.0, "share λ of the scores in the relevance of what is linear in them")
_EPSILON = Parameter(1e-6, 1e-7, 1.0, "stabiliser ε of every sum")
_GAMMA = Parameter(0.05, 0.0, 1e3, "γ of products with weights")
_GAMMA_CONV = Parameter(100.0, 0.0, 1e3, "γ of convolutions")
_TEMPERATURE = Parameter(2.0, 0.5, 10.0, "temperature τ of the softmax's derivative in attention")
_BASELINE = Parameter(
    -1.0, -1.0, 1e7, "id of the token from whose embedding content is measured; −1 for zero"
)

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
            summary="pa-lrp; the softmax's constant part weighs the values",
            source="this project",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("kept",),
            parameters={"kept": _KEPT},
        ),
        Method(
            name="attnlrp-kept",
            summary="attnlrp; the softmax's constant part weighs the values",
            source="this project",
            map="content",
            shares=("attention", "gates"),
            rules=("kept",),
            parameters={"kept": _KEPT},
        ),
        Method(
            name="pa-lrp-adaptive",
            summary="pa-lrp-kept with a separate share λ for every query",
            source="this project",
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
            name="gim",
            summary="GIM: gradient, norms frozen, softmax's slope softened, half for each factor",
            source="Edin et al. 2025",
            map="content",
            shares=("attention", "gates"),
            rules=("slopes", "tempered"),
            parameters={"temperature": _TEMPERATURE, "baseline": _BASELINE},
        ),
        Method(
            name="pa-gim",
            summary="gim with position sinks",
            source="this project",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("slopes", "tempered"),
            parameters={"temperature": _TEMPERATURE, "baseline": _BASELINE},
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


class BaselineFacts(NamedTuple):
    """A method for comparison, which computes a map without rules and ledger."""

    summary: str
    source: str


#: Methods for evaluations alone, by name; see :mod:`palrp_onnx.evaluate.baselines`.
BASELINES: Mapping[str, BaselineFacts] = {
    "single-sink": BaselineFacts("pa-lrp with one sink for all layers", "PA-LRP (2025), ablation"),
    "rollout": BaselineFacts("attention rollout, the same for every class", "Abnar & Zuidema 2020"),
    "chefer": BaselineFacts(
        "attention weighed by its gradient", "Chefer et al. 2021 (self-attention)"
    ),
    "ig": BaselineFacts("integrated gradients, 32 steps", "Sundararajan et al. 2017"),
}


def own_method(used: Method) -> Method | None:
    """The method if it does not come with the package, so that its name is not known elsewhere."""
    return None if used.name in METHODS else used


def record_params(used: Method) -> dict[str, Any]:
    """What a record states besides the name of the method, if that does not define it.

    Returns:
        ``parameters``, all numbers, if one of them is not the default of the package; and
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


def lines_of(rows: Mapping[str, Method] | Mapping[str, BaselineFacts]) -> Iterator[str]:
    """``NAME  summary``, and a further line for the parameters, if there are any."""
    width = max(map(len, METHODS)) + 2
    for name, row in rows.items():
        yield f"{name:{width}}{row.summary}"
        if isinstance(row, Method) and row.parameters:
            yield " " * width + ", ".join(f"{k}={v:g}" for k, v in row.numbers.items())
