"""Position sinks: what was caught at each site, brought to tokens, and reduced to a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import UsageError
from palrp_onnx.graph.analysis import Operand
from palrp_onnx.graph.axes import BATCH
from palrp_onnx.graph.sites import Site
from palrp_onnx.tensor.language import Language

T = TypeVar("T")
Array = NDArray[Any]
Reduction = Literal["relu", "abs", "signed", "single-sink"]


@dataclass(frozen=True)
class Sink:
    """Relevance at one kind of site in one layer: signed, [B, T, F].

    RoPE: query and key summed, all heads. A relative bias has two sinks, ``query`` and ``key``,
    each with half of what the bias received.
    """

    kind: str
    layer: int
    part: str
    relevance: Any

    @property
    def name(self) -> str:
        """``LAYER/PART``."""
        return f"{self.layer}/{self.part}"


def gather_sinks(op: Language[T], sites: Sequence[Site], caught: Mapping[Operand, T]) -> list[Sink]:
    """Bring every site's relevance to [B, T, F] and add up sites of one kind, layer and part."""
    sums: dict[tuple[int, str, str, tuple[int, ...]], T] = {}  # only like shapes add up
    for site in sites:
        if site.operand not in caught:
            continue
        for part, relevance in _parts(op, site, caught[site.operand]):
            key = (site.layer, site.kind, part, site.shape)
            sums[key] = op.add(sums[key], relevance) if key in sums else relevance
    return _named([Sink(kind, layer, part, r) for (layer, kind, part, _), r in sums.items()])


def _parts(op: Language[T], site: Site, relevance: T) -> list[tuple[str, T]]:
    batch = next(a for a in range(-len(site.axes), 0) if site.axes[a] & BATCH)

    def arranged(r: T, tokens: Sequence[int]) -> T:
        return op.arrange(r, batch_axis=batch, token_axes=tokens, feature_axes=site.features)

    if site.kind != "relative_bias":
        return [(site.part, arranged(relevance, site.tokens))]
    half = op.scale(relevance, 0.5)
    return [("query", arranged(half, (-2,))), ("key", arranged(half, (-1,)))]


def _named(sinks: list[Sink]) -> list[Sink]:
    """Sinks in order of layer; of two with one name the later gets a number."""
    seen: dict[str, int] = {}
    result = []
    for sink in sorted(sinks, key=lambda s: s.layer):
        seen[sink.name] = seen.get(sink.name, 0) + 1
        count = seen[sink.name]
        part = sink.part if count == 1 else f"{sink.part}.{count}"
        result.append(Sink(sink.kind, sink.layer, part, sink.relevance))
    return result


def check_reduction(how: str) -> None:
    """Refuse an unknown reduction.

    Raises:
        UsageError: There is no such reduction.
    """
    if how not in get_args(Reduction):
        known = ", ".join(get_args(Reduction))
        raise UsageError(f"Unknown reduction {how!r}", hint=f"One of {known}.")


def reduce_sinks(sinks: Sequence[Sink], how: str, like: Array) -> Array:
    """One number per token [B, T] from all sinks.

    ``relu`` is eq. 11: Σ_layers Σ_features ReLU(R); ``abs`` Σ_layers |Σ_features R|; ``signed``
    Σ_layers Σ_features R; ``single-sink`` eq. 11 with one sink for all layers,
    Σ_features ReLU(Σ_layers R). Each over the parts of every kind.
    """
    check_reduction(how)
    total = np.zeros(like.shape, like.dtype)
    if how == "single-sink":
        merged: dict[tuple[str, str, int], Array] = {}
        for sink in sinks:
            key = (sink.kind, sink.part, sink.relevance.shape[-1])
            merged[key] = merged[key] + sink.relevance if key in merged else sink.relevance
        for relevance in merged.values():
            total += np.maximum(relevance, 0).sum(axis=-1)
        return total
    for sink in sinks:
        if how == "relu":
            total += np.maximum(sink.relevance, 0).sum(axis=-1)
        else:
            features = sink.relevance.sum(axis=-1)
            total += np.abs(features) if how == "abs" else features
    return total
