"""The annotated graph: observations of it, and the role of every operand with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import onnx_ir as ir

from palrp_onnx.analysis.content import dependencies
from palrp_onnx.analysis.index_uses import selected_by
from palrp_onnx.analysis.masking import Choices, accumulated
from palrp_onnx.analysis.observations import Observations
from palrp_onnx.analysis.observations import Operand as Operand
from palrp_onnx.analysis.operands import SAME_WHERE_UNMASKED, Mixture, is_sum, judge
from palrp_onnx.analysis.roles import OVERRIDDEN, Fact, Role
from palrp_onnx.errors import RoleError, UsageError
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float

#: Warning where the trial run used arrays of the caller, as no synthetic example runs.
GIVEN_EXAMPLE = (
    "roles were told from the arrays that were given: the graph runs on none that could be made up"
)


@dataclass(frozen=True, kw_only=True)
class Analysis(Observations):
    """The graph of ``model`` with its annotations: observations and judged roles.

    Attributes:
        operands: Role of every operand (node, index) of nodes that yield content, and of the terms
            of mixed sums.
        axes_of: Operand → the content value whose axes it is aligned with.
        mixtures: Mixed sums, one entry for each content value that they are combined with.
        unused_overrides: Names with an override that are neither an input nor an operand.
    """

    operands: Mapping[Operand, Fact]
    axes_of: Mapping[Operand, ir.Value]
    mixtures: tuple[Mixture, ...]
    unused_overrides: tuple[str, ...]


def analyse(seen: Observations) -> Analysis:
    """Judge roles from observations. Neither runs nor changes the graph.

    Raises:
        UsageError: A value cannot have the role of its override.
    """
    found = judge(seen)
    return Analysis(
        **{each.name: getattr(seen, each.name) for each in fields(Observations)},
        operands=found.operands,
        axes_of=found.axes_of,
        mixtures=tuple(found.mixtures),
        unused_overrides=tuple(name for name in seen.overrides if name not in found.applied),
    )


def check_overrides(analysis: Analysis) -> None:
    """Refuse overrides that had no effect.

    Raises:
        UsageError: An override names a value that is neither an input nor combined with content.
    """
    if analysis.unused_overrides:
        raise UsageError(
            "A role was set for a value that is no input and is never combined with activations",
            place=f"value {analysis.unused_overrides[0]!r}",
            hint="`palrp-onnx inspect MODEL --why NAME` prints the role of a value.",
        )


def check_selected(analysis: Analysis) -> None:
    """Refuse values that entries of an input select, where they become part of content.

    Lookups that are followed are allowed. Anything else that ids select may be words.

    Raises:
        RoleError: There is such a value.
    """
    choices = Choices()
    for value in analysis.model.graph.inputs:
        fact = analysis.inputs.facts.get(value.name or "")
        unknown = fact is not None and fact.role in (Role.MASK, Role.CONTENT)
        if fact is None or not unknown or fact.reason == OVERRIDDEN:
            continue
        selected = selected_by(value, analysis.content, analysis.inputs.lookups)
        for (node, index), found in analysis.operands.items():
            if node.inputs[index] in selected and _enters(analysis, node, index, found, choices):
                raise RoleError(
                    "Values that this input selects become part of content in a way that cannot be "
                    "followed: its entries may be ids of words or positions",
                    place=f"input {value.name}, {node.op_type} {node.name!r}",
                    hint=f"If they are positions, use --role {value.name}=position.",
                )


def _enters(analysis: Analysis, node: ir.Node, index: int, fact: Fact, choices: Choices) -> bool:
    """Whether an operand without content adds values to content that may be words."""
    value = node.inputs[index]
    if value in analysis.content or fact.reason == OVERRIDDEN:
        return False
    if choices(analysis.axes_of[node, index]):
        return False  # attention scores
    added = is_sum(node) or has(node, Trait.JOIN)
    return fact.role in (Role.POSITION, Role.SEGMENT) or (fact.role is Role.PARAMETER and added)


def positions_among_masks(analysis: Analysis) -> dict[str, Fact]:
    """Integer inputs that were judged masks although nothing that they change hides anything.

    They are positions. An input that is summed cumulatively along the tokens stays a mask, as
    positions are made by counting its ones.

    Returns:
        Name of such an input → its role, with the reason.
    """
    found = {}
    for name in analysis.inputs.named(Role.MASK):
        value = next(v for v in analysis.model.graph.inputs if v.name == name)
        if name in analysis.overrides or is_float(value) or value.dtype is ir.DataType.BOOL:
            continue
        if len(analysis.shapes[value]) < 2:
            continue
        changed = dependencies(analysis.model.graph, [name])
        combined = [
            (operand, fact)
            for (node, index), fact in analysis.operands.items()
            if (operand := node.inputs[index]) in changed and operand not in analysis.content
        ]
        off = any(
            fact.role is Role.MASK
            or fact.reason in (OVERRIDDEN, SAME_WHERE_UNMASKED)
            or (operand is not None and operand.dtype is ir.DataType.BOOL)
            for operand, fact in combined
        )
        reads = any(fact.role is not Role.INDEX for _, fact in combined)
        if reads and not off and not accumulated(value):
            reason = "what is made of it meets content and switches nothing off"
            found[name] = Fact(Role.POSITION, reason)
    return found
