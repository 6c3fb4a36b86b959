"""Decisions about roles that rest on thin evidence, each with the override to use instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import numpy as np
from msgspec import Struct

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.arrays import MASKED, varying_axes
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.roles import OVERRIDDEN, Role
from palrp_onnx.analysis.sites import SinkSite, values_of
from palrp_onnx.model.ops import Trait, has

#: With fewer tokens in the trial run, variation along them shows little.
FEW_TOKENS = 4
#: A table of at most so many different rows may as well be token types or a mask.
FEW_ROWS = 2


class Uncertain(Struct, frozen=True, kw_only=True):
    """A decision that rests on thin evidence.

    Attributes:
        name: Name of the value.
        role: Its role.
        doubt: Why the role is in doubt.
        say: Argument of ``--role`` that overrides it.
    """

    name: str
    role: str
    doubt: str
    say: str


def find_uncertain(analysis: Analysis, sites: Iterable[SinkSite]) -> list[Uncertain]:
    """Decisions on inputs and positions that rest on thin evidence."""
    doubts = [doubt for site in sites for doubt in _doubts(analysis, site)]
    return list(dict.fromkeys([*_short_inputs(analysis), *_inputs(analysis), *doubts]))


def _short_inputs(analysis: Analysis) -> Iterator[Uncertain]:
    """Explained inputs with few tokens in the trial run, which show little variation along them."""
    for value in analysis.model.graph.inputs:
        fact = analysis.inputs.facts.get(value.name or "")
        if fact is None or fact.role is not Role.CONTENT or not any(analysis.depth.values()):
            continue
        axes = analysis.input_axes(value.name or "")
        tokens = prod(analysis.shapes[value][a] for a in axes.units if axes.flags[a] & TOKEN)
        if tokens < FEW_TOKENS:
            yield Uncertain(
                name=value.name or "",
                role=fact.role.value,
                doubt=f"the trial run had {tokens} of its tokens: what varies along them is hard "
                "to tell from what does not",
                say="VALUE=position for each that carries positions",
            )


def _inputs(analysis: Analysis) -> Iterator[Uncertain]:
    """Inputs whose role rests on the order in which they are listed."""
    for name, doubt in analysis.inputs.doubts.items():
        role = analysis.inputs.facts[name].role
        yield Uncertain(
            name=name, role=role.value, doubt=doubt, say=f"{name}=position, and content the other"
        )


def _doubts(analysis: Analysis, site: SinkSite) -> Iterator[Uncertain]:
    """Other roles that the value at a site may have."""
    name = site.value.name or ""
    if analysis.operands[site.operand].reason != OVERRIDDEN:
        for doubt, other in _readings(analysis, site):
            say = f"{name}={other.value}"
            yield Uncertain(name=name, role=Role.POSITION.value, doubt=doubt, say=say)


def _readings(analysis: Analysis, site: SinkSite) -> Iterator[tuple[str, Role]]:
    """(doubt, other role) of a position."""
    if site.kind == "convolution":
        yield "is content too; nothing else in the graph carries positions", Role.CONTENT
    if site.kind == "multiplicative":
        yield "weighs tokens by their place, as a mask may too", Role.MASK
    if has(site.operand[0], Trait.PRODUCT) or site.value in analysis.content:
        return
    array = values_of(analysis, site.value)
    along = varying_axes(array, site.axes)
    rows = max(len(np.unique(np.moveaxis(array, a, 0), axis=0)) for a in along)
    if rows <= FEW_ROWS:
        other = Role.MASK if site.pairwise else Role.SEGMENT
        yield f"has only {rows} different rows along the tokens", other
    visible = array[array >= MASKED]
    whole = site.value.producer() is not None and site.kind != "alibi"
    if visible.size < array.size and (whole or len(np.unique(visible)) <= FEW_ROWS):
        yield "shifts some scores and switches others off, and could not be taken apart", Role.MASK
