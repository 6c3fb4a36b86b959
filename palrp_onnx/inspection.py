"""Inspection of a model: operations and their rules, roles, position sites, and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from html import escape
from typing import Literal

import onnx_ir as ir
from msgspec import Struct

from palrp_onnx.analysis.analysis import GIVEN_EXAMPLE, Analysis
from palrp_onnx.analysis.faults import find_faults
from palrp_onnx.analysis.roles import parse_roles
from palrp_onnx.analysis.sites import SinkSite, find_sites
from palrp_onnx.analysis.sizes import usual_shapes
from palrp_onnx.analysis.uncertain import Uncertain, find_uncertain
from palrp_onnx.compiler.forecast import Forecaster
from palrp_onnx.compiler.graph import OPSET
from palrp_onnx.errors import PalrpError, ResourceError, UsageError
from palrp_onnx.machine import Memory, free_memory
from palrp_onnx.model.open import Model
from palrp_onnx.model.values import is_float
from palrp_onnx.prepare import analyse_model, choose, model_facts, plan_analysis
from palrp_onnx.record import ModelFacts
from palrp_onnx.relevance.method_parsing import method
from palrp_onnx.relevance.methods import DEFAULT_METHOD
from palrp_onnx.relevance.plan import (
    describe,
    needed_values,
    refusal,
    scaling_operands,
    visited_nodes,
)
from palrp_onnx.relevance.walk import walk
from palrp_onnx.render.terminal import as_text, inspection_table
from palrp_onnx.rules import NO_PATH, find_rule
from palrp_onnx.types import Array

Status = Literal["rule", "no path", "not reached", "unsupported"]


class Input(Struct, frozen=True, kw_only=True):
    """One graph input and its role."""

    name: str
    dtype: str
    shape: list[int | str | None]
    role: str
    reason: str


class Operation(Struct, frozen=True, kw_only=True):
    """One kind of operation.

    ``status``: nodes that relevance reaches have a ``rule`` or are ``unsupported``; ``no path``
    carries no relevance on purpose; ``not reached`` is on no path of relevance.
    """

    domain: str
    op_type: str
    count: int
    reached: int
    status: Status
    rule: str


class PositionSite(Struct, frozen=True, kw_only=True):
    """One site where positions enter."""

    name: str
    kind: str
    layer: int
    part: str
    node: str
    operand: str
    evidence: str


class Use(Struct, frozen=True, kw_only=True):
    """Role of a value in one operation that reads it."""

    node: str
    operand: int
    role: str
    reason: str


class Why(Struct, frozen=True, kw_only=True):
    """What was found about one value, and why."""

    name: str
    made_by: str
    content: bool
    layer: int | None
    uses: list[Use]


class Coverage(Struct, frozen=True, kw_only=True):
    """Number of nodes on the path of relevance, and of those with a rule."""

    reached: int
    covered: int
    unsupported: list[str]


class Usage(Struct, frozen=True, kw_only=True):
    """Forecast of the memory that an explanation takes, in bytes.

    ``tokens``: number of tokens, where the graph leaves that open. ``fast``, ``bounded``: peak of
    the process with this ``--memory``. ``apart``: bytes of both that need not be free: weights in
    the file, and the program itself. ``free``: what this machine has. ``auto``: what that chooses;
    empty if neither fits.
    """

    tokens: int
    fast: int
    bounded: int
    apart: int
    free: int | None
    auto: str


class Inspection(Struct, frozen=True, kw_only=True):
    """The report of ``palrp-onnx inspect``.

    ``rewritten`` counts fused and quantised operations that were rewritten into primitive ones;
    ``operations`` lists the latter. ``faults`` are faulty numbers in the file, ``notes`` remarks on
    how the facts were found.
    """

    model: ModelFacts
    output: str
    inputs: list[Input]
    roles: dict[str, int]
    rewritten: dict[str, int]
    operations: list[Operation]
    sites: list[PositionSite]
    uncertain: list[Uncertain]
    faults: list[str]
    coverage: Coverage
    explainable: bool
    verdict: str
    why: list[Why] = []
    values: list[str] = []
    notes: list[str] = []
    memory: Usage | None = None

    def __str__(self) -> str:
        return as_text(inspection_table(self))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def inspect(
    model: Model,
    feeds: Mapping[str, Array] | None = None,
    *,
    output: str | None = None,
    roles: Mapping[str, str] | None = None,
    why: Iterable[str] = (),
    values: bool = False,
    tokens: int | None = None,
) -> Inspection:
    """Analyse a model without explaining an input.

    Args:
        model: The model.
        feeds: A valid input. Its shapes are used for free lengths, and the trial run uses it if the
            model does not run on a synthetic example.
        output: Name of the explained output; by default the first that depends on the input.
        roles: Overrides of roles, by name of the value.
        why: Names of values to describe.
        values: Whether to list the names that ``why`` may have.
        tokens: Number of tokens of a text to forecast memory for.

    Raises:
        ModelError: The model does not run, or no input or output can be explained.
        UsageError: There is no such value or role.
    """
    analysis = analyse_model(model.at_opset(OPSET), feeds, parse_roles(roles or {}))
    explained, _ = choose(analysis, output)
    reached = visited_nodes(analysis, explained, scaling_operands(analysis, method(DEFAULT_METHOD)))
    operations = _operations(analysis, reached)
    missing = [refusal(n) for n in reached if not _covered(analysis, n)]
    coverage = Coverage(
        reached=len(reached), covered=len(reached) - len(missing), unsupported=missing
    )
    refused = f"{len(missing)} nodes have no rule" if missing else _refused(analysis, output)
    found = [s for s in find_sites(analysis) if s.operand[0] in reached]
    sites = [_site(s) for s in found]
    return Inspection(
        model=model_facts(model),
        output=explained.name or "",
        inputs=_inputs(analysis),
        roles=dict(Counter(fact.role.value for fact in analysis.operands.values())),
        rewritten=dict(analysis.model.lowered),
        operations=operations,
        sites=sites,
        uncertain=find_uncertain(analysis, found),
        faults=[message for _, message in find_faults(analysis)],
        coverage=coverage,
        explainable=not refused,
        verdict=f"cannot be explained: {refused}" if refused else _verdict(sites),
        why=[_why(analysis, name) for name in why],
        values=list(_values(analysis)) if values else [],
        notes=[GIVEN_EXAMPLE] if analysis.given else [],
        memory=None if tokens is None or refused else _usage(analysis, output, tokens),
    )


def _usage(analysis: Analysis, output: str | None, tokens: int) -> Usage:
    """The forecast for one input with this number of tokens."""
    planned = plan_analysis(analysis, method(DEFAULT_METHOD), output=output)
    forecast = Forecaster(planned)(usual_shapes(analysis, tokens, samples=1))
    try:
        auto = forecast.choose(Memory())
    except ResourceError:
        auto = ""
    return Usage(
        tokens=tokens,
        fast=forecast.fast,
        bounded=forecast.bounded,
        apart=forecast.apart,
        free=free_memory(),
        auto=auto,
    )


def _refused(analysis: Analysis, output: str | None) -> str:
    """Why an explanation is refused although every operation has a rule; empty if it is not.

    The walk is taken without numbers, so that every rule sees its node.
    """
    try:
        planned = plan_analysis(analysis, method(DEFAULT_METHOD), output=output)
        needed_values(planned.plan, walk)
    except PalrpError as error:
        return str(error)
    return ""


def _values(analysis: Analysis) -> dict[str, ir.Value]:
    """Every value of the graph, by its name: inputs, weights, results in the order of the nodes."""
    graph = analysis.model.graph
    made = (v for node in graph for v in node.outputs)
    return {v.name: v for v in (*graph.inputs, *graph.initializers.values(), *made) if v.name}


def _why(analysis: Analysis, name: str) -> Why:
    known = _values(analysis)
    value = known.get(name)
    if value is None:
        within = [each for each in known if name.casefold() in each.casefold()]
        close = get_close_matches(name, known, n=3) or within[:3]
        meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UsageError(
            f"There is no value {name!r} in the graph",
            hint=f"{meant}`palrp-onnx inspect MODEL --values` lists all.",
        )
    producer = value.producer()
    source = "a weight" if value.is_initializer() else "an input"
    facts = ((use, analysis.operands.get((use.node, use.idx))) for use in value.uses())
    return Why(
        name=name,
        made_by=describe(producer) if producer is not None else source,
        content=value in analysis.content,
        layer=analysis.depth.get(value),
        uses=[
            Use(
                node=describe(use.node),
                operand=use.idx,
                role=fact.role.value if fact is not None else "none",
                reason=fact.reason if fact is not None else "the result is not content",
            )
            for use, fact in facts
        ],
    )


def _inputs(analysis: Analysis) -> list[Input]:
    facts = analysis.inputs.facts
    return [
        Input(
            name=s.name,
            dtype=str(s.dtype),
            shape=list(s.shape or ()),
            role=facts[s.name].role.value,
            reason=facts[s.name].reason,
        )
        for s in analysis.model.inputs
    ]


def _covered(analysis: Analysis, node: ir.Node) -> bool:
    if node in analysis.inputs.lookups:
        return True
    return find_rule(node.domain, node.op_type, analysis.model.graph_opset) is not None


def _operations(analysis: Analysis, reached: Mapping[ir.Node, ir.Value]) -> list[Operation]:
    nodes = list(analysis.model.graph)
    count = Counter((n.domain, n.op_type) for n in nodes)
    on_path = Counter((n.domain, n.op_type) for n in reached)
    found = []
    for (domain, op_type), total in sorted(count.items(), key=lambda item: (-item[1], item[0])):
        entry = find_rule(domain, op_type, analysis.model.graph_opset)
        status: Status = "not reached"
        if on_path[domain, op_type]:
            status = "rule" if entry or _only_lookups(analysis, reached, op_type) else "unsupported"
        elif op_type in NO_PATH or _integers(nodes, domain, op_type):
            status = "no path"
        name = entry.rule.__name__ if entry is not None else ""
        found.append(
            Operation(
                domain=domain,
                op_type=op_type,
                count=total,
                reached=on_path[domain, op_type],
                status=status,
                rule=name,
            )
        )
    return found


def _only_lookups(analysis: Analysis, reached: Mapping[ir.Node, ir.Value], op_type: str) -> bool:
    return all(n in analysis.inputs.lookups for n in reached if n.op_type == op_type)


def _integers(nodes: list[ir.Node], domain: str, op_type: str) -> bool:
    """Whether all nodes of a kind yield only integers or booleans."""
    alike = [n for n in nodes if (n.domain, n.op_type) == (domain, op_type)]
    return not any(is_float(v) for n in alike for v in n.outputs)


def _site(site: SinkSite) -> PositionSite:
    node, _ = site.operand
    return PositionSite(
        name=f"site/{site.name}",
        kind=site.kind,
        layer=site.layer,
        part=site.part,
        node=describe(node),
        operand=site.value.name or "",
        evidence=site.evidence,
    )


def _verdict(sites: list[PositionSite]) -> str:
    kinds = sorted({s.kind for s in sites})
    layers = len({s.layer for s in sites})
    where = f"{', '.join(kinds)} positions in {layers} layer(s)" if kinds else "no positions found"
    return f"can be explained; {where}"
