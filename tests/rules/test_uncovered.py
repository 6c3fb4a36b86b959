"""What a rule does not cover is refused, naming the node; nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, floats, ints, opened, proto, real, run
from rough_gradient import rough_gradient

from palrp_onnx import Explainer
from palrp_onnx.errors import ModelError, UnsupportedError
from palrp_onnx.inspection import inspect
from palrp_onnx.relevance.target_parsing import parse_target

X = real(2, 3, 4, seed=3)
IMAGE = real(2, 4, 5, 6)

#: name → (graph with a node "here", content, weights, opset).
REFUSED: dict[str, tuple[str, Array, dict[str, Array], int]] = {
    "ScatterND that multiplies": (
        '[here] y = ScatterND<reduction="mul">(x, i, w)',
        X[:1],
        {"i": ints([[0, 1]]), "w": real(1, 1, 4)},
        18,
    ),
    "ScatterElements that compares": (
        '[here] y = ScatterElements<axis=1, reduction="max">(x, i, w)',
        X[:1],
        {"i": ints([[0, 1, 2, 0]]), "w": real(1, 1, 4)},
        18,
    ),
    "Resize of a region": (
        '[here] y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, , s)',
        IMAGE,
        {"r": floats(0, 0, 0.25, 0.25, 1, 1, 0.75, 0.75), "s": ints(2, 4, 5, 6)},
        18,
    ),
    "Resize to a rounded length between corners": (
        '[here] y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , f)',
        IMAGE,
        {"f": floats(1, 1, 0.6, 0.6)},
        18,
    ),
    "Resize that keeps the ratio of the sides": (
        '[here] y = Resize<keep_aspect_ratio_policy="not_larger">(x, , , s)',
        IMAGE,
        {"s": ints(2, 4, 7, 7)},
        18,
    ),
    "MeanVarianceNormalization over samples": (
        "[here] y = MeanVarianceNormalization(x)",
        IMAGE,
        {},
        18,
    ),
    "Pow with several exponents": ("[here] y = Pow(x, n)", X, {"n": floats(1, 2, 3, 2)}, 18),
    "Pow with an exponent that depends on content": ("[here] y = Pow(x, x)", abs(X), {}, 18),
    "CumSum along a computed axis": (
        "s = Shape(x)  i = Gather(s, o)  j = Sub(i, i)  [here] y = CumSum(x, j)",
        X,
        {"o": np.array(1)},
        18,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_node(name: str) -> None:
    body, x, weights, opset = REFUSED[name]
    with pytest.raises(UnsupportedError, match="'here'") as caught:
        run(body, x, weights, opset=opset)
    assert caught.value.exit_code == 4


#: Uses at the edge of a rule, explained rightly or refused: graph, content, weights, opset.
EDGES: dict[str, tuple[str, Array, dict[str, Array], int]] = {
    "Pad before opset 11": (
        "y = Pad<pads=[0, 1, 0, 0, 1, 0]>(x)",
        X,
        {},
        10,
    ),
    "Pad that crops": (
        "y = Pad(x, s)",
        X,
        {"s": ints(0, -1, 0, 0, 1, 0)},
        18,
    ),
    "Einsum on a diagonal": (
        'y = Einsum<equation="bii->bi">(x)',
        real(2, 4, 4),
        {},
        18,
    ),
    "Einsum with an implicit result": (
        'y = Einsum<equation="bij,jk">(x, w)',
        X,
        {"w": real(4, 5)},
        18,
    ),
    "Scatter before opset 11": (
        "y = Scatter<axis=1>(x, i, w)",
        X[:1],
        {"i": ints([[0, 2, 1, 0]]), "w": real(1, 1, 4)},
        9,
    ),
    "ScatterND of constants": (
        "y = ScatterND(x, i, w)",
        X[:1],
        {"i": ints([0, 1]), "w": real(1, 4)},
        18,
    ),
    "ScatterND of slices": (
        "s = Gather<axis=1>(x, k)  y = ScatterND(w, i, s)",
        X,
        {"i": ints([0, 2], [1, 0]), "k": np.array(2), "w": real(2, 5, 4)},
        18,
    ),
    "Slice backwards to INT64_MAX": (
        "y = Slice(x, a, b, c, d)",
        X,
        {"a": ints(-1), "b": ints(2**63 - 1), "c": ints(2), "d": ints(-1)},
        18,
    ),
    "Slice backwards from before the first": (
        "y = Slice(x, a, b, c, d)",
        X,
        {"a": ints(-9), "b": ints(-9), "c": ints(2), "d": ints(-1)},
        18,
    ),
    "BatchNormalization in training": (
        "y, m, v = BatchNormalization<training_mode=1>(x, g, b, u, s)",
        IMAGE,
        {"g": real(4), "b": real(4), "u": real(4), "s": real(4, low=0.5)},
        18,
    ),
    "Dropout in training": (
        "y = Dropout(x, r, t)",
        X,
        {"r": np.array(0.5, np.float32), "t": np.array(True)},
        18,
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_right_or_refused(name: str) -> None:
    body, x, weights, opset = EDGES[name]
    try:
        found = run(body, x, weights, opset=opset, free=(), dtype="float32")
    except ModelError:
        return
    bias = found.result.ledger["bias"]
    expected = (found.y * found.seed).sum(axis=tuple(range(1, found.y.ndim)))
    np.testing.assert_allclose(
        found.content.reshape(len(x), -1).sum(axis=1) + bias, expected, rtol=1e-5
    )


def test_gather_elements_from_the_end_in_float64() -> None:
    """DeBERTa's relative positions are looked up so."""
    index = ints(*[[[0, 1, 3], [2, 2, 1], [3, 0, 0]]] * 2)
    found = run("y = GatherElements<axis=-1>(x, i)", X, {"i": index}, free=())
    assert found.residual < 1e-12


def test_an_output_whose_batch_is_not_first() -> None:
    model = opened(proto("y = Transpose<perm=[1, 0, 2]>(x)", {"x": X}))
    for engine in ("numpy", "onnxruntime"):
        opened_engine = Explainer(model, engine=engine).engine({"x": X})
        outcome = opened_engine.explain({"x": X}, parse_target("1,2"))
        assert [t.value for t in outcome.targets] == X[:, 1, 2].tolist()
        expected = np.zeros((2, 3))
        expected[:, 1] = X[:, 1, 2]
        np.testing.assert_allclose(outcome.maps.content, expected, rtol=1e-6)


def test_a_graph_that_runs_for_one_sample_only() -> None:
    """Traced with a free batch axis, but with a reshape that has its length in it."""
    found = run("h = Reshape(x, s)  y = Neg(h)", X[:1], {"s": ints(1, 3, 2, 2)})
    assert found.residual < 1e-12


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("Det(r)", "no rule yet for determinants"),
        ("Floor(r)", "constant but for its steps"),
        ("RandomNormalLike(r)", "random"),
        ("ReduceProd<keepdims=0>(r, last)", "products of many factors"),
    ],
)
def test_no_rule_is_refused_before_anything_runs(op: str, reason: str) -> None:
    body = f"h = Relu(x)  r = Reshape(h, s) [culprit] d = {op}  y = Neg(d)"
    sizes = {"s": ints(0, -1, 2, 2), "last": ints(3)}
    model = opened(proto(body, {"x": IMAGE}, sizes))
    with pytest.raises(UnsupportedError, match=f"'culprit' .*{reason}") as caught:
        Explainer(model).engine({"x": IMAGE})
    assert reason in inspect(model).coverage.unsupported[0]
    assert (caught.value.exit_code, caught.value.code) == (4, "unsupported")


def test_every_unsupported_node_is_named() -> None:
    body = "[first] a = ReduceProd(x, last)  [second] b = ReduceProd(a, last)  y = Add(b, x)"
    with pytest.raises(UnsupportedError, match=r"2 node.*'second'.*'first'"):
        run(body, IMAGE, {"last": ints(-1)})


def test_unsupported_nodes_off_the_path_do_no_harm() -> None:
    body = "a = ReduceProd(x, last)  b = ReduceMax(a)  z = Shape(b)  y = Neg(x)"
    found = run(body, IMAGE, {"last": ints(-1)})
    np.testing.assert_allclose(found.multiplier, -found.seed, rtol=1e-12)


def test_a_secondary_output_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"secondary output.*'here'"):
        run("[here] h, y, v = LayerNormalization(x, g)", X, {"g": real(4)})


def test_groups_of_transposed_convolutions() -> None:
    """In float32 alone, as onnx.reference does not compute them."""
    body, weights = "y = ConvTranspose<group=2, strides=[2,2]>(x, w)", {"w": real(4, 3, 2, 2)}
    image = real(2, 4, 3, 5)
    found = run(body, image, weights, dtype="float32", free=(0,))
    seeds = found.seed.reshape(2, 2, 3, 3, 2, 5, 2)  # windows do not overlap
    taps = weights["w"].reshape(2, 2, 3, 2, 2)
    expected = np.einsum("bgoiajc,gqoac->bgqij", seeds, taps).reshape(image.shape)
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-4, atol=1e-5)
    assert found.residual < 1e-6


def test_linear_upsample() -> None:
    """Before opset 11 places between pixels are measured from the corner."""
    body, weights = 'y = Upsample<mode="linear">(x, f)', {"f": floats(1, 1, 2, 3)}
    found = run(body, IMAGE, weights, opset=9, dtype="float32")
    np.testing.assert_allclose(found.multiplier, rough_gradient(found), rtol=1e-4, atol=1e-4)
    assert found.residual < 1e-6


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_one_row_of_a_softmax_over_several_axes(op: str) -> None:
    """Before opset 13 its rows are not separate."""
    body, index = f"s = {op}(x)  y = Gather<axis=1>(s, i)", {"i": np.array(1)}
    found = run(body, X, index, opset=11, dtype="float32")
    slopes = rough_gradient(found, step=2.0**-6)
    np.testing.assert_allclose(found.multiplier, slopes, rtol=1e-2, atol=1e-3)
