"""Positions: one bar a layer, then every site, as a matrix over the units or as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from palrp_onnx.record import Map, Site
from palrp_onnx.render.curves import ticks
from palrp_onnx.render.flow import visible
from palrp_onnx.render.markup import data_uri, digits
from palrp_onnx.render.palette import colours


def positions(shown: Map) -> dict[str, Any] | None:
    """Values of the template; ``None`` where no site has relevance of units."""
    sites = [site for site in shown.sites if site.relevance]
    if not sites:
        return None
    numbers = np.array([site.relevance for site in sites])
    special = np.array(shown.units.special or [False] * numbers.shape[1])
    ordinary = numbers[:, ~special]  # special tokens would dominate the scale
    limit = float(np.abs(ordinary if ordinary.any() else numbers).max())
    drawn = colours(numbers, limit)
    grid = shown.units.grid
    return {
        "layers": _layers(sites),
        "source": None if grid else data_uri(Image.fromarray(drawn)),
        "columns": numbers.shape[1],
        "marks": [(100 * at / numbers.shape[1], f"{at:.0f}") for at in _marks(numbers.shape[1])],
        "limit": limit,
        "ratio": None if grid is None else f"{grid[1]} / {grid[0]}",
        "sites": [
            {
                "label": visible(f"layer {site.layer}, {site.kind} {site.part}"),
                "sum": digits(float(row.sum()) + site.off_map),
                "size": digits(float(np.abs(row).sum())),
                "tile": None
                if grid is None
                else data_uri(Image.fromarray(cells.reshape(*grid, 3))),
            }
            for site, row, cells in zip(sites, numbers, drawn, strict=True)
        ],
    }


def _marks(columns: int) -> list[float]:
    """Round numbers of units for the axis."""
    return [mark for mark in ticks(0.0, columns) if mark < columns and mark == int(mark)]


def _layers(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Sums of the sites of each layer, with bars from the centre."""
    sums: dict[int, float] = {}
    kinds: dict[int, list[str]] = {}
    for site in sites:
        value = sum(site.relevance) + site.off_map
        sums[site.layer] = sums.get(site.layer, 0.0) + value
        kinds.setdefault(site.layer, []).append(site.kind)
    largest = max(map(abs, sums.values())) or 1.0
    return [
        {
            "label": visible(f"layer {layer}, {', '.join(dict.fromkeys(kinds[layer]))}"),
            "value": digits(sums[layer]),
            "width": f"{50 * abs(sums[layer]) / largest:.3f}",
            "left": f"{50 - 50 * max(-sums[layer], 0.0) / largest:.3f}",
            "sign": "minus" if sums[layer] < 0 else "plus",
        }
        for layer in sorted(sums)
    ]
