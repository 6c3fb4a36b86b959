"""Roles are a property of the file: whatever is fed, the analysis is the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import Array, ints, opened, proto, real
from committed import GOLDEN, MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx import Explainer
from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.sites import find_sites
from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import analyse_model, make_example
from palrp_onnx.record import InputFacts

FILES = [
    *sorted(MODELS.glob("*/model.onnx")),
    *sorted(GOLDEN.glob("*/model.onnx")),
]
T = 6


def facts(analysis: Analysis) -> dict[str, Any]:
    """Everything that was decided."""
    return {
        "inputs": {name: fact.role for name, fact in analysis.inputs.facts.items()},
        "operands": [
            (node.outputs[0].name, index, fact.role)
            for (node, index), fact in analysis.operands.items()
        ],
        "sites": [(s.name, s.kind, s.value.name, s.tokens) for s in find_sites(analysis)],
        "flags": [(v.name, flags) for v, flags in analysis.axes.items()],
    }


def characters(shape: tuple[int, ...]) -> dict[str, Array]:
    """Arrays of very different character that an input of this shape may be fed."""
    count = np.broadcast_to(np.arange(shape[-1] if shape else 1), shape)
    noise = np.random.default_rng(3).integers(0, 2, size=shape)
    return {
        "counting": np.minimum(count + 1, 50),
        "zeros": np.zeros(shape),
        "ones": np.ones(shape),
        "zeros and ones": noise,
        "falling": np.minimum(count[..., ::-1], 50),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_models_of_the_suite(path: Path) -> None:
    model = Model.open(path)
    expected = facts(analyse_model(model))
    example = make_example(model)
    for character in ("counting", "zeros", "zeros and ones", "falling"):
        feeds = {
            name: characters(array.shape)[character].astype(array.dtype)
            for name, array in example.items()
        }
        assert facts(analyse_model(model, feeds)) == expected, character


LITTLE: dict[str, tuple[str, dict[str, Array], Mapping[str, Array]]] = {
    "words, places and kinds": (
        """e = Gather(words, i)  p = Gather(places, j)  k = Gather(kinds, t)  a = Add(e, p)
        h = Add(a, k)  y = ReduceSum <keepdims=0> (h, i1)""",
        {"i": ints(*range(T))[None], "j": ints(*range(T))[None], "t": ints(*[0] * T)[None]},
        {
            "words": real(60, 4),
            "places": real(40, 4, seed=2),
            "kinds": real(2, 4, seed=3),
            "i1": ints(1),
        },
    ),
    "columns and categories": (
        """u = Unsqueeze(x, last)  m = Mul(u, w)  n = Add(m, b)  e = Gather(table, c)
        h = Concat <axis=1> (n, e)  k = Transpose <perm=[0, 2, 1]> (h)  s = MatMul(h, k)
        p = Softmax <axis=-1> (s)  o = MatMul(p, h)  y = ReduceSum <keepdims=0> (o, i1)""",
        {"x": real(1, 5), "c": ints(1, 2, 0)[None]},
        {
            "w": real(5, 4),
            "b": real(5, 4, seed=2),
            "table": real(9, 4, seed=3),
            "last": ints(-1),
            "i1": ints(1),
        },
    ),
    "a mask that is added": (
        """e = Gather(words, i)  f = Cast <to=1> (m)  g = Sub(one, f)  o = Mul(g, low)
        z = Unsqueeze(o, i1)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)  a = Add(s, z)
        p = Softmax <axis=-1> (a)  h = MatMul(p, e)  y = ReduceSum <keepdims=0> (h, i1)""",
        {"i": ints(*range(T))[None], "m": ints(*[1] * T)[None]},
        {
            "words": real(60, 4),
            "one": np.array(1, np.float32),
            "low": np.array(-1e4, np.float32),
            "i1": ints(1),
        },
    ),
}


@pytest.mark.parametrize("name", LITTLE)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**16), high=st.integers(1, 6))
def test_little_graphs(name: str, seed: int, high: int) -> None:
    body, feeds, weights = LITTLE[name]
    generator = np.random.default_rng(seed)
    fed = {
        key: generator.integers(0, high + 1, size=array.shape)
        .clip(0, 1 if key == "t" else 8)
        .astype(array.dtype)
        for key, array in feeds.items()
    }
    model = proto(body, feeds, weights)
    assert facts(analyse_model(opened(model), fed)) == facts(analyse_model(opened(model)))


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_later_arrays_are_checked_as_the_first_ones(engine: str) -> None:
    """Whatever does not fit is refused, also where axes of samples have names of their own."""
    weights = {"words": real(9, 4), "mix": real(4, 4), "one": ints(1)}
    body = (
        "e = Gather(words, ids)  c = MatMul(other, mix)  s = Add(e, c)  "
        "y = ReduceMean<keepdims=0>(s, one)"
    )
    feeds = {"ids": ints([1, 2, 3], [4, 5, 6]), "other": real(2, 3, 4)}
    model = proto(body, feeds, weights, free=(0, 1))
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "others"
    explainer = Explainer(opened(model), engine=engine)

    def explain(**changed: Array) -> None:
        explainer.explain(Sample("x", "tensors", changed, InputFacts(kind="tensors")), "0")

    explain(**feeds)
    with pytest.raises(InputError, match="batch sizes differ: ids 2, other 1"):
        explain(ids=feeds["ids"], other=feeds["other"][:1])
    with pytest.raises(InputError, match=r"missing.*other"):
        explain(ids=feeds["ids"])
    with pytest.raises(InputError, match=r"missing.*ids"):
        explain(other=feeds["other"])
