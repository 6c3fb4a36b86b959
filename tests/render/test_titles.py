"""What pictures and pages call a target."""

from __future__ import annotations

from typing import Any

import pytest

from palrp_onnx.record import TargetFacts
from palrp_onnx.render.titles import target_name

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"kind": "class", "index": 1, "label": "POSITIVE"}, "POSITIVE"),
        ({"kind": "class", "index": 1}, "class 1"),
        ({"kind": "token", "index": 7, "position": 3}, "class 7 at token 3"),
        ({"kind": "contrast", "index": 1, "against": 0}, "class 1 rather than class 0"),
        ({"kind": "class", "index": 1, "rest": True}, "class 1 against the rest"),
        ({"kind": "element", "index": [17]}, "element [17]"),
        ({"kind": "element", "index": [6, 29]}, "element [6, 29]"),
        ({"kind": "element", "index": []}, "the only element"),
        ({"kind": "element", "index": [1], "label": "arousal"}, "arousal"),
        ({"kind": "dot", "vector": "q.npy"}, "product with q.npy"),
        ({"kind": "cosine", "vector": "q.npy", "position": 0}, "similarity to q.npy at token 0"),
        (
            {"kind": "token", "index": 264, "position": 3, "label": " film", "probability": 0.31}
            | {"head": "causal-lm"},
            'next token " film" (id 264, p 0.31) after token 3',
        ),
        (
            {"kind": "token", "index": 264, "position": 9, "label": " film", "logprob": True}
            | {"head": "causal-lm"},
            'log p of next token " film" (id 264)',
        ),
        (
            {"kind": "contrast", "index": 1, "position": 9, "label": " she", "against": 2}
            | {"against_label": " he", "head": "causal-lm"},
            'next token " she" rather than " he"',
        ),
        (
            {"kind": "token", "index": 3, "position": 1, "label": "B-LOC", "probability": 0.98}
            | {"head": "token-classification", "token": "Berlin"},
            '"Berlin" → B-LOC 0.98',
        ),
        (
            {"kind": "token", "index": 3, "position": 1, "label": "paris", "probability": 0.5}
            | {"head": "masked-lm", "token": "[MASK]"},
            '"[MASK]" → "paris" (id 3, p 0.5)',
        ),
        (
            {"kind": "place", "index": 12, "label": "us", "token": "us", "probability": 0.25}
            | {"head": "question-answering"},
            '"us" → y 0.25',
        ),
        (
            {"kind": "span", "places": [2, 3], "label": " is big", "logprob": True},
            'log p of " is big" (tokens 3–4)',
        ),
        (
            {"kind": "region", "index": 2, "label": "road", "region": "mask.png", "cells": 31},
            "road over 31 places, mask.png",
        ),
        ({"kind": "region", "region": "2,:,:", "cells": 16}, "[2,:,:] over 16 places"),
        (
            {"kind": "token", "index": 1, "position": 7, "label": "cat", "probability": 0.5}
            | {"head": "detection"},
            "box 7 → cat 0.5",
        ),
    ],
)
def test_names_of_targets(facts: dict[str, Any], name: str) -> None:
    assert target_name(TargetFacts(output="y", value=1.0, **facts), last=9) == name
