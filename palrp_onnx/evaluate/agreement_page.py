"""A comparison of two runs as an HTML page: scatters of all pairs, both maps of the worst ones."""

from __future__ import annotations

from palrp_onnx.evaluate.agreement import Agreement, Distribution, Pair, PairPoint, Side, Survey
from palrp_onnx.record import Attribution
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import page, view
from palrp_onnx.render.markup import short
from palrp_onnx.render.scatter import Scatter, scatter

#: Most points of a scatter; of more pairs every n-th is drawn.
DRAWN = 4000


def render_agreement(title: str, found: Survey) -> bytes:
    """A self-contained page: the same comparison gives the same bytes.

    Args:
        title: Title of the page.
        found: The comparison, whose worst pairs are shown with both maps.
    """
    every = -(-len(found.points) // DRAWN)
    points = found.points[::every]
    both = {
        "found": found.agreement,
        "sides": [_side("A", found.agreement.a), _side("B", found.agreement.b)],
        "numbers": _numbers(found.agreement),
        "every": every,
        "scatters": _scatters(points),
        "worst": [_worst(*each) for each in zip(found.agreement.worst, found.worst, strict=True)],
    }
    return page("compare.html.j2", visible(title), both=both).encode()


def _side(name: str, side: Side) -> dict[str, object]:
    return {
        "name": name,
        "models": [model[:12] for model in side.models],
        "methods": [visible(method) for method in side.methods],
        "only": [short(visible(each)) for each in side.only],
        "failed": [short(visible(each)) for each in side.failed],
    }


def _numbers(found: Agreement) -> list[tuple[str, list[str]]]:
    """Rows of the table of distributions: mean, quartiles and the least."""
    rows = {
        "rank correlation": found.correlation,
        "Pearson correlation": found.pearson,
        f"overlap of the top {found.top}": found.overlap,
        "position share, B − A": found.position_share,
    }
    return [(name, [_three(cell) for cell in _cells(row)]) for name, row in rows.items()]


def _cells(row: Distribution) -> list[float | None]:
    return [row.mean, *(row.quartiles or [None] * 3), row.least]


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _scatters(points: list[PairPoint]) -> list[Scatter]:
    values = [(p.first, p.second, visible(p.id), not p.same_target) for p in points]
    maps = [
        (p.second - p.first, p.correlation, visible(p.id), not p.same_target)
        for p in points
        if p.correlation is not None
    ]
    names = ("explained value in A", "explained value in B")
    drawn = [scatter("Values", names, values, same_axes=True)]
    if maps:
        labels = ("value in B − value in A", "rank correlation of the maps")
        drawn.append(scatter("Maps", labels, maps))
    return drawn


def _worst(pair: Pair, records: tuple[Attribution, Attribution]) -> dict[str, object]:
    return {
        "id": short(visible(pair.id)),
        "correlation": _three(pair.correlation),
        "overlap": _three(pair.overlap),
        "same": pair.same_target,
        "views": [view(record, brief=True) for record in records],
    }
