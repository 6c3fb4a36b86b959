"""``inspect`` and ``explain`` say the same of a file; ``support/verdicts.py`` asks of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import Array, floats, ints, proto, real
from verdicts import verdicts

X = real(2, 3, 4, seed=3)
#: What the graph shows → graph, weights, whether it can be explained.
FILES: dict[str, tuple[str, dict[str, Array], bool]] = {
    "a linear layer": ("y = MatMul(x, w)", {"w": real(4, 5)}, True),
    "no rule": ("r = Reshape(x, s)  d = Det(r)  y = Neg(d)", {"s": ints(0, 3, 2, 2)}, False),
    "a step": ("f = Floor(x)  y = Neg(f)", {}, False),
    "training": (
        "y = Dropout(x, r, t)",
        {"r": np.array(0.5, np.float32), "t": np.array(True)},
        False,
    ),
    "several exponents": ("y = Pow(x, n)", {"n": floats(1, 2, 3, 2)}, False),
}


@pytest.mark.parametrize("name", FILES)
def test_both_say_the_same(name: str, tmp_path: Path) -> None:
    body, weights, explainable = FILES[name]
    model = tmp_path / "model.onnx"
    onnx.save(proto(body, {"x": X}, weights), model)
    np.savez(model.with_suffix(".npz"), x=X)
    found = verdicts(model, model.with_suffix(".npz"))
    assert (found.inspected, found.explained) == (explainable, explainable), found
