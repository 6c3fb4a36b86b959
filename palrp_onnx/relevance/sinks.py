"""Position sinks: relevance absorbed at every site, as [B, T, F], and its reduction to a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from palrp_onnx.errors import UsageError
from palrp_onnx.tensor.language import Language

if TYPE_CHECKING:
    from palrp_onnx.analysis.analysis import Operand
    from palrp_onnx.analysis.sites import SinkSite
    from palrp_onnx.relevance.routes import Route

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
        route: How the T tokens are moved back to units of the explained input; ``None`` if that is
            not known, or if they belong to another input.
        off_map: Of a sink on the map: relevance of its places that belong to no unit [B].
    """

    kind: str
    layer: int
    part: str
    relevance: Any
    width: int
    route: Route | None
    off_map: Any = None

    @property
    def name(self) -> str:
        """``LAYER/PART``."""
        return f"{self.layer}/{self.part}"


#: (site, its token axes from the right) → how its tokens are moved back to units of one input.
Align = Callable[["SinkSite", Sequence[int]], "Route | None"]


def gather_sinks(
    op: Language[T], sites: Sequence[SinkSite], caught: Mapping[Operand, T], aligns: Sequence[Align]
) -> list[list[Sink]]:
    """Bring every site's relevance to [B, T, F] and add up sites of one kind, layer and part.

    Returns:
        The sinks for every explained input: they differ in ``route`` alone, which only the first
        input has that their tokens belong to.
    """
    found: dict[tuple[Any, ...], Sink] = {}  # tables of one shape and the same tokens add up
    routes: dict[tuple[Any, ...], list[Route | None]] = {}
    for site in sites:
        if site.operand not in caught:
            continue
        width = math.prod(site.shape[len(site.tokens) :])
        for part, relevance, tokens in _parts(op, site, caught[site.operand]):
            key = (site.layer, site.kind, part, site.shape, site.varying, site.runs(tokens))
            if key in found:
                relevance = op.add(found[key].relevance, relevance)
            else:
                routes[key] = _first(align(site, tokens) for align in aligns)
            found[key] = Sink(site.kind, site.layer, part, relevance, width, None)
    ordered = sorted(found.items(), key=lambda each: each[1].layer)
    named = _named([sink for _, sink in ordered])
    return [
        [replace(sink, route=routes[key][k]) for sink, (key, _) in zip(named, ordered, strict=True)]
        for k in range(len(aligns))
    ]


def on_no_map(gathered: Sequence[Sequence[Sink]]) -> list[Sink]:
    """The sinks whose tokens belong to no explained input, from those for every input."""
    return [same[0] for same in zip(*gathered, strict=True) if all(s.route is None for s in same)]


def _first(routes: Iterable[Route | None]) -> list[Route | None]:
    """The first route alone: no relevance is on two maps."""
    found: list[Route | None] = []
    for route in routes:
        found.append(None if any(found) else route)
    return found


def _parts(op: Language[T], site: SinkSite, relevance: T) -> list[tuple[str, T, tuple[int, ...]]]:
    """(part, [B, T, F], token axes)."""
    from palrp_onnx.analysis.axes import TOKEN, sample_place  # not for those who read results alone

    place = sample_place(site.axes, site.layout)
    if place.inner:
        relevance = op.samples_first(relevance, place.axis, place.inner)
    found = [(site.part, relevance, site.tokens)]
    if site.pairwise:
        halves, rank = op.scale(relevance, 0.5), len(site.axes)
        # Axes before the scores run over windows, or blocks, of tokens.
        outer = tuple(a for a in range(-rank, -2) if site.axes[a] & TOKEN)
        found = [("query", halves, (*outer, -2)), ("key", halves, (*outer, -1))]
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


def reduce_sinks(
    op: Language[T], sinks: Sequence[Sink], how: str, layer_weight: float = 1.0
) -> list[tuple[Sink, T]]:
    """Terms [B, T], in units of the target, whose sum is one number for every token.

    Each comes with a sink that has its tokens.

    ``relu`` is PA-LRP, eq. 11: Σ_layers Σ_features ReLU(R); ``abs`` is Σ_layers |Σ_features R|;
    ``signed`` is Σ_layers Σ_features R; ``single-sink`` is eq. 11 with one sink for all layers,
    Σ_features ReLU(Σ_layers R). Each sums over the parts of every kind. Relevance of layer l is
    first multiplied by ``layer_weight``ˡ.

    Raises:
        UsageError: There is no such reduction.
    """
    check_reduction(how)
    if layer_weight != 1.0:
        sinks = [replace(s, relevance=op.scale(s.relevance, layer_weight**s.layer)) for s in sinks]
    if how == "single-sink":
        merged: dict[tuple[object, ...], Sink] = {}
        for sink in sinks:
            key = (sink.kind, sink.part, sink.width, sink.route and sink.route.signature)
            if key in merged:
                total = op.add(merged[key].relevance, sink.relevance)
                sink = replace(sink, relevance=total)
            merged[key] = sink
        sinks = list(merged.values())
    return [(sink, _reduced(op, sink.relevance, how)) for sink in sinks]


def _reduced(op: Language[T], relevance: T, how: str) -> T:
    """[B, T, F] → [B, T]."""
    if how in ("relu", "single-sink"):
        relevance = op.relu(relevance)
    term = op.sum(relevance, [2], keepdims=False)
    return op.absolute(term) if how == "abs" else term
