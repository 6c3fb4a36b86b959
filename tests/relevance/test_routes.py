"""Places are followed to units: against indicators of units that NumPy moves forwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from building import Array, ints, opened, proto, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import reduced

from palrp_onnx import Explainer
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.record import InputFacts

T, F, V = 8, 6, 30
WORDS = real(V, F, seed=1)


@dataclass(frozen=True)
class Step:
    """A movement of tokens [B, T, F].

    Attributes:
        body: Its nodes, from ``x{k}`` to ``x{k+1}``, with ``{a}`` and ``{b}`` for these names.
        forward: What it does to indicators of units [places, units].
        weights: Its weights.
    """

    body: str
    forward: Callable[[Array], Array]
    weights: dict[str, Array]


def _windows(a: Array) -> Array:
    """[T, …] as a grid of two rows, cut into windows of two by two places, one after another."""
    grid = a.reshape(1, 2, len(a) // 4, 2, -1)
    return grid.transpose(0, 2, 1, 3, 4).reshape(len(a), -1)


def _merged(a: Array) -> Array:
    return a.reshape(len(a) // 2, 2, -1).mean(axis=1)


def _pooled(a: Array) -> Array:
    padded = np.concatenate([np.full((1, a.shape[1]), np.nan), a, np.full((1, a.shape[1]), np.nan)])
    starts = range(0, len(padded) - 2, 2)
    return np.stack([np.nanmean(padded[k : k + 3], axis=0) for k in starts])


STEPS = {
    "reverse": Step("{b} = Slice({a}, minus, low, one, minus)", lambda a: a[::-1], {}),
    "roll": Step(
        "{a}p = Slice({a}, three, high, one)  {a}q = Slice({a}, zero, three, one)  "
        "{b} = Concat<axis=1>({a}p, {a}q)",
        lambda a: np.roll(a, -3, axis=0),
        {},
    ),
    "windows": Step(
        "{a}g = Reshape({a}, grid)  {a}t = Transpose<perm=[0, 2, 1, 3, 4]>({a}g)  "
        "{a}w = Reshape({a}t, windows)  {a}k = Transpose<perm=[0, 2, 1]>({a}w)  "
        "{a}s = MatMul({a}w, {a}k)  {a}a = Softmax({a}s)  {a}v = MatMul({a}a, {a}w)  "
        "{b} = Reshape({a}v, back)",
        _windows,
        {"grid": ints(0, 2, -1, 2, F), "windows": ints(-1, 4, F), "back": ints(-1, T, F)},
    ),
    "merge": Step(
        "{a}m = Reshape({a}, pairs)  {b} = MatMul({a}m, half)",
        _merged,
        {"pairs": ints(0, -1, 2 * F), "half": real(2 * F, F, seed=4)},
    ),
    "merge by slices": Step(
        "{a}e = Slice({a}, zero, high, one, two)  {a}o = Slice({a}, one, high, one, two)  "
        "{a}m = Concat<axis=2>({a}e, {a}o)  {b} = MatMul({a}m, half)",
        _merged,
        {"half": real(2 * F, F, seed=4)},
    ),
    "pad": Step(
        "{b} = Pad({a}, pads)",
        lambda a: np.concatenate([a * 0, a, a * 0])[len(a) - 1 : 2 * len(a) + 1],
        {"pads": ints(0, 1, 0, 0, 1, 0)},
    ),
    "shift": Step(
        "{b} = Pad({a}, onward)",
        lambda a: np.concatenate([a[:1] * 0, a[:-1]]),
        {"onward": ints(0, 1, 0, 0, -1, 0)},
    ),
    "class token": Step(
        "{a}n = Shape<start=0, end=1>({a})  {a}d = Concat<axis=0>({a}n, tail)  "
        "{a}f = Expand(first, {a}d)  {b} = Concat<axis=1>({a}f, {a})",
        lambda a: np.concatenate([a[:1] * 0, a]),
        {"first": real(1, 1, F, seed=3), "tail": ints(1, F)},
    ),
    "pool": Step(
        "{a}t = Transpose<perm=[0, 2, 1]>({a})  "
        "{a}p = MaxPool<kernel_shape=[3], strides=[2], pads=[1, 1]>({a}t)  "
        "{b} = Transpose<perm=[0, 2, 1]>({a}p)",
        _pooled,
        {},
    ),
    "layer": Step(
        "{a}l = MatMul({a}, square)  {a}r = Relu({a}l)  {b} = Add({a}, {a}r)",
        lambda a: a,
        {"square": real(F, F, seed=5)},
    ),
}
SHARED = {
    "minus": ints(-1),
    "low": ints(-100),
    "high": ints(100),
    "zero": ints(0),
    "one": ints(1),
    "two": ints(2),
    "three": ints(3),
}
#: Steps that need the full length, and those that may leave an odd one.
WHOLE, LAST = {"windows"}, {"pad", "class token", "pool"}


def model_of(names: list[str]) -> tuple[Model, Array]:
    """Words moved by these steps, then positions; and the share of units in every place."""
    body, moved, weights = "x0 = Gather(words, ids)  ", np.eye(T), {}
    for k, name in enumerate(names):
        step = STEPS[name]
        body += step.body.format(a=f"x{k}", b=f"x{k + 1}") + "  "
        moved = step.forward(moved)
        weights |= step.weights
    weights |= {"table": real(1, len(moved), F, seed=9), "head": real(F, 4, seed=2)}
    body += f"""x = Add(x{len(names)}, table)  r = Relu(x)  h = ReduceSum<keepdims=0>(r, one)
        y = MatMul(h, head)"""
    used = {k: a for k, a in SHARED.items() if any(f"{k}{end}" in body for end in ",)")}
    ids = np.zeros((2, T), np.int64)
    return opened(proto(body, {"ids": ids}, {"words": WORDS, **weights, **used})), moved


def explained(model: Model, ids: Array, **options: str) -> list[Explanation]:
    sample = Sample("x", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
    return Explainer(model.path, **options).explain(sample, "1")


@st.composite
def moves(draw: st.DrawFn) -> list[str]:
    names: list[str] = []
    length = T
    for name in draw(st.lists(st.sampled_from(sorted(STEPS)), max_size=4)):
        if (name in WHOLE and length != T) or (name.startswith("merge") and length % 4):
            continue
        names.append(name)
        length = length // 2 if name.startswith("merge") else length
        if name in LAST:
            break
    return names


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(moves(), st.sampled_from(["relu", "abs", "signed"]))
def test_map_is_that_of_the_places_moved_back(names: list[str], positions: str) -> None:
    check(names, positions)


@pytest.mark.parametrize("name", STEPS)
def test_every_step(name: str) -> None:
    check([name], "relu")


def check(names: list[str], positions: str) -> None:
    model, shares = model_of(names)
    ids = np.random.default_rng(len(names)).integers(0, V, size=(2, T))
    both = explained(model, ids, engine="numpy", positions=positions)
    compiled = explained(model, ids, positions=positions)
    for row, (found, fast) in enumerate(zip(both, compiled, strict=True)):
        (site,) = found.record.sites
        places = found.tensors[site.name][0].astype(np.float64)
        whole = places.sum(axis=1)
        terms = {
            "relu": np.maximum(places, 0).sum(axis=1),
            "abs": np.abs(whole),
            "signed": whole,
        }[positions]
        close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(places).sum()}
        # A place of no unit has no share.
        relevance = found.record.relevance
        np.testing.assert_allclose(reduced(relevance), shares.T @ terms, **close)
        np.testing.assert_allclose(relevance.position, shares.T @ whole, **close)
        np.testing.assert_allclose(site.relevance, shares.T @ whole, **close)
        assert sum(site.relevance) + site.off_map == pytest.approx(whole.sum(), abs=close["atol"])
        alone = explained(model, ids[row : row + 1], positions=positions)[0].record
        for other in (fast.record, alone):
            for part in ("position", "score"):
                values, expected = (getattr(e, part) for e in (other.relevance, relevance))
                np.testing.assert_allclose(values, expected, **close)
            assert other.sites[0].off_map == pytest.approx(site.off_map, abs=close["atol"])
        assert "unaligned-site" not in [w.code for w in found.record.warnings]


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_places_of_windows_that_skip_entries_are_unknown(engine: str) -> None:
    """Strides with dilations: most entries between the first and the last have no share."""
    body = """x0 = Gather(words, ids)  t = Transpose<perm=[0, 2, 1]>(x0)
        c = Conv<strides=[2], dilations=[2]>(t, kernel)  p = Transpose<perm=[0, 2, 1]>(c)
        x = Add(p, table)  r = Relu(x)  h = ReduceSum<keepdims=0>(r, one)  y = MatMul(h, head)"""
    weights = {"kernel": real(F, F, 3, seed=5), "table": real(1, 2, F), "head": real(F, 4, seed=2)}
    ids = np.random.default_rng(0).integers(0, V, size=(2, T))
    weights |= {"words": WORDS, "one": SHARED["one"]}
    for found in explained(opened(proto(body, {"ids": ids}, weights)), ids, engine=engine):
        assert "unaligned-site" in [w.code for w in found.record.warnings]
        relevance, ledger = found.record.relevance, found.record.ledger
        assert not np.any(relevance.position)
        assert ledger["position"] == pytest.approx(relevance.off_map.position) != 0


def test_single_sink_adds_up_layers_whose_places_are_the_same_alone() -> None:
    """Two layers in one order and one in another: places are added up before the reduction."""
    body = """x0 = Gather(words, ids)  a = Add(x0, t1)  b = Relu(a)  c = Add(b, t2)
        d = Slice(c, minus, low, one, minus)  e = Add(d, t3)
        h = ReduceSum<keepdims=0>(e, one)  y = MatMul(h, head)"""
    tables = {f"t{k}": real(1, T, F, seed=k) for k in (1, 2, 3)}
    used = {k: SHARED[k] for k in ("minus", "low", "one")}
    weights = {"words": WORDS, **tables, "head": real(F, 4, seed=2), **used}
    model = opened(proto(body, {"ids": np.zeros((2, T), np.int64)}, weights))
    ids = np.arange(T)[None]
    for engine in ("numpy", "onnxruntime"):
        (found,) = explained(model, ids, engine=engine, positions="single-sink")
        (raw,) = explained(model, ids, engine="numpy")
        first, last = (raw.tensors[f"site/0/{part}"][0] for part in ("table", "table.2"))
        expected = np.maximum(first, 0).sum(axis=1) + np.maximum(last, 0).sum(axis=1)[::-1]
        relevance = found.record.relevance
        np.testing.assert_allclose(reduced(relevance), expected, rtol=1e-4, atol=1e-6)
