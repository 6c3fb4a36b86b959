"""Roles: positions are distinguished from masks, token types, biases, class tokens and normalisers.

Graphs are written as text. Every name in them is meaningless on purpose: structure and values
decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.arrays import is_mask, varying_axes
from palrp_onnx.analysis.axes import BATCH, TOKEN
from palrp_onnx.analysis.inputs import input_roles
from palrp_onnx.analysis.roles import Role
from palrp_onnx.analysis.rotating_tables import turns
from palrp_onnx.analysis.sites import find_sites
from palrp_onnx.errors import RoleError
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import analyse_model

pytestmark = pytest.mark.quick

Array = NDArray[Any]
HIDDEN = 8
GENERATOR = np.random.default_rng(0)


def noise(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32)


def analysed(
    tmp_path: Path, inputs: str, body: str, feeds: dict[str, Array], **tables: Array
) -> Analysis:
    """Annotate the graph ``body``, with output ``y`` and initializers from arrays."""
    text = (
        f'<ir_version: 10, opset_import: ["" : 18]> g ({inputs}) => (float[b, t, h] y) {{ {body} }}'
    )
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in tables.items())
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return analyse_model(Model.open(path), feeds)


def roles(analysis: Analysis, op_type: str) -> list[list[str]]:
    """Roles of the operands of every node of a kind, in graph order."""
    return [
        [analysis.operands[node, i].role.value for i in range(len(node.inputs))]
        for node in analysis.model.graph
        if node.op_type == op_type and (node, 0) in analysis.operands
    ]


IDS = GENERATOR.integers(5, 30, size=(2, 6))
TOKENS = "int64[b, t] i"
LOOKUP = "e = Gather(w, i) "
STATIC = "int64[2, 6] i"


def test_a_table_that_varies_along_the_sequence_is_a_position(tmp_path: Path) -> None:
    analysis = analysed(
        tmp_path,
        STATIC,
        LOOKUP + "y = Add(e, p)",
        {"i": IDS},
        w=noise(30, HIDDEN),
        p=noise(1, 6, HIDDEN),
    )
    assert roles(analysis, "Add") == [["content", "position"]]
    (site,) = find_sites(analysis)
    assert (site.kind, site.layer, site.part) == ("learned", 0, "table")


def test_a_row_repeated_for_every_token_is_not(tmp_path: Path) -> None:
    """RoBERTa's token type folds to [1, S, H], the shape of a position table."""
    row = np.repeat(noise(1, 1, HIDDEN), 6, axis=1)
    analysis = analysed(
        tmp_path, STATIC, LOOKUP + "y = Add(e, p)", {"i": IDS}, w=noise(30, HIDDEN), p=row
    )
    assert roles(analysis, "Add") == [["content", "parameter"]]


def test_equal_lengths_do_not_confuse_axes(tmp_path: Path) -> None:
    """As many tokens as features: a bias over features is no position."""
    ids = GENERATOR.integers(5, 30, size=(2, HIDDEN))
    body = LOOKUP + "q = Add(e, c) y = Add(q, p)"
    tables = {"w": noise(30, HIDDEN), "c": noise(HIDDEN), "p": noise(HIDDEN, HIDDEN)}
    analysis = analysed(tmp_path, f"int64[2, {HIDDEN}] i", body, {"i": ids}, **tables)
    assert roles(analysis, "Add") == [["content", "parameter"], ["content", "position"]]


def test_position_ids_and_token_types_that_index_tables(tmp_path: Path) -> None:
    inputs = f"{TOKENS}, int64[b, t] j, int64[b, t] k"
    body = LOOKUP + "p = Gather(u, j) s = Gather(v, k) q = Add(e, p) y = Add(q, s)"
    feeds = {"i": IDS, "j": np.tile(np.arange(6), (2, 1)), "k": (IDS > 15).astype(np.int64)}
    tables = {"w": noise(30, HIDDEN), "u": noise(30, HIDDEN), "v": noise(2, HIDDEN)}
    analysis = analysed(tmp_path, inputs, body, feeds, **tables)
    found = {name: fact.role for name, fact in analysis.inputs.facts.items()}
    assert found == {"i": Role.CONTENT, "j": Role.POSITION, "k": Role.SEGMENT}
    assert roles(analysis, "Add") == [["content", "position"], ["content", "segment"]]


def test_terms_of_a_sum_of_position_and_segment_are_judged(tmp_path: Path) -> None:
    inputs = f"{TOKENS}, int64[b, t] j, int64[b, t] k"
    body = LOOKUP + "p = Gather(u, j) s = Gather(v, k) q = Add(p, s) y = Add(e, q)"
    feeds = {"i": IDS, "j": np.tile(np.arange(6), (2, 1)), "k": (IDS > 15).astype(np.int64)}
    tables = {"w": noise(30, HIDDEN), "u": noise(12, HIDDEN), "v": noise(2, HIDDEN)}
    analysis = analysed(tmp_path, inputs, body, feeds, **tables)
    facts = analysis.inputs.facts
    assert facts["j"].role is Role.POSITION
    assert sorted(roles(analysis, "Add")) == [["content", "mixed"], ["position", "segment"]]


ATTENTION = (
    LOOKUP + "k = Transpose<perm = [0, 2, 1]>(e) s = MatMul(e, k) z = Add(s, o) "
    "a = Softmax<axis = -1>(z) y = MatMul(a, e)"
)


@pytest.mark.parametrize("low", [-np.inf, np.finfo(np.float32).min, -1e4, -100.0])
def test_an_operand_that_switches_scores_off_is_a_mask(tmp_path: Path, low: float) -> None:
    causal = np.triu(np.full((6, 6), low, np.float32), 1)[None]
    analysis = analysed(tmp_path, STATIC, ATTENTION, {"i": IDS}, w=noise(30, HIDDEN), o=causal)
    assert roles(analysis, "Add") == [["content", "mask"]]
    assert not find_sites(analysis)


def test_an_operand_that_shifts_scores_by_distance_is_a_position(tmp_path: Path) -> None:
    bias = noise(1, 6, 6)
    analysis = analysed(tmp_path, STATIC, ATTENTION, {"i": IDS}, w=noise(30, HIDDEN), o=bias)
    assert roles(analysis, "Add") == [["content", "position"]]
    assert {site.kind for site in find_sites(analysis)} == {"relative_bias"}


def test_a_padding_mask_is_a_mask_although_the_example_has_no_padding(tmp_path: Path) -> None:
    inputs = f"{TOKENS}, int64[b, t] m"
    body = (
        "c = Cast<to = 1>(m) n = Sub(one, c) f = Mul(n, low) o = Unsqueeze(f, axis) "
        + ATTENTION.replace("Add(s, o)", "Add(s, o)")
    )
    tables = {
        "w": noise(30, HIDDEN),
        "one": np.float32(1),
        "low": np.float32(-1e9),
        "axis": np.array([1]),
    }
    analysis = analysed(tmp_path, inputs, body, {"i": IDS, "m": np.ones_like(IDS)}, **tables)
    assert analysis.inputs.facts["m"].role is Role.MASK
    assert roles(analysis, "Add") == [["content", "mask"]]


def test_a_class_token_is_a_parameter(tmp_path: Path) -> None:
    body = LOOKUP + "x = Concat<axis = 1>(c, e) y = Add(x, p)"
    tables = {"w": noise(30, HIDDEN), "c": noise(2, 1, HIDDEN), "p": noise(1, 7, HIDDEN)}
    analysis = analysed(tmp_path, STATIC, body, {"i": IDS}, **tables)
    assert roles(analysis, "Concat") == [["parameter", "content"]]
    assert roles(analysis, "Add") == [["content", "position"]]


def test_a_bias_per_head_is_no_position(tmp_path: Path) -> None:
    """DeBERTa adds [1, heads, 1, width] to its queries."""
    body = (
        LOOKUP + "r = Reshape(e, shape) q = Transpose<perm = [0, 2, 1, 3]>(r) z = Add(q, c) "
        "v = Transpose<perm = [0, 2, 1, 3]>(z) y = Reshape(v, back)"
    )
    tables = {
        "w": noise(30, HIDDEN),
        "c": noise(1, 2, 1, 4),
        "shape": np.array([0, 0, 2, 4]),
        "back": np.array([0, 0, HIDDEN]),
    }
    analysis = analysed(tmp_path, TOKENS, body, {"i": IDS}, **tables)
    assert roles(analysis, "Add") == [["content", "parameter"]]


def test_axes_survive_packed_queries_and_a_batch_of_one(tmp_path: Path) -> None:
    """[1, T, 3H] → [3, 1, h, T, d] → split, squeezed: the batch is not the first of length 1."""
    body = (
        LOOKUP + "m = MatMul(e, v) r = Reshape(m, shape) "
        "q = Transpose<perm = [2, 0, 3, 1, 4]>(r) a, c, d = Split<axis = 0, num_outputs = 3>(q) "
        "f = Squeeze(a, zero) k = Transpose<perm = [0, 2, 1, 3]>(f) y = Reshape(k, back)"
    )
    tables = {
        "w": noise(30, HIDDEN),
        "v": noise(HIDDEN, 3 * HIDDEN),
        "shape": np.array([1, 6, 3, 2, 4]),
        "zero": np.array([0]),
        "back": np.array([1, 6, HIDDEN]),
    }
    analysis = analysed(tmp_path, "int64[1, 6] i", body, {"i": IDS[:1]}, **tables)
    axes = {value.name: flags for value, flags in analysis.axes.items()}
    assert axes["f"] == (BATCH, 0, TOKEN, 0)
    assert axes["y"] == (BATCH, TOKEN, 0)


def test_no_input_to_explain(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]>'
        "g (int64[b, t] i) => (int64[b, t] y) { y = Abs(i) }"
    )
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    with pytest.raises(RoleError, match="No graph input"):
        input_roles(Model.open(path).graph)


def test_is_mask() -> None:
    assert is_mask(np.array([0.0, -np.inf]))
    assert is_mask(np.array([0.0, -100.0, -1e9]))
    assert not is_mask(np.array([0.0, 0.0]))
    assert not is_mask(np.array([0.3, -1e9]))


def test_varying_axes_looks_only_at_token_axes() -> None:
    table = noise(1, 6, HIDDEN)
    assert varying_axes(table, (BATCH, TOKEN, 0)) == (-2,)
    assert varying_axes(table[:, :1], (BATCH, TOKEN, 0)) == ()
    assert varying_axes(table, (BATCH, 0, 0)) == ()


@pytest.mark.parametrize("base", [10.0, 1e4, 1e6])
def test_sinusoids_turn_and_noise_does_not(base: float) -> None:
    places = np.arange(12)[:, None]
    angles = places * base ** (-np.arange(4) / 4)
    assert turns(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    assert turns(np.cos(angles) * 3)
    assert not turns(noise(12, 4))
