"""How much memory an explanation will take, before anything is compiled.

The peak is the larger one of two: that of the explanation (what is kept of the forward pass, what
is in work, weights that are packed or cast) and that of the runs of the file beside it, with the
weights of the file mapped in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from math import prod

import onnx_ir as ir

from palrp_onnx.analysis.layout import Axis
from palrp_onnx.analysis.sizes import lengths_of, sizes_of
from palrp_onnx.analysis.stored_weights import computed_weights
from palrp_onnx.compiler.blocks import ROWS
from palrp_onnx.compiler.cuts import Costs, find_cuts, work_of
from palrp_onnx.compiler.squares import Squares
from palrp_onnx.machine import Forecast
from palrp_onnx.model.bodies import operands
from palrp_onnx.model.follow import values_before
from palrp_onnx.model.native import rounds_inside
from palrp_onnx.model.open import parse_model
from palrp_onnx.prepare import Planned
from palrp_onnx.relevance.plan import entries_read
from palrp_onnx.relevance.walk import walk
from palrp_onnx.tensor.onnx import NARROW
from palrp_onnx.tensor.seed_rows import in_rows
from palrp_onnx.types import Shape

#: Bytes of the program, its libraries and a graph, and of the runtime's own structures for a node.
_PROGRAM, _NODE = 180 << 20, 40 << 10
_FLOAT = 4
#: Scores and what is computed from them that a block of queries has at a time.
_BLOCKS = 6
#: What a kernel of few bits packs of weights, and scales of them that stay mapped as well: such
#: weights by their bytes in the file.
_PACKS = 1.4
#: Memory that the runtime takes in larger and larger pieces, by what it needs.
_ARENA = 1.25


class Forecaster:
    """Forecasts for one planned model.

    Args:
        planned: The planned model, before the way back is appended to its graph.
        prepack: Whether weights are copied into the layout that products run fastest in.
    """

    def __init__(self, planned: Planned, *, prepack: bool = False) -> None:
        # What trial runs found is large, and only needed before.
        self._analysis = replace(planned.analysis, trial={}, again={})
        graph = planned.analysis.model.graph
        self._nodes = list(graph)
        self._read = set(entries_read(planned.plan, walk))
        self._pairs = Squares(self._analysis, ROWS)
        self._squares = {v for v in planned.analysis.content if v in self._pairs}
        stored = [v for v in graph.initializers.values() if v.const_value is not None]
        rows = {v for v in stored if _read_by_row(v)}
        self._weights = _distinct_bytes([v for v in stored if v not in rows])
        self._packed = _distinct_bytes(stored) if prepack else 0
        if planned.analysis.model.changes and rounds_inside(
            parse_model(planned.analysis.model.path).graph
        ):
            few = int(_PACKS * _distinct_bytes(_dequantised(graph)))
            self._packed = max(self._packed, few)
        computed = {v: _FLOAT * prod(shape) for v, shape in computed_weights(graph).items()}
        seeded = _weights_of_seed(planned.plan.output)
        #: Bytes of the largest weight that is computed, in runs of the file and on the way back.
        self._whole = max(computed.values(), default=0)
        self._largest = max((n for v, n in computed.items() if v not in seeded), default=0)
        narrow = [2 * v.const_value.nbytes for v in stored if v.dtype in NARROW and v.const_value]
        self._cast, self._widest = sum(narrow), max(narrow, default=0)
        self._compared = bool(planned.analysis.model.changes)
        self._base = _PROGRAM + _NODE * len(self._nodes)

    def __call__(self, shapes: Mapping[str, Shape]) -> Forecast:
        """Forecasts for inputs of these shapes."""
        size_of = sizes_of(self._analysis, shapes)
        costs = Costs.of(list(self._rows(size_of, self._read)), len(self._nodes))
        work = work_of(costs)
        parts = self._in_blocks(size_of, lengths_of(self._analysis, shapes))
        little = Costs.of(list(self._rows(parts, self._read - self._squares)), len(self._nodes))
        blocks = _BLOCKS * max((parts(v) for v in self._squares), default=0)
        kept, busy = little.peak(find_cuts(little)), max(work_of(little), blocks)
        used = int(_ARENA * (costs.kept + work))
        fast = self._packed + used + max(self._largest, self._cast)
        bounded = (
            self._packed + min(kept, little.kept) + busy + 2 * max(self._largest, self._widest)
        )
        beside = self._whole + work if self._compared else 0
        fixed = self._base + self._weights
        return Forecast(
            fast=fixed + fast + (beside + self._packed if self._compared else 0),
            bounded=fixed + max(bounded, beside, self._packed + (work if self._compared else busy)),
            apart=fixed,
        )

    @cached_property
    def _place(self) -> dict[ir.Value, int]:
        """Value that depends on inputs → index of the node that makes it."""
        found = dict.fromkeys(self._analysis.model.graph.inputs, -1)
        for index, node in enumerate(self._nodes):
            if any(v in found for v in operands(node)):
                found.update((v, index) for v in node.outputs)
        return found

    def _in_blocks(
        self, size_of: Callable[[ir.Value], int], length: Callable[[Axis], float]
    ) -> Callable[[ir.Value], int]:
        """Bytes of values, of scores those of one block of queries."""
        layouts = self._analysis.layouts.layouts

        def size(value: ir.Value) -> int:
            pairs, layout = self._pairs.pairs(value), layouts.get(value)
            rows = length(layout[pairs[0][0]]) if pairs and layout else 0.0
            return int(size_of(value) * (ROWS / rows if rows > ROWS else 1.0))

        return size

    def _rows(
        self, size_of: Callable[[ir.Value], int], read: Collection[ir.Value]
    ) -> Iterator[tuple[int, int, int, bool]]:
        last = dict(self._place)
        for index, node in enumerate(self._nodes):
            last.update((v, index) for v in operands(node) if v in last)
        for value, place in self._place.items():
            if place >= 0:
                yield place, last[value], size_of(value), value in read


def _read_by_row(value: ir.Value) -> bool:
    """Whether a stored value is a table of which only rows are read."""
    return not value.is_graph_output() and all(
        use.node.op_type == "Gather"
        and use.idx == 0
        and use.node.attributes.get_int("axis", 0) == 0
        for use in value.uses()
    )


def _weights_of_seed(output: ir.Value) -> set[ir.Value]:
    """What computes the weights of the output layer, where a seed reads few rows of them."""
    node = output.producer()
    weights = node.inputs[1] if node is not None and node.op_type == "MatMul" else None
    return set(values_before([weights])) if weights is not None and in_rows(weights) else set()


def _dequantised(graph: ir.Graph) -> list[ir.Value]:
    """Stored numbers that are dequantised."""
    nodes = (node for node in graph if node.op_type == "DequantizeLinear")
    return [v for node in nodes for v in node.inputs if v is not None and v.is_initializer()]


def _distinct_bytes(values: list[ir.Value]) -> int:
    """Bytes of stored values; several of one place in a file count once."""
    found: dict[object, int] = {}
    for value in values:
        tensor = value.const_value
        if tensor is not None:
            place = (
                (str(tensor.location), tensor.offset)
                if isinstance(tensor, ir.ExternalTensor)
                else id(tensor)
            )
            found[place] = tensor.nbytes
    return sum(found.values())
