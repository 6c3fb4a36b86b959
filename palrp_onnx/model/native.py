"""Quantised products in the forward pass: the file's own operations compute them.

Rules read real numbers, so a product of quantised numbers is rewritten as a product of real tensors
that hold the same integers. The value of the product in the file, however, is computed by the
runtime's kernel on this machine and need not be the exact sum: on x86 processors without VNNI, two
neighbouring products of unsigned and signed bytes are added in 16 bits and saturate. So the forward
pass uses the file's own operations, and the walk enters their difference from exact arithmetic into
the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.model.declared import infer_shapes, normalise_declared
from palrp_onnx.model.lowering import product_name
from palrp_onnx.model.open import Model, parse_model
from palrp_onnx.model.ops import Trait, has

#: ``accuracy_level`` of ``MatMulNBits`` at which a kernel may round activations to bytes.
_ROUNDING = 4


@dataclass(frozen=True)
class _Own:
    """How the product inside one of the file's operations is computed, without its bias.

    Attributes:
        operands: Indices of the inputs that the product reads.
        zeros: Index of a quantised operand → index of its zero point, which has the same type.
        result: Index of the zero point of the result, where it is quantised again.
        by: Another operation with the same kernel, where the file's own computes more.
        kind: Type of the result, where it is not that of the rewritten product.
    """

    operands: Sequence[int]
    zeros: Mapping[int, int] = field(default_factory=dict)
    result: int | None = None
    by: str = ""
    kind: ir.DataType | None = None


_INTEGER = _Own(range(4), {0: 2, 1: 3}, kind=ir.DataType.INT32)
_PRODUCTS: dict[str, _Own] = {
    "ConvInteger": _INTEGER,
    "DynamicQuantizeMatMul": _Own(range(4), {1: 3}),
    "DynamicQuantizeLSTM": _Own(range(12), {1: 9, 2: 11}),
    "MatMulInteger": _INTEGER,
    "MatMulIntegerToFloat": _Own(range(6), {0: 4, 1: 5}),
    "MatMulNBits": _Own(range(5)),
    "QAttention": _Own((0, 1, 3, 4, 6, 7), {0: 6, 1: 7}, by="MatMulIntegerToFloat"),
    "QGemm": _Own(range(9), {0: 2, 3: 5}, result=8),
    "QLinearConv": _Own(range(9), {0: 2, 3: 5}, result=7),
    "QLinearMatMul": _Own(range(8), {0: 2, 3: 5}, result=7),
}
#: Operations that are put back.
OPERATIONS = frozenset(_PRODUCTS)


def with_own_products(model: Model, names: Collection[str], *, whole: bool = False) -> Model:
    """A copy of ``model`` with the products of the file: see :class:`OwnProducts`.

    Args:
        model: The rewritten model.
        names: Values to retain; nodes that neither these nor the outputs need are removed.
        whole: Only put back integer products.
    """
    copy = model.copy()
    graph = copy.graph
    wanted = [v for node in graph for v in node.outputs if v.name in names]
    published = list(graph.outputs)
    graph.outputs.extend(v for v in wanted if not v.is_graph_output())
    OwnProducts(copy).put_back(whole=whole)
    del graph.outputs[len(published) :]
    return copy


def kernel_nodes(model: Model) -> frozenset[ir.Node]:
    """Nodes of the rewritten graph whose results are integer products in the file.

    The file's operations may differ from exact arithmetic, on this machine or another.
    """
    makers = (value.producer() for node, value in _pairs(model) if _is_whole(node))
    return frozenset(maker for maker in makers if maker is not None)


def rounds_inside(graph: ir.Graph) -> bool:
    """Whether an operation of ``graph`` may round activations inside, as four-bit kernels do.

    They do so only where the runtime has packed the weights first.
    """
    return any(
        node.op_type == "DynamicQuantizeLSTM" or (node.op_type == "MatMulNBits" and _is_whole(node))
        for node in graph.all_nodes()
    )


def _is_whole(node: ir.Node) -> bool:
    """Whether a product may be computed with integers."""
    level = node.attributes.get_int("accuracy_level", 0)
    return node.op_type != "MatMulNBits" or level == _ROUNDING


def _pairs(model: Model) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Products of the file, each with the value of the rewritten graph that it computes.

    They are matched by the names of values, which are the same in both graphs.
    """
    if not any(name.rpartition(".")[2] in _PRODUCTS for name in model.lowered):
        return
    made = {v.name: v for node in model.graph for v in node.outputs if v.name}
    for node in _products_of(model.path, model.sha256):
        names = _names_of(node)
        found = (made.get(name) for name in (*map(product_name, names), *names))
        maker = next((v.producer() for v in found if v is not None), None)
        if maker is not None:
            yield node, maker.outputs[0]


def _names_of(node: ir.Node) -> list[str]:
    """Names of the results that are not left out, and of their copies, which may replace them."""
    values = list(node.outputs)
    for value in values:  # grows
        values += (use.node.outputs[0] for use in value.uses() if use.node.op_type == "Identity")
    return [v.name for v in values if v.name]


@lru_cache(maxsize=1)
def _products_of(path: Path, sha256: str) -> tuple[ir.Node, ...]:
    """Products of the file with this digest, cached for the latest file.

    A name that the file uses twice, in two branches, identifies no value and is left out.
    """
    file = passes.InlinePass()(parse_model(path)).model
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    file = lift(file).model
    file = normalise_declared(file)
    infer_shapes(file)
    nodes = list(file.graph.all_nodes())
    count = Counter(v.name for node in nodes for v in node.outputs)
    return tuple(
        n for n in nodes if n.op_type in _PRODUCTS and all(count[k] == 1 for k in _names_of(n))
    )


def _unchanged(name: str) -> str:
    return name


class OwnProducts:
    """Products of a file, to be put back into its rewritten graph.

    Create it while the values of the graph have their names of the file, by which they are found.
    The graph may be extended and renamed afterwards.
    """

    def __init__(self, model: Model) -> None:
        self._model, self._graph = model, model.graph
        self._pairs = list(_pairs(model))
        made = (v for node in self._graph for v in node.outputs)
        known = (*self._graph.inputs, *self._graph.initializers.values(), *made)
        self._known = {v.name: v for v in known if v.name} if self._pairs else {}
        self._brought: dict[ir.Value, ir.Value] = {}
        self._named: Callable[[str], str] = _unchanged

    def put_back(
        self,
        *,
        portable: bool = False,
        whole: bool = False,
        named: Callable[[str], str] = _unchanged,
    ) -> None:
        """Let the file's operations compute the results of rewritten products, in place.

        Args:
            portable: Only put back operations of the ONNX standard.
            whole: Only put back integer products; products of real activations stay exact.
            named: Name of a value in the file → its name in the graph.
        """
        self._named = named
        found = [
            self._replace(node, v) for node, v in self._pairs if self._wanted(node, portable, whole)
        ]
        if any(found):
            passes.RemoveUnusedNodesPass()(self._model.proto)

    @staticmethod
    def _wanted(node: ir.Node, portable: bool, whole: bool) -> bool:
        return not (portable and node.domain) and (not whole or _is_whole(node))

    def _replace(self, node: ir.Node, result: ir.Value) -> bool:
        """Let the file's ``node`` compute ``result``, if its operands are in the graph."""
        own, before = _PRODUCTS[node.op_type], result.producer()
        if before is None or before.graph is not self._graph:
            return False  # nothing needs it
        read = _operands(node, own)
        if any(_type_of(node, own, index) is None for index in own.zeros):
            return False  # whether the type is signed is unknown
        operands = [self._operand(v, kind, before) for v, kind in read]
        if any(v is not None and o is None for (v, _), o in zip(read, operands, strict=True)):
            return False
        self._model.proto.opset_imports.setdefault(node.domain, 1)
        made, *others = self._copy(node, operands, before, own.by)
        kind = _result_type(node, own, result)
        if kind is not None:
            made.dtype = kind
        served = self._cast(made, result.dtype, before)
        zero = _input(node, own.result)
        if zero is not None and all(self._known.get(n) is not result for n in _names_of(node)):
            served = self._without_zero_point(served, zero, before)
        self._serve(result, served)
        for old, new in zip(before.outputs[1:], others, strict=False):
            self._serve(old, new)
        return True

    def _serve(self, result: ir.Value, served: ir.Value) -> None:
        """Replace a result of the rewritten graph."""
        served.type, served.shape = result.type, result.shape
        name = result.name
        ir.convenience.replace_all_uses_with(result, served, replace_graph_outputs=True)
        result.name, served.name = None, self._named(name or "")

    def _without_zero_point(self, value: ir.Value, zero: ir.Value, before: ir.Node) -> ir.Value:
        """Subtract the zero point, which the rewritten graph adds later."""
        offset = self._operand(zero, zero.dtype, before)
        assert offset is not None
        centred = ir.node("Sub", [value, self._cast(offset, value.dtype, before)])
        self._graph.insert_before(before, centred)
        return centred.outputs[0]

    def _operand(
        self, value: ir.Value | None, kind: ir.DataType | None, before: ir.Node
    ) -> ir.Value | None:
        """The value of the same name and type; weights and quantising nodes are copied."""
        if value is None:
            return None
        if value in self._brought:
            return self._brought[value]
        known, maker = self._known.get(value.name or ""), value.producer()
        if known is not None and self._is_there(known):
            return known if known.is_initializer() else self._cast(known, kind, before)
        if maker is not None and has(maker, Trait.QUANTISE):
            operands = [
                None if v is None else self._operand(v, v.dtype, before) for v in maker.inputs
            ]
            outputs = self._copy(maker, operands, before)
            self._brought.update(zip(maker.outputs, outputs, strict=True))
        elif value.const_value is not None:
            self._brought[value] = weight = ir.Value(
                name=self._named(value.name or ""),
                shape=value.shape,
                type=value.type,
                const_value=value.const_value,
            )
            self._graph.register_initializer(weight)
        return self._brought.get(value)

    def _is_there(self, value: ir.Value) -> bool:
        """Whether a value is still in the graph."""
        maker = value.producer()
        if maker is not None:
            return maker.graph is self._graph
        return value.is_initializer() or value in self._graph.inputs

    def _copy(
        self, node: ir.Node, operands: list[ir.Value | None], before: ir.Node, by: str = ""
    ) -> tuple[ir.Value, ...]:
        """Insert a copy of ``node`` on ``operands``, or operation ``by`` without attributes."""
        attributes = {} if by else {name: each.value for name, each in node.attributes.items()}
        count = len(node.outputs)
        own = ir.node(
            by or node.op_type,
            operands,
            attributes,
            domain=node.domain,
            num_outputs=1 if by else count,
        )
        for new, old in zip(own.outputs, node.outputs, strict=False):
            new.type = old.type
        self._graph.insert_before(before, own)
        return tuple(own.outputs)

    def _cast(self, value: ir.Value, kind: ir.DataType | None, before: ir.Node) -> ir.Value:
        if kind is None or value.dtype in (kind, None):
            return value
        cast = ir.node("Cast", [value], {"to": kind.value})
        self._graph.insert_before(before, cast)
        cast.outputs[0].dtype = kind
        return cast.outputs[0]


def _operands(node: ir.Node, own: _Own) -> list[tuple[ir.Value | None, ir.DataType | None]]:
    """The operands of the product, each with its type in the file."""
    found = [(_input(node, index), _type_of(node, own, index)) for index in own.operands]
    while found and found[-1][0] is None:
        found.pop()
    return found


def _type_of(node: ir.Node, own: _Own, index: int) -> ir.DataType | None:
    """Type of an operand; a quantised one has that of its zero point by definition."""
    value, zero = _input(node, index), _input(node, own.zeros.get(index))
    if value is not None and value.dtype is not None:
        return value.dtype
    return None if zero is None else zero.dtype


def _result_type(node: ir.Node, own: _Own, exact: ir.Value) -> ir.DataType | None:
    """Type of the result of the file's operation; that of its zero point by definition."""
    if own.kind is not None or node.outputs[0].dtype is not None:
        return own.kind or node.outputs[0].dtype
    zero = _input(node, own.result)
    return exact.dtype if zero is None else zero.dtype


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None
