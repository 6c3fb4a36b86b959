"""Draw ``docs/images/effects.svg``: effect sizes of PA-LRP against AttnLRP, with intervals.

    python docs/write_effects.py

An effect size is the mean of the differences, text by text, divided by their standard deviation,
with its sign turned where low values are good: to the right PA-LRP is better. From docs/results.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
MODELS = {
    "smollm2": "SmolLM2, next token",
    "smollm2-choice": "SmolLM2, multiple choice",
    "reviews-rope": "reviews, rotations",
    "reviews-bert": "reviews, learned positions",
    "reviews-minilm": "reviews, MiniLM",
}
MEASURES = {
    "generation_auac": ("gen. AUAC", 1),
    "generation_mse": ("gen. MSE", -1),
    "pruning_auac": ("prun. AUAC", 1),
    "pruning_mse": ("prun. MSE", -1),
    "comprehensiveness": ("compr.", 1),
    "between": ("between", 1),
}
LEFT, WIDTH, ROW, TOP, SPAN = 210, 760, 17, 46, 1.6


def effects() -> list[tuple[str, str, float, float, float]]:
    """Model, measure, effect size, and the ends of its interval."""
    found = []
    for name, label in MODELS.items():
        path = ROOT / "results" / f"perturbation-{name}-plain.json"
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, (measure, sign) in MEASURES.items():
            mean, low, high = result["gains"]["attnlrp"][key]
            deviation = (high - low) / 3.92 * math.sqrt(result["samples"]) or 1.0
            ends = sorted(sign * each / deviation for each in (low, high))
            found.append((label, measure, sign * mean / deviation, *ends))
    return found


def draw(rows: list[tuple[str, str, float, float, float]]) -> str:
    """The picture: one line a measure, grouped by model."""
    models = list(dict.fromkeys(row[0] for row in rows))
    height = TOP + ROW * len(rows) + 10 * len(models) + 34

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * (max(-SPAN, min(SPAN, value)) + SPAN) / (2 * SPAN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11" fill="#1a1a1a">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="8" y="18" font-size="13" font-weight="bold">PA-LRP against AttnLRP: effect sizes '
        "with 95 % intervals</text>",
        f'<text x="{x(-0.1):.0f}" y="36" text-anchor="end">← AttnLRP is better</text>',
        f'<text x="{x(0.1):.0f}" y="36">PA-LRP is better →</text>',
    ]
    y, last = TOP, ""
    for model, measure, value, low, high in rows:
        if model != last:
            y, last = y + 10, model
            parts.append(f'<text x="8" y="{y + 12}" font-weight="bold">{model}</text>')
        apart = low > 0 or high < 0
        colour = "#9a9a9a" if not apart else "#1f5fa8" if value > 0 else "#b5472b"
        middle = y + 8
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{measure}</text>',
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(value):.1f}" cy="{middle}" r="3.5" fill="{colour}">'
            f"<title>{model}, {measure}: {value:+.2f} ({low:+.2f} … {high:+.2f})</title></circle>",
        ]
        y += ROW
    for tick in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5):
        line = "#1a1a1a" if tick == 0 else "#e2e2e2"
        parts.insert(
            2,
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{y + 4}" '
            f'stroke="{line}" stroke-width="1"/>',
        )
        parts.append(f'<text x="{x(tick):.1f}" y="{y + 18}" text-anchor="middle">{tick:g}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    (ROOT / "images" / "effects.svg").write_text(draw(effects()), encoding="utf-8")
