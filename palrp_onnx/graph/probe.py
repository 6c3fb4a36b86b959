"""Feeds for the trial run: short, unbroken by special tokens, with padding so that masks show.

Two samples where the batch is free: axes of length 1 could not be told apart after a reshape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.graph.inputs import InputRoles
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.roles import Role
from palrp_onnx.graph.signature import GraphInput

#: Tokens of the trial run where the sequence axis is free.
LENGTH = 11
PADDED = 2
SAMPLES = 2

Array = NDArray[np.generic]


def probe_feeds(
    model: Model, roles: InputRoles, feeds: Mapping[str, Array], samples: int = SAMPLES
) -> dict[str, Array]:
    """The first sample of ``feeds``, ``LENGTH`` tokens of it, the last two masked."""
    content = [s for s in model.inputs if roles.facts[s.name].role is Role.CONTENT]
    tokens = [feeds[s.name] for s in content if feeds[s.name].dtype.kind in "iu"]
    length = next((feed.shape[1] for feed in tokens if feed.ndim == 2), 0)
    free = all(_dynamic(s, length) for s in model.inputs) and length > 0
    free &= all(s.dtype.kind != "f" for s in content)  # states of one length with the tokens
    return {
        s.name: _probe(_repeated(s, feeds[s.name], samples), roles.facts[s.name].role, length, free)
        for s in model.inputs
    }


def _dynamic(signature: GraphInput, length: int) -> bool:
    """Whether no axis that could be the sequence is fixed to ``length``."""
    shape = signature.shape or ()
    return not any(isinstance(dim, int) and dim == length for dim in shape[1:])


def _repeated(signature: GraphInput, feed: Array, samples: int) -> Array:
    """The first sample ``samples`` times, or as often as the graph asks for."""
    first = signature.shape[0] if signature.shape else samples
    count = first if isinstance(first, int) else samples
    return np.repeat(feed[:1], count, axis=0) if feed.ndim else feed


def _probe(feed: Array, role: Role, length: int, free: bool) -> Array:
    if feed.ndim != 2 or feed.shape[1] != length or feed.dtype.kind == "f":
        return feed
    return np.repeat(_row(feed[0], role, length, free)[None], len(feed), axis=0)


def _row(row: Array, role: Role, length: int, free: bool) -> Array:
    size = LENGTH if free else length
    if role is Role.POSITION:
        return np.arange(size).astype(row.dtype)
    if role is Role.MASK:
        mask = np.ones(size, row.dtype)
        mask[max(size - PADDED, 1) :] = 0
        return mask
    # Frequent entries are padding or other special tokens: the rarest serve best.
    values, counts = np.unique(row, return_counts=True)
    ordinary = values[np.argsort(counts, kind="stable")][:size] if free else row
    return np.resize(ordinary, size).astype(row.dtype)
