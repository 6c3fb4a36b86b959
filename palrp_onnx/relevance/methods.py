"""Methods: which operands of products take a share, and what the map is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from palrp_onnx.errors import UsageError


@dataclass(frozen=True)
class Preset:
    """A named set of choices.

    Attributes:
        positions: Positions that multiply activations (cos, sin) take their half.
        attention: Attention probabilities take their half of each product with values.
        gates: The activated branch of a gated unit takes its half.
        map: What the total of a unit is: content, position, or their sum.
        rules: Sets of rules that come before the usual ones, the first first.
        parameters: Numbers that those rules ask for.
        spared: Linear layers that make values of attention, or read what it made, keep the usual
            rules.
        gradient: Gates, statistics and normalisers are content as well, so that with the rules of
            derivatives multipliers are the gradient.
    """

    name: str
    positions: bool
    attention: bool
    gates: bool
    map: Literal["sum", "content", "position"]
    source: str
    rules: tuple[str, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)
    gradient: bool = False
    spared: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("pa-lrp", True, True, True, "sum", "PA-LRP, eq. 5, 10 and 11"),
        Preset("attnlrp", False, True, True, "content", "AttnLRP (Achtibat et al. 2024)"),
        Preset("pe-only", True, True, True, "position", "PA-LRP, the position part alone"),
        Preset("cp-lrp", False, False, False, "content", "CP-LRP (Ali et al. 2022)"),
        Preset(
            "pa-lrp-kept",
            True,
            True,
            True,
            "sum",
            "PA-LRP whose softmax keeps its constant part for the values",
            rules=("kept",),
            parameters={"kept": 0.5},
        ),
        Preset(
            "attnlrp-kept",
            False,
            True,
            True,
            "content",
            "AttnLRP whose softmax keeps its constant part for the values",
            rules=("kept",),
            parameters={"kept": 0.5},
        ),
        Preset(
            "pa-lrp-adaptive",
            True,
            True,
            True,
            "sum",
            "pa-lrp-kept whose scores take less where they and the constant part cancel",
            rules=("adaptive",),
        ),
        Preset("pa-cp-lrp", True, False, False, "sum", "CP-LRP with position sinks"),
        Preset(
            "eps-lrp",
            False,
            True,
            True,
            "content",
            "ε-rule at every sum (Bach et al. 2015), identity rule for softmax",
            rules=("epsilon",),
            parameters={"epsilon": 1e-6},
        ),
        Preset(
            "gradient-x-input",
            False,
            True,
            True,
            "content",
            "Gradient × input (Shrikumar et al. 2016)",
            rules=("gradient",),
            gradient=True,
        ),
        Preset(
            "pa-lrp-gamma",
            True,
            True,
            True,
            "sum",
            "PA-LRP on vision transformers: γ-rules, the half of probabilities stays there",
            rules=("gamma", "stopped"),
            parameters={"gamma": 0.05, "gamma_conv": 100.0},
            spared=True,
        ),
        Preset(
            "attnlrp-gamma",
            False,
            True,
            True,
            "content",
            "The content of pa-lrp-gamma, which PA-LRP is held against on images",
            rules=("gamma", "stopped"),
            parameters={"gamma": 0.05, "gamma_conv": 100.0},
            spared=True,
        ),
        Preset(
            "pa-lrp-alpha",
            True,
            True,
            True,
            "sum",
            "PA-LRP on vision transformers as its figures: α1-rule, normalised sums",
            rules=("alpha", "stopped"),
        ),
        Preset(
            "cp-lrp-gamma",
            False,
            False,
            False,
            "content",
            "CP-LRP with γ-rules (Achtibat et al. 2024, vision transformers)",
            rules=("gamma",),
            parameters={"gamma": 0.05, "gamma_conv": 0.25},
            spared=True,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in PRESETS:
        raise UsageError(f"Unknown method {name!r}", hint=f"Methods: {', '.join(PRESETS)}.")
    return PRESETS[name]
