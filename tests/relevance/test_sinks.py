"""The four reductions against their sums, and the relevance of sites."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, Walk, opened, proto, real, run, walk, wide

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.sinks import Sink, reduce_sinks
from palrp_onnx.tensor.numpy import Eager

pytestmark = pytest.mark.quick

GENERATOR = np.random.default_rng(4)
SINKS = [
    Sink(kind, layer, part, GENERATOR.normal(size=(2, 3, features)), features, None)
    for kind, layer, part, features in [
        ("learned", 0, "table", 5),
        ("rope", 0, "cos", 4),
        ("rope", 0, "sin", 4),
        ("rope", 1, "cos", 4),
        ("rope", 1, "sin", 4),
        ("relative_bias", 1, "query", 1),
    ]
]
LIKE = np.zeros((2, 3))
OP = Eager(2, np.float64)


def loops(how: str) -> Array:
    """Each reduction as its formula says it."""
    total = np.zeros_like(LIKE)
    for b, t in np.ndindex(*LIKE.shape):
        if how == "single-sink":
            for kind, part in dict.fromkeys((s.kind, s.part) for s in SINKS):
                mine = [s.relevance[b, t] for s in SINKS if (s.kind, s.part) == (kind, part)]
                total[b, t] += sum(max(v, 0) for v in np.sum(mine, axis=0).tolist())
            continue
        for sink in SINKS:
            entries = sink.relevance[b, t].tolist()
            if how == "relu":
                total[b, t] += sum(max(v, 0) for v in entries)
            elif how == "abs":
                total[b, t] += abs(sum(entries))
            else:
                total[b, t] += sum(entries)
    return total


@pytest.mark.parametrize("how", ["relu", "abs", "signed", "single-sink"])
def test_reductions(how: str) -> None:
    terms = [term for _, term in reduce_sinks(OP, SINKS, how)]
    np.testing.assert_allclose(sum(terms), loops(how))


def test_no_sinks_no_relevance() -> None:
    assert not reduce_sinks(OP, [], "relu")


def test_unknown_reduction() -> None:
    with pytest.raises(UsageError, match="single-sink") as caught:
        reduce_sinks(OP, SINKS, "sum")
    assert caught.value.exit_code == 2


X = real(2, 5, 4, seed=3)
TABLE = real(5, 4, seed=5)


def sink_of(found: Walk) -> Array:
    (sink,) = found.result.sinks
    return np.asarray(sink.relevance)


def test_a_table_added_at_the_input() -> None:
    """Eq. 5: P ∘ m, per token and feature."""
    found = run("h = Add(x, p)  y = MatMul(h, w)", X, {"p": TABLE, "w": real(4, 4)})
    m = found.seed @ wide(real(4, 4)).T
    np.testing.assert_allclose(sink_of(found), wide(TABLE) * m, rtol=1e-9)
    np.testing.assert_allclose(found.content, wide(X) * m, rtol=1e-9)
    np.testing.assert_allclose(
        found.result.ledger["position"], (wide(TABLE) * m).sum(axis=(1, 2)), rtol=1e-9
    )


def test_a_table_added_twice_has_one_sink() -> None:
    """Sites of one layer, kind, part and shape add up."""
    found = run("h = Add(x, p)  y = Add(h, p)", X, {"p": TABLE})
    np.testing.assert_allclose(sink_of(found), 2 * wide(TABLE) * found.seed, rtol=1e-9)


SCORES = "k = Transpose<perm=[0, 2, 1]>(x)  a = MatMul(x, k)  "


def test_a_relative_bias_is_shared_by_query_and_key() -> None:
    bias = real(5, 5, seed=6)
    found = run(SCORES + "y = Add(a, r)", X, {"r": bias})
    relevance = 0.5 * wide(bias) * found.seed
    query, key = found.result.sinks
    assert [(s.kind, s.layer, s.part) for s in (query, key)] == [
        ("relative_bias", 0, "query"),
        ("relative_bias", 0, "key"),
    ]
    np.testing.assert_allclose(query.relevance[..., 0], relevance.sum(axis=2), rtol=1e-9)
    np.testing.assert_allclose(key.relevance[..., 0], relevance.sum(axis=1), rtol=1e-9)


def test_a_relative_bias_per_head() -> None:
    bias = real(2, 5, 5, seed=6)
    body = "h = Reshape(x, cut)  q = Transpose<perm=[0, 2, 1, 3]>(h)  "
    body += "k = Transpose<perm=[0, 2, 3, 1]>(h)  a = MatMul(q, k)  y = Add(a, r)"
    found = run(body, X, {"r": bias, "cut": np.array([0, 0, 2, 2])})
    relevance = 0.5 * wide(bias) * found.seed
    query, key = (s.relevance for s in found.result.sinks)
    np.testing.assert_allclose(query.sum(axis=-1), relevance.sum(axis=(1, 3)), rtol=1e-9)
    np.testing.assert_allclose(key.sum(axis=-1), relevance.sum(axis=(1, 2)), rtol=1e-9)


def test_a_relative_bias_with_heads_in_the_batch() -> None:
    bias = real(1, 5, 5, seed=6)
    body = "h = Reshape(x, cut)  q0 = Transpose<perm=[0, 2, 1, 3]>(h)  q = Reshape(q0, merge)  "
    body += "k = Transpose<perm=[0, 2, 1]>(q)  a = MatMul(q, k)  b = Add(a, r)  y = Reshape(b, t)"
    shapes = {"cut": [0, 0, 2, 2], "merge": [-1, 5, 2], "t": [-1, 2, 5, 5]}
    found = run(body, X, {"r": bias, **{k: np.array(v) for k, v in shapes.items()}})
    relevance = 0.5 * wide(bias)[:, None] * found.seed
    query, key = (s.relevance for s in found.result.sinks)
    np.testing.assert_allclose(query.sum(axis=-1), relevance.sum(axis=(1, 3)), rtol=1e-9)
    np.testing.assert_allclose(key.sum(axis=-1), relevance.sum(axis=(1, 2)), rtol=1e-9)


def test_layers_are_counted_by_attention() -> None:
    """A table added before and after an attention layer: sites 0 and 1."""
    body = "h = Add(x, p)  k = Transpose<perm=[0, 2, 1]>(h)  a = MatMul(h, k)  s = Softmax(a)  "
    found = run(body + "c = MatMul(s, h)  y = Add(c, p)", X, {"p": TABLE})
    assert [(s.kind, s.name) for s in found.result.sinks] == [
        ("learned", "0/table"),
        ("learned", "1/table"),
    ]
    caught = sum(s.relevance.sum(axis=(1, 2)) for s in found.result.sinks)
    np.testing.assert_allclose(caught, found.result.ledger["position"], rtol=1e-9)


def test_masks_and_parameters_are_no_positions() -> None:
    mask = np.where(np.tri(5, dtype=bool), 0, -1e4).astype(np.float32)
    found = run(SCORES + "b = Add(a, r)  y = Softmax(b)", X, {"r": mask})
    assert not found.result.sinks
    assert found.residual < 1e-12


def test_tokens_and_their_table() -> None:
    """Ids looked up, a table added: content is [B, T, F] of the looked-up rows."""
    feeds = {"ids": np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])}
    words = real(10, 4, seed=8)
    body = "e = Gather(words, ids)  h = Add(e, p)  y = MatMul(h, w)"
    model = opened(proto(body, feeds, {"words": words, "p": TABLE, "w": real(4, 4)}))
    found = walk(model, feeds)
    m = found.seed @ wide(real(4, 4)).T
    np.testing.assert_allclose(found.result.content, wide(words)[feeds["ids"]] * m, rtol=1e-9)
    np.testing.assert_allclose(sink_of(found), wide(TABLE) * m, rtol=1e-9)


def test_a_table_on_a_grid_is_no_relative_bias() -> None:
    """A table [C, H, W] added to a feature map [B, C, H, W] has one row a place."""
    image, window, table = real(2, 3, 6, 4), real(4, 3, 2, 2, seed=9), real(4, 3, 2, seed=5)
    found = run("h = Conv<strides=[2, 2]>(x, w)  y = Add(h, p)", image, {"w": window, "p": table})
    (sink,) = found.result.sinks
    expected = (wide(table) * found.seed).transpose(0, 2, 3, 1).reshape(2, 6, 4)
    assert sink.kind == "learned"
    np.testing.assert_allclose(sink.relevance, expected, rtol=1e-9)


def test_a_position_that_multiplies_in_einsum_gets_half() -> None:
    product = run("y = Mul(x, p)", X, {"p": TABLE})
    found = run('y = Einsum<equation="btf,tf->btf">(x, p)', X, {"p": TABLE})
    np.testing.assert_allclose(found.content, product.content)


def test_a_position_concatenated_is_a_position() -> None:
    found = run("y = Concat<axis=-1>(x, p)", X, {"p": real(2, 5, 3, seed=6)}, free=())
    assert found.result.ledger["position"].all()


def test_equal_steps_along_the_keys_are_alibi() -> None:
    steps = -np.abs(np.subtract.outer(np.arange(5), np.arange(5))).astype(np.float32) / 4
    for bias in (steps, np.arange(5, dtype=np.float32)[None] / 8):
        found = run(SCORES + "y = Add(a, r)", X, {"r": bias})
        assert [(s.kind, s.part) for s in found.result.sinks] == [
            ("alibi", "query"),
            ("alibi", "key"),
        ]
        relevance = 0.5 * wide(bias) * found.seed
        query, key = (s.relevance[..., 0] for s in found.result.sinks)
        np.testing.assert_allclose(query, relevance.sum(axis=2), rtol=1e-9)
        np.testing.assert_allclose(key, relevance.sum(axis=1), rtol=1e-9)


def test_relative_keys_take_half_of_their_product() -> None:
    """q · r[i − j] added to the scores: half to q, half to the table, shared by query and key."""
    table = real(5, 5, 4, seed=6)
    body = SCORES + 'e = Einsum<equation = "btf,tsf->bts">(x, r)  z = Add(a, e)  y = Softmax(z)'
    found = run(body, X, {"r": table})
    query, key = found.result.sinks
    assert (query.kind, query.part, key.part) == ("disentangled", "query", "key")
    product = np.einsum("btf,tsf->bts", wide(X), wide(table))
    scores = wide(X) @ wide(X).transpose(0, 2, 1) + product
    s = np.exp(scores - scores.max(axis=2, keepdims=True))
    s /= s.sum(axis=2, keepdims=True)
    m = s * (found.seed - (s * found.seed).sum(axis=2, keepdims=True))
    relevance = 0.25 * m * product
    np.testing.assert_allclose(query.relevance[..., 0], relevance.sum(axis=2), rtol=1e-7)
    np.testing.assert_allclose(key.relevance[..., 0], relevance.sum(axis=1), rtol=1e-7)
    assert found.residual < 1e-12


def test_a_table_that_is_picked_from_by_distance() -> None:
    """Queries × a table of distances, of which every pair takes one column."""
    table, distance = real(4, 9, seed=6), np.subtract.outer(np.arange(5), np.arange(5)) + 4
    body = "c = MatMul(x, r)  g = GatherElements<axis = 2>(c, i)  " + SCORES
    index = np.broadcast_to(distance, (2, 5, 5)).astype(np.int64)
    found = run(body + "z = Add(a, g)  y = Softmax(z)", X, {"r": table, "i": index})
    (sink,) = found.result.sinks
    assert (sink.kind, sink.relevance.shape) == ("disentangled", (2, 5, 1))
    assert found.residual < 1e-12
    np.testing.assert_allclose(
        sink.relevance.sum(axis=(1, 2)), found.result.ledger["position"], rtol=1e-9
    )


def test_weights_and_averages_are_no_positions() -> None:
    average = np.full((2, 1, 5), 0.2, np.float32)
    found = run("h = MatMul(x, w)  y = MatMul(n, h)", X, {"w": real(4, 4), "n": average})
    assert not found.result.sinks


def test_layers_that_share_one_sum_of_mask_and_bias_have_a_sink_each() -> None:
    hidden = np.triu(np.full((5, 5), -1e9, np.float32), 1)
    layer = """k{0} = Transpose<perm = [0, 2, 1]>({1})  a{0} = MatMul({1}, k{0})
        z{0} = Add(a{0}, b)  s{0} = Softmax<axis = -1>(z{0})  {2} = MatMul(s{0}, {1})  """
    body = "b = Add(r, mask)  " + layer.format(0, "x", "h") + layer.format(1, "h", "y")
    found = run(body, X, {"r": real(5, 5, seed=6), "mask": hidden})
    assert [(s.kind, s.name) for s in found.result.sinks] == [
        ("relative_bias", "0/query"),
        ("relative_bias", "0/key"),
        ("relative_bias", "1/query"),
        ("relative_bias", "1/key"),
    ]
    caught = sum(s.relevance.sum(axis=(1, 2)) for s in found.result.sinks)
    np.testing.assert_allclose(caught, found.result.ledger["position"], rtol=1e-9)
    assert found.residual < 1e-12
