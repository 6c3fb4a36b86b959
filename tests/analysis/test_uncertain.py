"""``inspect`` lists decisions that rest on thin evidence, and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real

from palrp_onnx import inspect
from palrp_onnx.analysis.sites import climbs
from palrp_onnx.inspection import Inspection

B, T, F = 2, 8, 4
IDS = np.random.default_rng(0).integers(2, 30, size=(B, T))
PLACE = np.arange(T)
LOW = np.float32(-1e9)
HIDDEN = np.triu(np.ones((T, T), bool), 1)

FIRST = "x = Gather(words, ids)  "
ATTENTION = """q = MatMul(h, wq)  k = MatMul(h, wk)  v = MatMul(h, wv)
    kt = Transpose <perm=[0, 2, 1]> (k)  s = MatMul(q, kt)  SCORES
    a = Softmax <axis=-1> (z)  o = MatMul(a, v)  d = MatMul(o, head)
    y = ReduceSum <keepdims=0> (d, i1)
"""
PLAIN = ATTENTION.replace("SCORES", "z = Identity(s)")
WEIGHTS: dict[str, Array] = {
    "words": real(30, F, seed=1),
    "wq": real(F, F, seed=2),
    "wk": real(F, F, seed=3),
    "wv": real(F, F, seed=4),
    "head": real(F, 3, seed=5),
    "table": real(1, T, F, seed=6),
    "halves": real(2, F, seed=7)[PLACE // (T // 2)][None],
    "gate": real(1, T, 1, seed=8),
    "bias": real(1, T, T, seed=9),
    "slope": (0.3 * PLACE).astype(np.float32)[None, None],
    "blocks": (PLACE[:, None] // 4 == PLACE // 4).astype(np.float32)[None] * 2,
    "mixed": np.where(HIDDEN, LOW, real(1, T, T, seed=9)),
    "weak": np.where(HIDDEN, LOW, np.float32(1))[None],
    "causal": np.where(HIDDEN, LOW, np.float32(0))[None],
    "two": np.array(2, np.float32),
    "one": np.array(1, np.float32),
    "low": np.array(LOW),
    "i1": ints(1),
    "i2": ints(2),
}


def report(body: str, feeds: Mapping[str, Array], **options: object) -> Inspection:
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", body)}
    return inspect(opened(proto(body, feeds, used)), feeds, **options)  # type: ignore[arg-type]


def scored(text: str) -> str:
    return FIRST + "h = Identity(x)  " + ATTENTION.replace("SCORES", text)


#: Bodies, with the value in doubt, a part of the doubt, and the override.
DOUBTFUL = {
    "a gate by place": (
        FIRST + "h = Mul(x, gate)  " + PLAIN,
        ("gate", "weighs tokens", "gate=mask"),
    ),
    "a table of two different rows": (
        FIRST + "h = Add(x, halves)  " + PLAIN,
        ("halves", "only 2 different rows", "halves=segment"),
    ),
    "blocks of scores": (
        scored("z = Add(s, blocks)"),
        ("blocks", "only 2 different rows", "blocks=mask"),
    ),
    "a mask that shifts what it lets through by one number": (
        scored("z = Add(s, weak)"),
        ("weak", "could not be taken apart", "weak=mask"),
    ),
    "mask and bias in one, scaled": (
        scored("b = Add(causal, bias)  w = Mul(b, two)  z = Add(s, w)"),
        ("w", "could not be taken apart", "w=mask"),
    ),
}
#: Bodies that leave no doubt.
CLEAR = {
    "a table": FIRST + "h = Add(x, table)  " + PLAIN,
    "a bias": scored("z = Add(s, bias)"),
    "mask and bias": scored("b = Add(causal, bias)  z = Add(s, b)"),
    "mask and bias, sliced": scored(
        "b = Add(causal, bias)  n = Shape <start=1, end=2> (ids)  zero = Sub(n, n)  "
        "w = Slice(b, zero, n, i2)  z = Add(s, w)"
    ),
    "mask and bias in one stored table": scored("z = Add(s, mixed)"),
    "slopes after a mask": scored("b = Add(causal, slope)  w = Mul(b, two)  z = Add(s, w)"),
    "a causal mask": scored("z = Add(s, causal)"),
    "no positions": FIRST + "h = Identity(x)  " + PLAIN,
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_in_doubt(name: str) -> None:
    body, (value, doubt, say) = DOUBTFUL[name]
    (found,) = report(body, {"ids": IDS}).uncertain
    assert (found.name, found.role, found.say) == (value, "position", say)
    assert doubt in found.doubt


@pytest.mark.parametrize("name", DOUBTFUL)
def test_the_suggested_override_leaves_no_doubt(name: str) -> None:
    body, (value, _, say) = DOUBTFUL[name]
    for role in (say.partition("=")[2], "position"):
        assert report(body, {"ids": IDS}, roles={value: role}).uncertain == []


@pytest.mark.parametrize("name", CLEAR)
def test_not_in_doubt(name: str) -> None:
    assert report(CLEAR[name], {"ids": IDS}).uncertain == []


def test_a_convolution() -> None:
    body = (
        FIRST
        + """u = Transpose <perm=[0, 2, 1]> (x)  c = Conv <pads=[1, 1]> (u, near)  g = Relu(c)
        b = Transpose <perm=[0, 2, 1]> (g)  h = Add(x, b)  """
        + PLAIN
    )
    near = {"near": real(F, F, 3)}
    used = {k: a for k, a in (WEIGHTS | near).items() if re.search(rf"\b{k}\b", body)}
    (found,) = inspect(opened(proto(body, {"ids": IDS}, used)), {"ids": IDS}).uncertain
    assert (found.name, found.role, found.say) == ("b", "position", "b=content")


@pytest.mark.parametrize(("length", "sure"), [(1, False), (3, False), (4, True)])
def test_few_tokens(length: int, sure: bool) -> None:
    found = report(FIRST + "h = Identity(x)  " + PLAIN, {"ids": IDS[:, :length]}).uncertain
    assert [u.name for u in found] == ([] if sure else ["ids"])
    assert sure or f"{length} of its tokens" in found[0].doubt


MASKS = {
    "added": "f = Cast <to=1> (m)  r = Sub(one, f)  g = Mul(r, low)  w = Unsqueeze(g, i1)  "
    "z = Add(s, w)",
    "chosen": "c = Cast <to=9> (m)  w = Unsqueeze(c, i1)  z = Where(w, s, low)",
}


@pytest.mark.parametrize("spelling", MASKS)
def test_an_integer_input_that_switches_scores_off_is_a_mask(spelling: str) -> None:
    assert report(scored(MASKS[spelling]), {"ids": IDS, "m": np.ones_like(IDS)}).uncertain == []


def test_places_that_turn_are_positions_whatever_is_fed() -> None:
    """Places in a part of a long text need not count up."""
    body = (
        FIRST
        + "f = Cast <to=1> (m)  w = Unsqueeze(f, i2)  r = Mul(w, two)  c = Cos(r)  h = Add(x, c)  "
        + PLAIN
    )
    feeds = {"ids": IDS, "m": np.tile([3, 3, 1, 5, 9, 7, 2, 8], (B, 1))}
    found = report(body, feeds)
    assert {i.name: i.role for i in found.inputs} == {"ids": "content", "m": "position"}
    assert found.uncertain == []


@pytest.mark.parametrize("low", [-np.inf, -1e9, -60.0])
def test_slopes_climb_whatever_is_switched_off(low: float) -> None:
    slopes = -0.25 * np.abs(PLACE[:, None] - PLACE)
    assert climbs(slopes) and climbs(np.where(HIDDEN, low, slopes))
    assert not climbs(np.where(HIDDEN, low, real(T, T)))
    assert not climbs(np.full((T, T), low)) and not climbs(np.zeros((T, T)))
