"""The mask of tokens: the input that varies along them where it is combined with content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.arrays import varying_axes
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.content import dependencies
from palrp_onnx.analysis.layout import Source, factors
from palrp_onnx.analysis.roles import Role
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import SAME_NUMBERS, Trait, has


def mask_of_output(analysis: Analysis, output: ir.Value, batch: int | None = 0) -> str | None:
    """Name of the input [B, T] that masks the tokens of ``output`` [B, T, …], if there is one.

    Followed by data flow, never by lengths: an encoder's mask may be as long as a decoder's.

    Args:
        analysis: The annotated graph.
        output: The output.
        batch: Its axis of samples; ``None`` where it is of one sample, [T, …], as the mask is, [T].
    """
    rest = [k for k in range(len(analysis.layouts.layouts.get(output, ()))) if k != batch]
    if len(rest) < 2:
        return None
    wanted = _tokens(analysis, output, rest[0])
    if not wanted:  # the tokens are of unknown origin: one mask of one input leaves no doubt
        found = _candidates(analysis, batch)
        length = analysis.shapes[output][rest[0]]
        lengths = {v.name: analysis.shapes[v][-1:] for v in analysis.model.graph.inputs}
        found = [name for name in found if lengths[name] == (length,)]
        alone = len(found) == 1 and len(analysis.inputs.explained()) == 1
        return found[0] if alone else None
    return _mask_of(analysis, wanted, batch)


def mask_of_input(analysis: Analysis, name: str) -> str | None:
    """Name of the input [B, T] that masks the tokens of an explained input, if there is one."""
    units = analysis.input_axes(name).units
    if len(units) != 1:
        return None
    tokens = {analysis.layouts.canonical((name, units[0]))}
    return _mask_of(analysis, tokens, analysis.input_axes(name).batch)


def hides_where_set(analysis: Analysis, name: str) -> bool:
    """Whether a mask hides tokens where it is not zero, as the padding masks of PyTorch do.

    The attention of the last query in the trial run shows it. Masks that nothing shows keep tokens
    where they are not zero.
    """
    if analysis.given:
        return False  # arrays of the caller decide nothing
    if not analysis.examples[0][name].size:
        return False
    zero = (analysis.examples[0][name] == 0).reshape(-1, analysis.examples[0][name].shape[-1])[0]
    for node in analysis.model.graph:
        looks = analysis.trial.get(node.outputs[0].name or "")
        if node.op_type != "Softmax" or looks is None or looks.shape[-1:] != zero.shape:
            continue
        last = looks if looks.ndim < 2 else looks[..., -1, :]
        hidden = last.reshape(-1, zero.size).max(axis=0, initial=0.0) < _HIDDEN
        if np.array_equal(hidden, ~zero) and zero.any() and not zero.all():
            return True
    return False


#: Attention to a hidden token is smaller.
_HIDDEN = 1e-6


def _mask_of(analysis: Analysis, tokens: set[Source], batch: int | None) -> str | None:
    found = {name: _masked(analysis, name) for name in _candidates(analysis, batch)}
    own = [name for name, masked in found.items() if tokens <= masked]
    return min(own, key=lambda name: len(found[name]), default=None)


def _candidates(analysis: Analysis, batch: int | None) -> list[str]:
    shapes = {v.name: analysis.shapes[v] for v in analysis.model.graph.inputs}
    rank = 1 if batch is None else 2
    values = {v.name: v for v in analysis.model.graph.inputs}
    masks = analysis.inputs.named(Role.MASK)
    return [name for name in masks if len(shapes[name]) == rank and not _selects(values[name])]


def _selects(value: ir.Value) -> bool:
    """Whether the entries of an input are indices of what is selected."""

    def onward(node: ir.Node, _: int) -> Sequence[ir.Value]:
        return node.outputs if has(node, SAME_NUMBERS) else ()

    return any(has(node, Trait.SELECT) and index == 1 for node, index in uses_of([value], onward))


def _tokens(analysis: Analysis, value: ir.Value, axis: int) -> set[Source]:
    layout = analysis.layouts.layouts[value]
    return {
        analysis.layouts.canonical(f.source)
        for f in factors(layout[axis])
        if f.source is not None and f.flag & TOKEN
    }


def _masked(analysis: Analysis, name: str) -> set[Source]:
    """The tokens along which operands of content that depend on a mask vary."""
    changed = dependencies(analysis.model.graph, [name])
    found: set[Source] = set()
    for (node, index), axes_of in analysis.axes_of.items():
        value = node.inputs[index]
        if value is None or value not in changed or value in analysis.content:
            continue
        known = value.name or ""
        array = analysis.trial.get(known, analysis.indices.get(known))
        if array is None:
            continue
        for axis in varying_axes(array, analysis.axes[axes_of]):
            found |= _tokens(analysis, axes_of, axis)
    return found
