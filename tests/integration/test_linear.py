"""Work grows with the nodes of a graph, not faster: counted in calls, never in seconds."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from building import floats, ints, opened, proto, real

from benchmarks.analysis_time import KINDS
from palrp_onnx import Model
from palrp_onnx.analysis.sites import find_sites
from palrp_onnx.analysis.slopes import alibi_operands
from palrp_onnx.prepare import Planned, analyse_model, plan_model
from palrp_onnx.relevance.attention import find_scores
from palrp_onnx.relevance.linear_layers import attention_layers
from palrp_onnx.relevance.methods import METHODS

#: Nodes of the smaller and of the larger graph.
FEW, MANY = 200, 800
#: Paths through so many sums of a value with itself cannot be followed one by one.
DEEP = 60
B, T, F = 2, 9, 4


def calls(function: Callable[[], object]) -> int:
    """How many functions are called, those of C among them."""
    profile = cProfile.Profile()
    profile.enable()
    function()
    profile.disable()
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_a_node(kind: str) -> None:
    found = {}
    for count in (FEW, MANY):
        model = opened(KINDS[kind](count))
        path = model.path
        analyse_model(model)  # what is made once per process
        opening = calls(lambda path=path: Model.open(path))  # type: ignore[misc]
        planning = calls(lambda model=model: plan_model(model, None, METHODS["pa-lrp"]))  # type: ignore[misc]
        found[count] = np.array([opening, planning]) / len(model.graph)
    assert (found[MANY] < 1.25 * found[FEW]).all(), found


def test_calls_of_routes_a_node() -> None:
    """From every layer to the words, through the same residual stream."""
    line = "a_OUT = MatMul(IN, wq)  b_OUT = Add(a_OUT, p)  OUT = Add(IN, b_OUT)"
    weights = {"w": real(30, F), "wq": real(F, F), "p": real(1, T, F, seed=4)}
    feeds = {"ids": np.zeros((B, T), np.int64)}
    found = []
    for count in (FEW // 4, MANY // 4):
        body = f"x = Gather(w, ids)  {chain(line, count, 'x')}  y = Identity(x_{count - 1})"
        planned = plan_model(opened(proto(body, feeds, weights)), None, METHODS["pa-lrp"])
        assert len(planned.sites) == count

        def follow(planned: Planned = planned) -> None:
            for site in planned.sites:
                route = planned.routes(site, site.tokens)
                assert route is not None and not route.moves

        found.append(calls(follow) / count)
    assert found[1] < 1.25 * found[0], found


def chain(line: str, count: int, first: str) -> str:
    """A line of nodes again and again: ``OUT`` of one is ``IN`` of the next."""
    names = [first, *(f"{first}_{k}" for k in range(count))]
    return "  ".join(
        line.replace("IN", one).replace("OUT", other) for one, other in pairwise(names)
    )


SCORES = "q = MatMul(x, wq)  k0 = Transpose <perm=[0, 2, 1]> (x)  s = MatMul(q, k0)  "
WEIGHTS = {
    "wq": real(F, F, seed=1),
    "table": real(1, T, F, seed=2),
    "bias": real(1, T, T, seed=3),
    "slope": -np.abs(np.arange(T)[:, None] - np.arange(T)).astype(np.float32)[None],
    "hidden": np.triu(np.full((T, T), -1e9, np.float32), 1)[None],
    "half": floats(0.5)[0],
    "none": np.zeros((1, 1, 1), bool),
    "i0": ints(0),
    "i1": ints(1),
    "i9": ints(T),
}
JOINED = "t_OUT = Concat <axis=1> (IN, IN)  OUT = Slice(t_OUT, i0, i9, i1)"
HALF = "t_OUT = Add(IN, IN)  OUT = Mul(t_OUT, half)"
DIAMONDS = {
    "positions": f"{chain('OUT = Add(IN, IN)', DEEP, 'table')}  y = Add(x, table_{DEEP - 1})",
    "mixed sums": f"""{SCORES} m = Add(bias, hidden)
        {chain("OUT = Add(IN, IN)", DEEP, "m")}  z = Add(s, m_{DEEP - 1})
        p = Softmax <axis=-1> (z)  y = MatMul(p, x)""",
    "content": f"{chain(HALF, DEEP, 'x')}  y = Add(x_{DEEP - 1}, table)",
    "slopes": f"""{SCORES} z = Add(s, slope)  {chain("OUT = Where(none, IN, IN)", DEEP, "z")}
        p = Softmax <axis=-1> (z_{DEEP - 1})  y = MatMul(p, x)""",
    "probabilities": f"""{SCORES} z = Add(s, bias)  p = Softmax <axis=-1> (z)
        {chain("OUT = Where(none, IN, IN)", DEEP, "p")}  y = MatMul(p_{DEEP - 1}, x)""",
    "next to attention": f"""{chain(JOINED, DEEP, "x")}
        {SCORES} p = Softmax <axis=-1> (s)  a = MatMul(p, x_{DEEP - 1})
        {chain(JOINED, DEEP, "a")}  y = MatMul(a_{DEEP - 1}, wq)""",
}


@pytest.mark.parametrize("name", DIAMONDS)
def test_no_path_is_followed_twice(name: str) -> None:
    analysis = analyse_model(opened(proto(DIAMONDS[name], {"x": real(B, T, F)}, WEIGHTS)))
    sites = find_sites(analysis)
    assert bool(sites) == (name != "next to attention")
    assert len(alibi_operands(analysis, sites)) == (name == "slopes")
    assert len(find_scores(analysis)) == (name not in ("positions", "content"))
    assert len(attention_layers(analysis)) == (name == "next to attention")


@pytest.mark.parametrize("line", ["OUT = Identity(IN)", "OUT = Add(IN, shift)", "OUT = Tanh(IN)"])
def test_a_long_chain(line: str) -> None:
    """More nodes in a row than Python's stack holds."""
    count = 1500
    body = f"""{chain(line, count, "table")}  h = Add(x, table_{count - 1})
        {chain(line, count, "h")}  y = MatMul(h_{count - 1}, wq)"""
    weights = {**WEIGHTS, "shift": real(1, T, F, seed=4) / count}
    model = opened(proto(body, {"x": real(B, T, F)}, weights))
    planned = plan_model(model, None, METHODS["attnlrp-gamma"])
    assert planned.sites
