"""What the units of an input are is told from how the graph reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real
from recorded import reduced

from palrp_onnx import Explainer
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import PARTS, InputFacts

F = 6
HEAD = {"head": real(F, 4, seed=2), "one": ints(1)}
MEAN = "h = ReduceSum<keepdims=0>(x, one)  y = MatMul(h, head)"
IDS = ints(7, 2, 3, 3, 1)[None]

#: name → (nodes, feeds, weights, axes of free length, kind)
GRAPHS: dict[str, tuple[str, Mapping[str, Array], Mapping[str, Array], tuple[int, ...], str]] = {
    "words": (f"x = Gather(w, a)  {MEAN}", {"a": IDS}, {"w": real(30, F), **HEAD}, (0,), "token"),
    "series": (
        f"e = MatMul(a, w)  x = Add(e, p)  {MEAN}",
        {"a": real(1, 8, 3)},
        {"w": real(3, F), "p": real(1, 8, F, seed=4), **HEAD},
        (0,),
        "step",
    ),
    "a wave": (
        f"""u = Unsqueeze(a, one)  c = Conv<strides=[2]>(u, w)
            x = Transpose<perm=[0, 2, 1]>(c)  {MEAN}""",
        {"a": real(1, 20)},
        {"w": real(F, 1, 4), **HEAD},
        (0, 1),
        "step",
    ),
    "a table": (
        "h = Gemm(a, w, b)  r = Relu(h)  y = MatMul(r, head)",
        {"a": real(1, 5)},
        {"w": real(5, F), "b": real(F), "head": HEAD["head"]},
        (0,),
        "column",
    ),
    "columns with weights of their own": (
        f"u = Unsqueeze(a, last)  x = Mul(u, w)  {MEAN}",
        {"a": real(1, 5)},
        {"w": real(5, F), "last": ints(-1), **HEAD},
        (0,),
        "column",
    ),
    "numbers that share their weights": (
        f"u = Unsqueeze(a, last)  e = MatMul(u, w)  x = Add(e, p)  {MEAN}",
        {"a": real(1, 5)},
        {"w": real(1, F), "p": real(5, F, seed=4), "last": ints(-1), **HEAD},
        (0,),
        "step",
    ),
    "categories": (
        f"b = Add(a, offsets)  x = Gather(w, b)  {MEAN}",
        {"a": ints(1, 2, 0)[None]},
        {"offsets": ints(0, 4, 7), "w": real(12, F), **HEAD},
        (0,),
        "column",
    ),
    "nodes": (
        f"e = MatMul(a, w)  x = MatMul(edges, e)  {MEAN}",
        {"a": real(1, 7, 3), "edges": real(1, 7, 7, seed=8)},
        {"w": real(3, F), **HEAD},
        (0,),
        "node",
    ),
    "an image": (
        "c = Conv<kernel_shape=[2, 2], strides=[2, 2]>(a, w)  h = ReduceMean<keepdims=0>(c, both)  "
        "y = MatMul(h, head)",
        {"a": real(1, 3, 6, 4)},
        {"w": real(F, 3, 2, 2), "both": ints(2, 3), "head": HEAD["head"]},
        (0,),
        "patch",
    ),
}


def explained(name: str, feeds: Mapping[str, Array] | None = None, **more: object) -> Explanation:
    body, own, weights, free, _ = GRAPHS[name]
    model = opened(proto(body, own, weights, free=free))
    sample = Sample("x", "tensors", dict(feeds or own), InputFacts(kind="tensors"), **more)  # type: ignore[arg-type]
    options = {"explain_input": ("a",)} if "edges" in own else {}
    return Explainer(model.path, **options).explain(sample, "1")[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GRAPHS)
def test_kinds(name: str) -> None:
    found = explained(name).record
    assert found.units.kind == GRAPHS[name][-1]
    assert len(found.relevance.total) > 2


def test_names_of_columns() -> None:
    names = tuple("abcde")
    found = explained("a table", columns={"": names}).record
    assert found.units.text == [*names]
    with pytest.raises(InputError, match="4 names were given for the 5 columns"):
        explained("a table", columns={"a": names[:4]})


#: Axes of a video → the permutation that brings [pictures, channels, rows, columns] there.
LAYOUTS = {"pictures first": (0, 1, 2, 3), "channels first": (1, 0, 2, 3)}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_videos_have_patches_of_every_picture(layout: str, depth: int) -> None:
    order = LAYOUTS[layout]
    video = real(2, *(np.array((4, 3, 4, 6))[list(order)]), seed=3)
    back = "t = Identity(v)" if order[0] else "t = Transpose<perm=[0, 2, 1, 3, 4]>(v)"
    kernel = "kernel_shape=[1, 2, 2], " if depth == 1 else ""  # that of the weights by default
    cut = f"c = Conv<{kernel}strides=[{depth}, 2, 2]>(t, w)"
    body = f"""{back}  {cut}  f = Reshape(c, flat)  s = Transpose<perm=[0, 2, 1]>(f)
        x = Add(s, p)  {MEAN}"""
    places = 4 // depth * 6
    weights = {"w": real(F, 3, depth, 2, 2), "flat": ints(0, F, -1), **HEAD}
    weights["p"] = real(1, places, F, seed=9)
    model = opened(proto(body, {"v": video}, weights))
    sample = Sample("x", "tensors", {"v": video}, InputFacts(kind="tensors"))
    both = [Explainer(model.path, engine=e).explain(sample, "1") for e in ("numpy", "onnxruntime")]
    for row, (slow, fast) in enumerate(zip(*both, strict=True)):
        units = slow.record.units
        assert (units.grid, units.pictures) == ((4 // depth * 2, 3), 4 // depth)
        # The network is linear: relevance is x · gradient, and positions are their table's.
        upright = video[row].transpose(np.argsort(order)).astype(np.float64)
        parts = upright.reshape(4 // depth, depth, 3, 2, 2, 3, 2)
        slopes = np.einsum("fcdij,f->dcij", weights["w"], weights["head"][:, 1], dtype=np.float64)
        expected = np.einsum("pdcriqj,dcij->prq", parts, slopes).ravel()
        np.testing.assert_allclose(slow.record.relevance.content, expected, rtol=1e-4, atol=1e-5)
        own = weights["p"][0] * weights["head"][:, 1]
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(slow.record.relevance.position, own.sum(axis=1), **close)
        positive = np.maximum(own, 0).sum(axis=1)
        np.testing.assert_allclose(reduced(slow.record.relevance), positive, **close)
        for part in PARTS:
            one, other = (getattr(each.record.relevance, part) for each in (slow, fast))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
