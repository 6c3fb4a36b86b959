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
_ROTATION = Parameter(0.5, 0.0, 1.0, "share of positions that multiply element by element")
_MAGNITUDE = Parameter(0.0, 0.0, 1.0, "0 ranks by signed scores, 1 by their magnitudes")
#: Free choices of the content part, with the usual rules as defaults.
_OPEN = {
    "scores": Parameter(0.5, 0.0, 1.0, "share of attention probabilities, beside values"),
    "gate": Parameter(0.5, 0.0, 1.0, "share of the activated branch of a gated unit"),
    "temperature": replace(_TEMPERATURE, default=1.0),
    "gamma": replace(_GAMMA, default=0.0),
    "gamma_conv": replace(_GAMMA_CONV, default=0.0),
    "gamma_attention": Parameter(0.0, 0.0, 1e3, "γ of layers next to attention"),
    "bias": Parameter(1.0, 0.0, 1.0, "share of its relevance that a bias keeps"),
    "magnitude": _MAGNITUDE,
}
_GIM = {"temperature": _TEMPERATURE, "baseline": _BASELINE, "magnitude": _MAGNITUDE}
#: Free choices of the positions' part of the score.
_SCORE = {
    "position_weight": Parameter(1.0, 0.0, 100.0, "weight of positions in the score"),
    "layer_weight": Parameter(
        1.0, 0.25, 4.0, "weight of a layer's sinks in the score, over that of the layer before"
    ),
}

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
            name="pa-lrp-open",
            summary="pa-lrp with its free choices as parameters",
            source="this project",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("open", "tempered"),
            parameters={**_OPEN, "rotation": _ROTATION, **_SCORE},
        ),
        Method(
            name="attnlrp-open",
            summary="attnlrp with its free choices as parameters",
            source="this project",
            map="content",
            shares=("attention", "gates"),
            rules=("open", "tempered"),
            parameters=_OPEN,
        ),
        Method(
            name="gim",
            summary="GIM: gradient, norms frozen, softmax's slope softened, half for each factor",
            source="Edin et al. 2025",
            map="content",
            shares=("attention", "gates"),
            rules=("slopes", "tempered"),
            parameters=_GIM,
        ),
        Method(
            name="pa-gim",
            summary="gim with position sinks",
            source="this project",
            map="sum",
            shares=("positions", "attention", "gates"),
            rules=("slopes", "tempered"),
            parameters={**_GIM, **_SCORE},
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
            name="abslrp",
            summary="absLRP: positive contributions by the size of the output, layers rescaled",
            source="Vukadin et al. 2024",
            map="content",
            shares=("attention", "gates"),
            rules=("absolute",),
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
    """A method for comparison, which computes a map without rules and ledger.

    Attributes:
        summary: What it is, in one line.
        source: Its paper.
        slow: Whether it runs the model for every unit, or more often.
    """

    summary: str
    source: str
    slow: bool = False


#: Methods for evaluations alone, by name; see :mod:`palrp_onnx.evaluate.baselines`.
BASELINES: Mapping[str, BaselineFacts] = {
    "single-sink": BaselineFacts("pa-lrp with one sink for all layers", "PA-LRP (2025), ablation"),
    "rollout": BaselineFacts("attention rollout, the same for every class", "Abnar & Zuidema 2020"),
    "chefer": BaselineFacts(
        "attention weighed by its gradient", "Chefer et al. 2021 (self-attention)"
    ),
    "ig": BaselineFacts("integrated gradients, 32 steps", "Sundararajan et al. 2017"),
    "tibav": BaselineFacts(
        "relevance of attention, weighed by its gradient", "Chefer et al. 2021 (beyond attention)"
    ),
    "attention-norm": BaselineFacts(
        "rollout of the norms of what attention moves", "Kobayashi et al. 2020", slow=True
    ),
    "value-zeroing": BaselineFacts(
        "rollout of how far results turn without a token's values", "Mohebbi et al. 2023", slow=True
    ),
    "occlusion": BaselineFacts(
        "the target without one unit, unit by unit", "Zeiler & Fergus 2014", slow=True
    ),
    "shap": BaselineFacts(
        "Shapley values of halves of halves, by the package shap", "Lundberg & Lee 2017", slow=True
    ),
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
