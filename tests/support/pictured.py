"""Records that are drawn."""

from __future__ import annotations

from typing import Any

from recorded import MODEL, RUN

from palrp_onnx.record import Attribution, InputFacts, Relevance, Site, TargetFacts, Units

TEXT = "A dull story, wonderfully acted.\nGo and see it!"


def record(
    units: Units, values: list[float], *, text: str | None = None, **changes: Any
) -> Attribution:
    facts: dict[str, Any] = {
        "id": "x",
        "model": MODEL,
        "run": RUN,
        "input": InputFacts(kind="text", truncated=False, text=text),
        "target": TargetFacts(output="logits", kind="class", index=1, value=2.0, label="POSITIVE"),
        "units": units,
        "relevance": Relevance(
            content=values,
            position=[abs(v) / 2 for v in values],
            total=[1.5 * v for v in values],
            score=[2 * abs(v) for v in values],
        ),
        "sites": [
            Site(name=f"site/{k}/cos", kind="rope", layer=k, part="cos", relevance=values)
            for k in range(2)
        ],
        "ledger": {"target": 2.0, "content": sum(values), "position": 0.5, "segment": 0.0,
                   "bias": 0.0, "norm": 0.0, "softmax": 0.0, "other": 0.0, "residual": 0.0,
                   "residual_relative": 0.0},
        "warnings": [],
    }  # fmt: skip
    return Attribution(**(facts | changes))


def words(text: str) -> Units:
    """Words and the marks that touch them."""
    pieces, start, end = [], [], []
    for word in text.split():
        begin = text.index(word, end[-1] if end else 0)
        cut = len(word.rstrip(".,!"))
        for left, right in ((0, cut), (cut, len(word))):
            if left < right:
                pieces.append(word[left:right])
                start.append(begin + left)
                end.append(begin + right)
    return Units(
        kind="token",
        text=pieces,
        id=[0] * len(pieces),
        start=start,
        end=end,
        special=[False] * len(pieces),
    )
