"""A model that runs on no synthetic example: its words have the numbers from 1000 on.

``y = Σ_t (words[ids_t − 1000] + places[t]) · classes``, so that relevance is known: of a word or a
place it is its row times the column of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from building import Array, ints, proto, real

FIRST, WORDS = 1000, 10
WEIGHTS = {
    "first": np.array(FIRST),
    "words": real(WORDS, 4),
    "places": real(20, 4, seed=2),
    "classes": real(4, 2, seed=3),
    "i0": ints(0),
    "i1": ints(1),
}
#: Two rows of the numbers of words.
IDS = ints([1001, 1004, 1009, 1004, 1000], [1002, 1002, 1007, 1003, 1008])


def write_model(path: Path) -> Path:
    body = """n = Sub(ids, first)  e = Gather(words, n)  shape = Shape(ids)
        length = Gather(shape, i1)  p = Slice(places, i0, length, i0)  h = Add(e, p)
        s = ReduceSum <keepdims=0> (h, i1)  y = MatMul(s, classes)"""
    path.write_bytes(proto(body, {"ids": IDS}, WEIGHTS, free=(0, 1)).SerializeToString())
    return path


def write_example(path: Path, ids: Array = IDS) -> Path:
    np.savez(path, ids=ids)
    return path


def check(record: dict[str, Any], ids: Sequence[int]) -> None:
    """Relevance for class 1, with positions as they are (``signed``), is what it must be."""
    column = WEIGHTS["classes"][:, 1]
    words = WEIGHTS["words"][np.array(ids) - FIRST] @ column
    places = WEIGHTS["places"][: len(ids)] @ column
    for name, expected in (("content", words), ("position", places), ("total", words + places)):
        np.testing.assert_allclose(record["relevance"][name], expected, atol=1e-5)
    np.testing.assert_allclose(record["target"]["value"], (words + places).sum(), atol=1e-5)
    assert "uncertain" in [each["code"] for each in record["warnings"]]
