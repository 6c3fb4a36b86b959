"""The table of traits against what operations compute, and against the ONNX specification."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import Array, floats, proto, real
from onnx.reference import ReferenceEvaluator
from rule_cases import CASES, Case, of

import palrp_onnx.model.lowering
from palrp_onnx.analysis.sources import source_axes
from palrp_onnx.model.lowering.table import lowerable
from palrp_onnx.model.ops import ELEMENTWISE, KINDS, MOVES, NARY, TABLE, Row, Trait
from palrp_onnx.rules import supported
from palrp_onnx.runtime.reference_operations import CORRECTED

pytestmark = pytest.mark.quick

STANDARD = {name: row for (domain, name), row in TABLE.items() if not domain}
LATEST = {name: onnx.defs.get_schema(name) for name in STANDARD if onnx.defs.has(name)}
#: Operations without a rule, and uses of those with one in which a trait shows.
MORE = [
    of("Ceil", "y = Ceil(x)"),
    of("Floor", "y = Floor(x)"),
    of("Sign", "y = Sign(x)"),
    of("Clip", "y = Clip(x, a)", a=np.array(0.5, np.float32)),
    of("Hardmax", "y = Hardmax<axis=1>(x)"),
    of("ReduceProd", "y = ReduceProd<keepdims=0>(x, a)", a=np.array([1])),
    of("Add", "y = Add(x, w)", w=floats(0.5)),
    *[
        of(
            name,
            f"y = {name}<hidden_size=3>(x, w, r, b)",
            w=real(1, gates * 3, 4),
            r=real(1, gates * 3, 3),
            b=real(1, gates * 6),
        )
        for name, gates in (("GRU", 3), ("LSTM", 4), ("RNN", 1))
    ],
]


#: Models of one node.
SPECIMENS = [case for case in [*CASES, *MORE] if "  " not in case.body]
OPERATIONS = dict.fromkeys(case.op for case in SPECIMENS)


class Specimen:
    """One node that can be run with changed operands."""

    def __init__(self, case: Case) -> None:
        self.case, self.row = case, STANDARD[case.op]
        self.model = proto(case.body, {"x": case.feed}, case.weights, opset=case.opset, free=())
        names = [*dict.fromkeys(n for n in self.model.graph.node[0].input if n)]
        weights = {i.name: i for i in self.model.graph.initializer}
        for name in names:  # so that they may be changed
            if name in weights and case.weights[name].dtype.kind == "f":
                kind = onnx.helper.make_tensor_type_proto(1, case.weights[name].shape)
                self.model.graph.input.append(onnx.helper.make_value_info(name, kind))
        self.values = {"x": case.feed, **case.weights}
        #: Real operands by name, the first first.
        self.real = [n for n in names if self.values[n].dtype.kind == "f"]
        self._run = self._runner()

    def _runner(self) -> Callable[[dict[str, Array]], Array]:
        if self.case.dtype == "float64":
            reference = ReferenceEvaluator(self.model, new_ops=CORRECTED)
            return lambda feeds: np.asarray(reference.run(["y"], feeds)[0])
        session = onnxruntime.InferenceSession(self.model.SerializeToString())
        return lambda feeds: np.asarray(session.run(["y"], feeds)[0])

    def __call__(self, **changed: Array) -> Array:
        with np.errstate(all="ignore"):
            return self._run({name: self.values[name] for name in self.real} | changed)

    @property
    def data(self) -> list[str]:
        """Real operands that are no parameters: all where several are alike, else the first."""
        several = NARY ^ Trait.SCALE | Trait.JOIN | Trait.SCATTER | Trait.PAD
        return self.real if self.row.kind & (several | _FACTORS) else self.real[:1]

    def random(self, seed: int) -> dict[str, Array]:
        generator = np.random.default_rng(seed)
        return {
            name: generator.uniform(0.25, 1.25, self.values[name].shape).astype(np.float32)
            for name in self.data
        }

    def vanishes(self) -> bool:
        named = self.real[:1] if self.row.kind & Trait.SCALE else self.data
        zeros = {name: np.zeros_like(self.values[name]) for name in named}
        return not np.any(self(**zeros))

    def is_linear(self) -> bool:
        one, other = self.random(1), self.random(2)
        mixed = {k: np.float32(1.5) * one[k] - np.float32(0.75) * other[k] for k in one}
        expected = 1.5 * self(**one) - 0.75 * self(**other)
        return bool(np.allclose(self(**mixed), expected, rtol=1e-4, atol=1e-5))


_FACTORS = Trait.SCALE | Trait.PRODUCT | Trait.LAYER


@cache
def specimen_of(number: int) -> Specimen:
    return Specimen(SPECIMENS[number])


def specimens(op: str) -> list[Specimen]:
    return [specimen_of(k) for k, case in enumerate(SPECIMENS) if case.op == op]


def tried(fits: Callable[[Row], bool]) -> pytest.MarkDecorator:
    """A parameter ``specimen`` for every model of an operation whose row fits."""
    numbers = [k for k, case in enumerate(SPECIMENS) if fits(STANDARD[case.op])]
    names = [str(SPECIMENS[k]) for k in numbers]
    return pytest.mark.parametrize("specimen", numbers, ids=names, indirect=True)


@pytest.fixture
def specimen(request: pytest.FixtureRequest) -> Specimen:
    return specimen_of(request.param)


# --- completeness --------------------------------------------------------------------------------
def written_by_lowering() -> set[str]:
    """Operations of the standard that are named where operations are rewritten."""
    found: set[str] = set()
    for path in Path(palrp_onnx.model.lowering.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if onnx.defs.has(node.value) else set()
    return found - {name for domain, name in lowerable() if not domain}


def test_every_operation_with_a_rule_has_a_row() -> None:
    assert {(domain, name) for domain, name, _ in supported()} <= TABLE.keys()


def test_every_operation_that_lowering_writes_has_a_row() -> None:
    other = {"Constant", "If", "Loop", "Scan", "Upsample"}  # passes name and remove them
    left = written_by_lowering() - other
    assert {name for name in left if not re.search("Sequence|Optional", name)} <= STANDARD.keys()


def test_every_rule_has_a_specimen() -> None:
    assert {name for _, name, _ in supported()} <= OPERATIONS.keys()


@pytest.mark.parametrize("name", STANDARD)
def test_a_row_has_one_kind(name: str) -> None:
    assert bin((STANDARD[name].traits & KINDS).value).count("1") == 1


def test_no_other_module_lists_operations() -> None:
    """Where traits decide, a name that was forgotten is a bug that nobody sees."""
    root = Path(palrp_onnx.__file__).parent
    for path in [
        p for part in ("analysis", "rewrite", "relevance") for p in (root / part).glob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = list(_listed(node))
            known = [n for n in names if n in STANDARD]
            assert len(known) < 5, f"{path.name}:{getattr(node, 'lineno', 0)} lists {known}"


def _listed(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
        yield from node.value.split()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        yield from (
            e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)
        )


# --- what can be computed ------------------------------------------------------------------------
@pytest.mark.parametrize("op", OPERATIONS)
def test_zero_at_zero(op: str) -> None:
    assert all(s.vanishes() for s in specimens(op)) == bool(STANDARD[op].traits & Trait.ZERO)


@pytest.mark.parametrize("op", OPERATIONS)
def test_linear(op: str) -> None:
    assert all(s.is_linear() for s in specimens(op)) == bool(STANDARD[op].traits & Trait.LINEAR)


@tried(lambda row: True)
def test_rows_of_the_result_are_made_of_the_rows_that_are_named(specimen: Specimen) -> None:
    """One entry of an operand is changed; what changes in the result lies in its row alone."""
    whole = specimen()
    node = ir.from_proto(specimen.model).graph.node(0)
    shapes = {v: specimen.values[v.name].shape for v in node.inputs if v is not None and v.name}
    output = next(v for v in node.outputs if v.name == "y")
    shapes[output] = whole.shape
    sources = [source_axes(node, output, k, shapes) for k in range(whole.ndim)]
    if specimen.row.kind & (ELEMENTWISE | Trait.LIKE):
        assert None not in sources
    for index, value in enumerate(node.inputs):
        if value is None or value.name not in specimen.data:
            continue
        array = specimen.values[value.name]
        for place in np.random.default_rng(5).permutation(list(np.ndindex(array.shape)))[:6]:
            changed = array.copy()
            changed[tuple(place)] += 0.375
            moved = np.argwhere(
                ~np.isclose(specimen(**{value.name: changed}), whole, equal_nan=True)
            )
            for axis, found in enumerate(sources):
                own = found[index] if found is not None else None
                if own is not None:
                    assert (moved[:, axis] == place[own]).all(), (value.name, axis)


@tried(lambda row: row.moved != ())
def test_entries_are_those_of_operands_that_are_moved(specimen: Specimen) -> None:
    row, node = specimen.row, specimen.model.graph.node[0]
    if "reduction" in specimen.case.body:
        return  # adds to what it moves
    names = [n for k, n in enumerate(node.input) if n and row.moves(k)]
    entries = np.concatenate([specimen.values[n].ravel() for n in names])
    others = () if row.kind & (MOVES | Trait.JOIN | Trait.CHOICE | Trait.SCATTER) else (0.0,)
    assert np.isin(specimen(), [*entries, *others]).all()


@tried(lambda row: bool(row.traits & (Trait.RETYPES | Trait.LIKE | Trait.ROUNDS)))
def test_retyped_numbers_stay(specimen: Specimen) -> None:
    result = specimen()
    if specimen.row.traits & (Trait.RETYPES | Trait.LIKE):
        np.testing.assert_array_equal(result, specimen.case.feed)
    np.testing.assert_array_equal(specimen(x=result), result)
    order = np.argsort(specimen.case.feed, axis=None)
    assert (np.diff(result.ravel()[order]) >= 0).all()


@tried(lambda row: bool(row.traits & Trait.CHOOSES))
def test_very_low_entries_are_switched_off(specimen: Specimen) -> None:
    low, lower = specimen.case.feed.copy(), specimen.case.feed.copy()
    low[0, 0, 0], lower[0, 0, 0] = -100, -200
    same = np.isclose(specimen(x=low), specimen(x=lower))
    own = np.zeros(same.shape, bool)
    if same.shape == low.shape:
        own[0, 0, 0] = True
    assert (same | own).all()


# --- what the specification says -----------------------------------------------------------------
@pytest.mark.parametrize("name", LATEST)
def test_the_specification_agrees(name: str) -> None:
    row, schema = STANDARD[name], LATEST[name]
    entrywise = ELEMENTWISE | Trait.INTEGER | Trait.COMPARISON | Trait.LOGIC | Trait.TEST
    types = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    taken, made = (
        types.get(v[0].type_str, {v[0].type_str}) if v else set()
        for v in (schema.inputs, schema.outputs)
    )
    if row.kind & entrywise:
        assert bool(row.traits & Trait.BROADCASTS) == ("broadcasting" in (schema.doc or ""))
        truth = Trait.COMPARISON | Trait.LOGIC | Trait.TEST
        assert bool(row.kind & truth) == (made == {"tensor(bool)"})
    if row.traits & Trait.WHOLE:
        whole = {"tensor(int64)", "tensor(uint64)"}
        assert whole & taken and whole & made
    indices = [k for k, operand in enumerate(schema.inputs) if operand.name == "indices"]
    assert row.index == next(iter(indices), None)
    if schema.inputs and row.kind & (Trait.POOLING | Trait.LAYER | Trait.REORDER):
        assert bool(row.traits & Trait.CHANNELS) == bool(
            re.search(r"N ?[x,] ?C", schema.inputs[0].description)
        )
