"""Bytes of the values of a graph for inputs of other lengths than those of the trial run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.layout import Axis, Source
from palrp_onnx.types import Shape

#: Bytes of an entry of unknown type, or of a text.
_ENTRY = 4
#: Usual number of tokens.
_TOKENS = 512


def sizes_of(analysis: Analysis, shapes: Mapping[str, Shape]) -> Callable[[ir.Value], int]:
    """Bytes of values by value, where inputs have these shapes.

    An axis of content that runs along an axis of an explained input grows with it. All other
    lengths are those of the trial run, in which a value that was not seen has no bytes.
    """
    length, layouts = lengths_of(analysis, shapes), analysis.layouts.layouts

    def size(value: ir.Value) -> int:
        shape = analysis.shapes.get(value, ())
        layout = layouts.get(value)
        count = prod(shape) if layout is None else prod(map(length, layout))
        kind = value.dtype
        if kind is None or kind in (ir.DataType.UNDEFINED, ir.DataType.STRING):
            return int(count * _ENTRY)
        return int(count * kind.itemsize)

    return size


def lengths_of(analysis: Analysis, shapes: Mapping[str, Shape]) -> Callable[[Axis], float]:
    """Lengths of axes of content, where inputs have these shapes: see :func:`sizes_of`."""
    growth, canonical = _growth(analysis, shapes), analysis.layouts.canonical

    def length(axis: Axis) -> float:
        if not axis:
            return 1.0
        grown = (
            prod(
                f.size * (1.0 if f.source is None else growth.get(canonical(f.source), 1.0))
                for f in piece
            )
            for piece in axis
        )
        return sum(grown)

    return length


def usual_shapes(
    analysis: Analysis, tokens: int = _TOKENS, samples: int | None = None
) -> dict[str, Shape]:
    """Shapes of inputs as they are often: with 512 tokens where the graph leaves that open.

    Args:
        analysis: The annotated graph.
        tokens: Another number of tokens.
        samples: Number of samples, where the graph leaves that open; by default as many as in the
            trial run.
    """
    found = {}
    for signature in analysis.model.inputs:
        known = analysis.known.get(signature.name)
        if known is None or signature.shape is None:
            continue
        tried = next(
            analysis.shapes[v] for v in analysis.model.graph.inputs if v.name == signature.name
        )
        open_tokens = {
            a
            for a in known.units
            if known.channels is None and not isinstance(signature.shape[a], int)
        }
        sizes = [tokens if a in open_tokens else n for a, n in enumerate(tried)]
        if (
            samples
            and known.batch is not None
            and not isinstance(signature.shape[known.batch], int)
        ):
            sizes[known.batch] = samples
        found[signature.name] = tuple(sizes)
    return found


def _growth(analysis: Analysis, shapes: Mapping[str, Shape]) -> dict[Source, float]:
    """Axis of an explained input → its length divided by that of the trial run."""
    found = {}
    for value in analysis.model.graph.inputs:
        name = value.name or ""
        tried, wanted = analysis.shapes.get(value, ()), shapes.get(name, ())
        if len(tried) == len(wanted):
            for axis, (before, now) in enumerate(zip(tried, wanted, strict=True)):
                if before and name in analysis.known:
                    found[analysis.layouts.canonical((name, axis))] = now / before
    return found
