"""Position sinks: relevance absorbed at every site, as [B, T, F], and its reduction to a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.axes import BATCH, Places, sample_place
from palrp_onnx.analysis.input_axes import InputAxes
from palrp_onnx.analysis.sites import SinkSite
from palrp_onnx.errors import UsageError
from palrp_onnx.tensor.language import Language

T = TypeVar("T")
Reduction = Literal["relu", "abs", "signed", "single-sink"]


@dataclass(frozen=True)
class Sink:
    """Relevance of one kind of site in one layer: signed, in units of the target.

    RoPE: query and key summed over all heads. A relative bias has two sinks, ``query`` and ``key``,
    each with half of the bias's relevance. (PA-LRP, eq. 16, divides ALiBi's −m (i − j) into the
    parts i and −j instead, which depends on the origin of positions.)

    Attributes:
        kind: Kind of the site.
        layer: Layer of the site.
        part: Part of the site.
        relevance: [B, T, F].
        width: F.
        places: Where units of the explained input are among the T tokens; ``None`` if that is not
            known, or if they are not among them.
    """

    kind: str
    layer: int
    part: str
    relevance: Any
    width: int
    places: Places | None

    @property
    def name(self) -> str:
        """``LAYER/PART``."""
        return f"{self.layer}/{self.part}"


#: (site, its token axes from the right) → where units of one input are among its tokens.
Align = Callable[[SinkSite, Sequence[int]], "Places | None"]


def gather_sinks(
    op: Language[T], sites: Sequence[SinkSite], caught: Mapping[Operand, T], aligns: Sequence[Align]
) -> list[list[Sink]]:
    """Bring every site's relevance to [B, T, F] and add up sites of one kind, layer and part.

    Returns:
        The sinks for every explained input: they differ in ``places`` alone.
    """
    found: dict[tuple[Any, ...], Sink] = {}  # tables of one shape and the same tokens add up
    for site in sites:
        if site.operand not in caught:
            continue
        width = math.prod(site.shape[len(site.tokens) :])
        for part, relevance, tokens in _parts(op, site, caught[site.operand]):
            places = tuple(align(site, tokens) for align in aligns)
            key = (site.layer, site.kind, part, site.shape, site.varying, site.runs(tokens), places)
            if key in found:
                relevance = op.add(found[key].relevance, relevance)
            found[key] = Sink(site.kind, site.layer, part, relevance, width, None)
    ordered = sorted(found.items(), key=lambda each: each[1].layer)
    named = _named([sink for _, sink in ordered])
    return [
        [replace(sink, places=key[-1][k]) for sink, (key, _) in zip(named, ordered, strict=True)]
        for k in range(len(aligns))
    ]


def _parts(op: Language[T], site: SinkSite, relevance: T) -> list[tuple[str, T, tuple[int, ...]]]:
    """(part, [B, T, F], token axes)."""
    place = sample_place(site.axes, site.layout)
    if place.inner:
        relevance = op.samples_first(relevance, place.axis, place.inner)
    found = [(site.part, relevance, site.tokens)]
    if site.pairwise:
        halves = op.scale(relevance, 0.5)
        found = [("query", halves, (-2,)), ("key", halves, (-1,))]
    return [
        (part, op.arrange(r, batch_axis=place.axis, token_axes=t, feature_axes=site.features), t)
        for part, r, t in found
    ]


def _named(sinks: list[Sink]) -> list[Sink]:
    """The sinks; a second one of one name is numbered."""
    seen: dict[str, int] = {}
    result = []
    for sink in sinks:
        seen[sink.name] = seen.get(sink.name, 0) + 1
        count = seen[sink.name]
        part = sink.part if count == 1 else f"{sink.part}.{count}"
        result.append(replace(sink, part=part))
    return result


def check_reduction(how: str) -> None:
    """Refuse an unknown reduction.

    Raises:
        UsageError: There is no such reduction.
    """
    if how not in get_args(Reduction):
        known = ", ".join(get_args(Reduction))
        raise UsageError(f"Unknown reduction {how!r}", hint=f"One of {known}.")


def reduce_sinks(op: Language[T], sinks: Sequence[Sink], how: str) -> list[T]:
    """Terms [B, T], in units of the target, whose sum is one number for every token.

    ``relu`` is PA-LRP, eq. 11: Σ_layers Σ_features ReLU(R); ``abs`` is Σ_layers |Σ_features R|;
    ``signed`` is Σ_layers Σ_features R; ``single-sink`` is eq. 11 with one sink for all layers,
    Σ_features ReLU(Σ_layers R). Each sums over the parts of every kind.

    Raises:
        UsageError: There is no such reduction.
    """
    check_reduction(how)
    parts = [sink.relevance for sink in sinks]
    if how == "single-sink":
        merged: dict[tuple[object, ...], T] = {}
        for sink in sinks:
            key = (sink.kind, sink.part, sink.width, sink.places)
            merged[key] = op.add(merged[key], sink.relevance) if key in merged else sink.relevance
        parts = list(merged.values())
    if how in ("relu", "single-sink"):
        parts = [op.relu(part) for part in parts]
    terms = [op.sum(part, [2], keepdims=False) for part in parts]
    return [op.absolute(term) for term in terms] if how == "abs" else terms


def bring_to_tokens(
    op: Language[T], relevance: T, axes: InputAxes, *, rows: int | None = None
) -> T:
    """Relevance of an explained input with these axes as [B, T, F]; of an image as [B, C, H, W].

    Entries along ``rows`` are among the tokens, T = rows × places; those of images stay apart.
    """
    flags = axes.flags
    if axes.channels is not None:
        order = (flags.index(BATCH), axes.channels, *axes.units)
        return relevance if order == (0, 1, 2, 3) else op.transpose(relevance, order)
    batch = flags.index(BATCH) if BATCH in flags else 0
    tokens = axes.units if rows is None else (rows, *axes.units)
    return op.arrange(relevance, batch_axis=batch, token_axes=tokens, feature_axes=axes.features)
