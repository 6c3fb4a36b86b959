"""Methods: who takes a share of a product."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from building import Walk, real, run, wide
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate import baselines
from palrp_onnx.relevance.method import Method, Parameter
from palrp_onnx.relevance.method_parsing import (
    compared_method_text,
    method,
    register_method,
    resolve_method,
)
from palrp_onnx.relevance.methods import BASELINES, METHODS

pytestmark = pytest.mark.quick

X = real(2, 5, 4, seed=3)
W = real(4, 4)
ATTENTION = """
    q = MatMul(x, w)  k = Transpose<perm=[0, 2, 1]>(q)  a = MatMul(q, k)  s = Softmax(a)
    y = MatMul(s, x)
"""
GATE = "a = MatMul(x, w)  g = Sigmoid(a)  b = MatMul(x, v)  y = Mul(g, b)"
SWIGLU = "a = MatMul(x, w)  g = Sigmoid(a)  c = Mul(a, g)  b = MatMul(x, v)  y = Mul(b, c)"
KEPT = Parameter(0.5, 0.0, 1.0, "a share")
ROTATED = "h = Mul(x, p)  y = MatMul(h, w)"


def explained(body: str, asked: Method | str) -> Walk:
    weights = {"w": W, "v": real(4, 4, seed=9), "p": real(5, 4, seed=5)}
    used = {k: a for k, a in weights.items() if f" {k})" in body}
    return run(body, X, used, method=asked)


def softmax_of(found: Walk) -> np.ndarray:
    q = wide(X) @ wide(W)
    e = np.exp(q @ q.swapaxes(1, 2))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def test_cp_lrp_takes_probabilities_for_constants() -> None:
    found = explained(ATTENTION, "cp-lrp")
    expected = softmax_of(found).swapaxes(1, 2) @ found.seed
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9)
    assert not found.result.ledger["softmax"].any()


@pytest.mark.parametrize("method", ["pa-lrp", "attnlrp", "pe-only"])
def test_others_give_probabilities_half(method: str) -> None:
    found = explained(ATTENTION, method)
    assert found.result.ledger["softmax"].any()
    direct = 0.5 * softmax_of(found).swapaxes(1, 2) @ found.seed
    assert not np.allclose(found.multiplier, direct)
    assert found.residual < 1e-12


@pytest.mark.parametrize("body", [GATE, SWIGLU])
def test_gates(body: str) -> None:
    """cp-lrp: the ungated branch takes all, m ∘ g; the others share."""
    a = wide(X) @ wide(W)
    g = 1 / (1 + np.exp(-a)) * (a if body == SWIGLU else 1)
    branch = (g * explained(body, "cp-lrp").seed) @ wide(real(4, 4, seed=9)).T
    np.testing.assert_allclose(explained(body, "cp-lrp").multiplier, branch, rtol=1e-9)
    shared = explained(body, "attnlrp")
    np.testing.assert_allclose(shared.content, explained(body, "pa-lrp").content)
    assert not np.allclose(shared.multiplier, branch)


def test_positions_that_multiply() -> None:
    halved, whole = explained(ROTATED, "pa-lrp"), explained(ROTATED, "attnlrp")
    np.testing.assert_allclose(2 * halved.content, whole.content)
    assert halved.result.ledger["position"].any() and not whole.result.ledger["position"].any()
    np.testing.assert_allclose(explained(ROTATED, "pe-only").content, halved.content)
    np.testing.assert_allclose(explained(ROTATED, "cp-lrp").content, whole.content)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [ATTENTION, GATE, SWIGLU, ROTATED])
def test_every_method_closes_the_books(method: str, body: str) -> None:
    assert explained(body, method).residual < 1e-12


# --- asked for by text ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "numbers", "called"),
    [
        ("pa-lrp", {}, "pa-lrp"),
        ("pa-lrp-kept:kept=.25", {"kept": 0.25}, "pa-lrp-kept:kept=0.25"),
        ("pa-lrp-kept:kept=-0.0", {"kept": 0.0}, "pa-lrp-kept:kept=0"),
        (
            "pa-lrp-gamma: gamma_conv = 2 , gamma=1e-1",
            {"gamma": 0.1, "gamma_conv": 2.0},
            "pa-lrp-gamma:gamma=0.1,gamma_conv=2",
        ),
        ("eps-lrp:epsilon=1e-6", {"epsilon": 1e-6}, "eps-lrp"),
    ],
)
def test_numbers_are_read(text: str, numbers: dict[str, float], called: str) -> None:
    found = method(text)
    assert found.numbers == numbers
    assert found.text == called == compared_method_text(text)
    assert method(called) == found


@given(
    gamma=st.floats(0, 1e3),
    gamma_conv=st.floats(0, 1e3),
)
def test_a_text_says_the_very_numbers(gamma: float, gamma_conv: float) -> None:
    asked = method("pa-lrp-gamma").having(gamma=gamma, gamma_conv=gamma_conv)
    assert method(asked.text).numbers == {"gamma": gamma, "gamma_conv": gamma_conv}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lrp", "Unknown method 'lrp'.*Methods: pa-lrp, .*cp-lrp-gamma"),
        ("", "Unknown method ''"),
        ("pa-lrp:gamma=1", "Unknown parameter 'gamma'.*method pa-lrp .*has no parameters"),
        ("pa-lrp-gamma:beta=1", r"Unknown parameter 'beta'.*gamma \(0 … 1000\), gamma_conv"),
        ("pa-lrp-gamma:self=1", "Unknown parameter 'self'"),
        ("pa-lrp-gamma:", "'' is not PARAMETER=NUMBER"),
        ("pa-lrp-gamma:gamma", "'gamma' is not PARAMETER=NUMBER"),
        ("pa-lrp-gamma:=1", "'=1' is not PARAMETER=NUMBER"),
        ("pa-lrp-gamma:gamma=", "gamma= is not a number"),
        ("pa-lrp-gamma:gamma=much", "gamma=much is not a number"),
        ("pa-lrp-gamma:gamma=nan", "gamma is not finite"),
        ("pa-lrp-gamma:gamma=inf", "gamma is not finite"),
        ("pa-lrp-gamma:gamma=-0.1", "gamma = -0.1 is out of range.*0 … 1000"),
        ("pa-lrp-kept:kept=1.5", "kept = 1.5 is out of range.*0 … 1"),
        ("eps-lrp:epsilon=0", "epsilon = 0 is out of range"),
        ("pa-lrp-gamma:gamma=1,gamma=2", "gamma is given twice"),
        ("rollout", "Unknown method 'rollout'"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        method(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_baselines_have_no_numbers() -> None:
    assert compared_method_text("rollout") == "rollout"
    assert set(BASELINES) == {*baselines.BASELINES, baselines.SINGLE_SINK}
    with pytest.raises(UsageError, match="ig has no parameters"):
        compared_method_text("ig:steps=3")
    with pytest.raises(UsageError, match=r"Methods: .*rollout"):
        compared_method_text("roll")


# --- what cannot be -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "a:b"}, "'a:b' cannot name"),
        ({"name": ""}, "'' cannot name"),
        ({"parameters": {"a=b": KEPT}}, "'a=b' cannot name"),
        ({"map": "all"}, "Unknown map 'all'"),
        ({"shares": ("attention", "heads")}, "Unknown share 'heads'"),
        ({"rules": ("gamma", "gamma")}, "named twice"),
        ({"rules": ("kept",), "shares": ()}, "'kept' say how attention shares"),
        ({"spared": True}, "none can be spared"),
        ({"changed": {"gamma": 1.0}}, "Unknown parameter 'gamma'"),
        ({"parameters": {"kept": KEPT}, "changed": {"kept": 2.0}}, "out of range"),
    ],
)
def test_choices_that_contradict(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        replace(method("pa-lrp"), **{"name": "mine", **changes})


@pytest.mark.parametrize("numbers", [(2.0, 0.0, 1.0), (0.5, 0.0, np.inf), (np.nan, 0.0, 1.0)])
def test_parameters_that_cannot_be(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="of mine"):
        Parameter(*numbers, "a share of mine")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (("nothing",), "No rules are registered under 'nothing'.*There are: absolute, "),
        (("adaptive", "kept"), "'kept' never decide"),
    ],
)
def test_rules_that_decide_nothing(rules: tuple[str, ...], problem: str) -> None:
    mine = replace(method("pa-lrp"), name="mine", rules=rules, parameters={"kept": KEPT})
    for use in (resolve_method, register_method):
        with pytest.raises(UsageError, match=problem):
            use(mine)


def test_a_name_means_one_method() -> None:
    with pytest.raises(UsageError, match="differs from the one that has its name"):
        resolve_method(replace(method("pa-lrp"), map="position"))
    changed = method("pa-lrp-kept:kept=0.25")
    assert resolve_method(changed) == changed
    for name in ("pa-lrp", "rollout", "random"):
        with pytest.raises(UsageError, match="There is a method of this name"):
            register_method(replace(method("pa-lrp"), name=name))


def test_a_rule_that_asks_for_what_the_method_has_not() -> None:
    mine = replace(method("pa-lrp"), name="mine", rules=("gamma",))
    with pytest.raises(UsageError, match="Unknown parameter 'gamma'"):
        explained(GATE, mine)


def test_the_docstring_lists_all() -> None:
    assert all(f"        {name} " in (method.__doc__ or "") for name in METHODS)
