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
        ({"kind": "element", "index": [17]}, "element [17]"),
        ({"kind": "element", "index": [6, 29]}, "element [6, 29]"),
        ({"kind": "element", "index": []}, "the only element"),
        ({"kind": "element", "index": [1], "label": "arousal"}, "arousal"),
        ({"kind": "dot", "vector": "q.npy"}, "product with q.npy"),
        ({"kind": "cosine", "vector": "q.npy", "position": 0}, "similarity to q.npy at token 0"),
    ],
)
def test_names_of_targets(facts: dict[str, Any], name: str) -> None:
    assert target_name(TargetFacts(output="y", value=1.0, **facts)) == name
