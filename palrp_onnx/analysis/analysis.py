"""The annotated graph: what every value is to the explanation, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import onnx_ir as ir

from palrp_onnx.analysis.content import dependencies
from palrp_onnx.analysis.index_uses import picked_by
from palrp_onnx.analysis.masking import Choices, accumulated
from palrp_onnx.analysis.observations import Observations
from palrp_onnx.analysis.observations import Operand as Operand
from palrp_onnx.analysis.operands import KEPT, Mixture, is_sum, judge
from palrp_onnx.analysis.roles import SAID, Fact, Role
from palrp_onnx.errors import RoleError, UsageError
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float

#: What to say where the trial run was of arrays that a caller gave.
GIVEN = (
    "roles were told from the arrays that were given: the graph runs on none that could be made up"
)


@dataclass(frozen=True, kw_only=True)
class Analysis(Observations):
    """The graph of ``model`` with its annotations: what was observed and what was judged.

    Attributes:
        operands: Role of every operand (node, index) that meets content.
        meets: For every operand the content value whose axes it is aligned with.
        mixtures: Mixed sums, where they meet content.
        unmet: Names with a given role that are no input and never meet content.
    """

    operands: Mapping[Operand, Fact]
    meets: Mapping[Operand, ir.Value]
    mixtures: tuple[Mixture, ...]
    unmet: tuple[str, ...]


def analyse(seen: Observations) -> Analysis:
    """Annotate the graph by what was seen of it. Nothing is run, and nothing edited.

    Raises:
        UsageError: A value cannot have the role that it was given.
    """
    found = judge(seen)
    return Analysis(
        **{each.name: getattr(seen, each.name) for each in fields(Observations)},
        operands=found.operands,
        meets=found.meets,
        mixtures=tuple(found.mixtures),
        unmet=tuple(name for name in seen.said if name not in found.followed),
    )


def check_said(analysis: Analysis) -> None:
    """Refuse roles of what is no input and never meets content.

    Raises:
        UsageError: Such a role was given.
    """
    if analysis.unmet:
        raise UsageError(
            "A role was given to a value that is no input and never meets activations",
            place=f"value {analysis.unmet[0]!r}",
            hint="`palrp-onnx inspect MODEL --why NAME` tells what a value is.",
        )


def check_words(analysis: Analysis) -> None:
    """Nothing that numbers of an input pick enters content but by a lookup that is followed.

    Raises:
        RoleError: Something does: they may name words.
    """
    choices = Choices()
    for value in analysis.model.graph.inputs:
        fact = analysis.inputs.facts.get(value.name or "")
        unknown = fact is not None and fact.role in (Role.MASK, Role.CONTENT)
        if fact is None or not unknown or fact.reason == SAID:
            continue
        picked = picked_by(value, analysis.content, analysis.inputs.lookups)
        for (node, index), found in analysis.operands.items():
            if node.inputs[index] in picked and _enters(analysis, node, index, found, choices):
                raise RoleError(
                    "What its numbers pick enters content, in a way that cannot be followed: they "
                    "may name words or count places",
                    place=f"input {value.name}, {node.op_type} {node.name!r}",
                    hint=f"If they count places, say --role {value.name}=position.",
                )


def _enters(analysis: Analysis, node: ir.Node, index: int, fact: Fact, choices: Choices) -> bool:
    """Whether an operand without content adds to content what words may be."""
    value = node.inputs[index]
    if value in analysis.content or fact.reason == SAID:
        return False
    if choices(analysis.meets[node, index]):
        return False  # attention scores
    added = is_sum(node) or has(node, Trait.JOIN)
    return fact.role in (Role.POSITION, Role.SEGMENT) or (fact.role is Role.PARAMETER and added)


def idle_masks(analysis: Analysis) -> dict[str, Fact]:
    """Integer inputs taken for masks although nothing that they change switches anything off.

    They count places: positions, with why. One that is summed up along the tokens is a mask:
    positions are made by counting what it keeps.
    """
    found = {}
    for name in analysis.inputs.named(Role.MASK):
        value = next(v for v in analysis.model.graph.inputs if v.name == name)
        if name in analysis.said or is_float(value) or value.dtype is ir.DataType.BOOL:
            continue
        if len(analysis.shapes[value]) < 2:
            continue
        changed = dependencies(analysis.model.graph, [name])
        met = [
            (operand, fact)
            for (node, index), fact in analysis.operands.items()
            if (operand := node.inputs[index]) in changed and operand not in analysis.content
        ]
        off = any(
            fact.role is Role.MASK
            or fact.reason in (SAID, KEPT)
            or (operand is not None and operand.dtype is ir.DataType.BOOL)
            for operand, fact in met
        )
        reads = any(fact.role is not Role.INDEX for _, fact in met)
        if reads and not off and not accumulated(value):
            reason = "what is made of it meets content and switches nothing off"
            found[name] = Fact(Role.POSITION, reason)
    return found
