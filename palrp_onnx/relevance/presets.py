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
    """

    name: str
    positions: bool
    attention: bool
    gates: bool
    map: Literal["sum", "content", "position"]
    source: str
    rules: tuple[str, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("pa-lrp", True, True, True, "sum", "PA-LRP, eq. 5, 10 and 11"),
        Preset("attnlrp", False, True, True, "content", "AttnLRP (Achtibat et al. 2024)"),
        Preset("pe-only", True, True, True, "position", "PA-LRP, the position part alone"),
        Preset("cp-lrp", False, False, False, "content", "CP-LRP (Ali et al. 2022)"),
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
