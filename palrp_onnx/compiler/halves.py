"""The two parts of the graph of an explanation: the forward pass and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from palrp_onnx.model.bodies import Users, operands
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.tensor.onnx import Emit

#: Operations whose result is small and is all that is needed of a forward value.
_BRIEF = frozenset(("Shape", "Size", "GatherND"))


class Halves:
    """The nodes of the graph of an explanation.

    What takes less memory than the values that it reads is computed with the forward pass, if
    the way back reads these values for nothing else: their shapes, rows that are picked, truth
    values of comparisons.

    Attributes:
        forward: Nodes of the forward pass, comparisons for the way back included; with indices.
        place: Value that depends on inputs → index of the forward node that makes it; −1: none.
        brief: Nodes of the way back that run with the forward pass: shapes, and picked rows.
        staged: All other nodes of the way back.
        users: The readers of a value.
    """

    def __init__(self, op: Emit, graph: ir.Graph) -> None:
        self._graph, own = graph, set(op.made)
        self.users = Users(graph)
        given = (v for v in graph.inputs if not v.is_initializer())
        self.place: dict[ir.Value, int] = dict.fromkeys(given, -1)
        forward = [node for node in graph if node not in own]
        self._number(forward)
        way_back = [node for node in graph if node in own]
        brief = self._find_brief(way_back)
        self.brief = [node for node in way_back if node in brief]
        rest = [node for node in way_back if node not in brief]
        self._compared = set(self._comparisons(rest))
        self.staged = [node for node in rest if node not in self._compared]
        self._number([*self._with_comparisons(forward)])

    def size(self, value: ir.Value, size_of: Callable[[ir.Value], int]) -> int:
        """Bytes of a forward value, by those of the values of the file."""
        node = value.producer()
        if node not in self._compared:
            return size_of(value)
        kinds = ((v, v.dtype or ir.DataType.FLOAT) for v in operands(node))
        return max(int(size_of(v) / kind.itemsize) for v, kind in kinds)

    def _number(self, forward: Sequence[ir.Node]) -> None:
        """Count the nodes of the forward pass, and find what varies with inputs."""
        self.forward = {node: index for index, node in enumerate(forward)}
        for node, index in self.forward.items():
            if not node.inputs or any(v in self.place for v in operands(node)):
                self.place.update((value, index) for value in node.outputs)

    def _find_brief(self, way_back: Sequence[ir.Node]) -> set[ir.Node]:
        ready: set[ir.Node] = set()
        for node in way_back:
            small = node.op_type in _BRIEF
            if all(
                v.producer() in ready or v.producer() is None or (small and v in self.place)
                for v in operands(node)
            ):
                ready.add(node)
        found: set[ir.Node] = set()
        for node in reversed(way_back):
            users = (user for v in node.outputs for user in self.users(v))
            whole = all(v.dtype is ir.DataType.INT64 for v in node.outputs)
            small = node.op_type in _BRIEF or whole or any(user in found for user in users)
            if node in ready and small:
                found.add(node)
        return found

    def _comparisons(self, way_back: Sequence[ir.Node]) -> Iterator[ir.Node]:
        """Comparisons of forward values that the way back reads for nothing else."""
        fit = {n for n in way_back if has(n, Trait.COMPARISON) and self._of_forward(n)}
        read = {v for node in way_back if node not in fit for v in operands(node)}
        return (n for n in fit if not any(v in read for v in operands(n) if v in self.place))

    def _of_forward(self, node: ir.Node) -> bool:
        inputs = [v for v in operands(node) if not v.is_initializer()]
        return all(v.producer() in self.forward for v in inputs)

    def _with_comparisons(self, forward: Sequence[ir.Node]) -> Iterator[ir.Node]:
        """The forward pass with each comparison behind the last of its operands."""
        behind: dict[int, list[ir.Node]] = {}
        for node in self._compared:
            behind.setdefault(max(self.place.get(v, 0) for v in operands(node)), []).append(node)
        for index, node in enumerate(forward):
            yield node
            yield from behind.get(index, ())

    def last_use(self, value: ir.Value) -> int:
        """Index of the last forward node that reads a value, or makes it."""
        return max(self.place[value], *(self.forward.get(user, 0) for user in self.users(value)), 0)

    def put_forward(self) -> None:
        """Leave the forward pass alone in the graph, with what is brief behind what it reads."""
        places = dict(self.forward)
        behind: dict[int, list[ir.Node]] = {}
        for node in self.brief:
            makers = (value.producer() for value in operands(node))
            places[node] = max((places[m] for m in makers if m is not None), default=-1)
            behind.setdefault(places[node], []).append(node)
        self._graph.remove(list(self._graph))
        self._graph.extend(behind.get(-1, ()))
        for node, index in self.forward.items():
            self._graph.append(node)
            self._graph.extend(behind.get(index, ()))

    def put(self) -> None:
        """Put the nodes in this order: what runs with the forward pass, then the way back."""
        self.put_forward()
        self._graph.extend(self.staged)
