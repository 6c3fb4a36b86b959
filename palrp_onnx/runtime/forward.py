"""Forward passes that return intermediate values: in ONNX Runtime, or in NumPy in float64.

The values become outputs of a copy of the graph; the file itself is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from palrp_onnx.errors import InputError, ModelError, UnsupportedError
from palrp_onnx.model.ends import join_ends
from palrp_onnx.model.joining import parts_in
from palrp_onnx.model.lowering import REFUSED
from palrp_onnx.model.native import rounds_inside
from palrp_onnx.model.open import Model, parse_model
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.runtime import recurrent
from palrp_onnx.runtime.integer_products import runtime_operations
from palrp_onnx.runtime.placed import PLACE, PLACED_OPSET, read_at_places
from palrp_onnx.runtime.saved import GraphForward, OwnFile, OwnFiles, SavedGraph
from palrp_onnx.runtime.turned import read_turned
from palrp_onnx.session import first_line
from palrp_onnx.types import Array


class Forward(Protocol):
    """A prepared forward pass."""

    providers: list[str]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Returns:
            The values by name.

        Raises:
            InputError: The model does not run on this input.
        """
        ...


class RuntimeForward(GraphForward):
    """A graph in ONNX Runtime without graph optimisation: see :class:`GraphForward`.

    Args:
        model: The model.
        names: Names of the values to return.
        device: ``cpu`` or ``cuda[:N]``.

    Raises:
        ResourceError: No runtime is installed, or the device is not available.
        ModelError: The runtime cannot load the model.
    """

    def __init__(self, model: Model, names: Iterable[str], *, device: str = "cpu") -> None:
        try:
            super().__init__(saved_graph(model, names), model.folder, device=device)
        except ModelError as error:
            refused = [n for n in model.graph if REFUSED in n.meta]
            if not refused:
                raise
            raise UnsupportedError(
                f"{len(refused)} node(s) cannot be rewritten into primitive operations",
                place="; ".join(f"{n.op_type} {n.name!r} ({n.meta[REFUSED]})" for n in refused[:5]),
                hint=error.hint,
            ) from error


def saved_graph(model: Model, names: Iterable[str]) -> SavedGraph:
    """The graph of a model that yields the values of these names, serialised."""
    wanted = list(dict.fromkeys(names))
    written = _with_outputs(model, wanted)
    read_turned(model, written, wanted)
    return SavedGraph(
        data=written.SerializeToString(),
        names=tuple(wanted),
        prepack=rounds_inside(model.graph),
        arena=not _dequantises(model.graph),
    )


class FileForward(OwnFiles):
    """The files of a model, without any rewriting: see :class:`OwnFiles`.

    Args:
        model: The opened model, from whose graph inputs may have been removed.
        output: Name of the output, or of an intermediate value.
        device: ``cpu`` or ``cuda[:N]``.
        optimise: See :class:`palrp_onnx.session.Session`.
        prepack: See :class:`palrp_onnx.session.Session`; always done if the values depend on it.
        placed: Compute the output, of one row a token, at one token of each sample, which
            :meth:`at` names.

    Raises:
        ModelError: The file has no such value.
    """

    def __init__(
        self,
        model: Model,
        output: str,
        *,
        device: str = "cpu",
        optimise: bool = True,
        prepack: bool = True,
        placed: bool = False,
    ) -> None:
        parts = own_files(model, output, placed=placed)
        self._placed = parts[0].own != output and len(parts) == 1
        super().__init__(
            parts,
            output,
            removed=model.removed,
            folder=model.folder,
            device=device,
            optimise=optimise,
            prepack=prepack,
        )

    def at(self, feeds: Mapping[str, Array], places: Array) -> Array:
        """The output [B, entries] at one token of each sample [B]; negative: from the end."""
        if not self._placed:
            output = self(feeds)
            return np.asarray(output[np.arange(len(output)), places])
        return self({**feeds, PLACE: places.astype(np.int64)[:, None]})


def own_files(model: Model, output: str, *, placed: bool = False) -> list[OwnFile]:
    """The files of a model that compute a value, which may be inside of their graphs.

    Args:
        model: The opened model.
        output: Name of the value.
        placed: Compute it at one token of each sample alone, where one file of a late opset does.

    Raises:
        ModelError: There is no such value.
    """
    file = parse_model(model.path)
    if model.ends is not None:
        join_ends(file.graph, model.ends)
    parts = parts_in(file)
    read = {name for part in parts for name in part.inputs.values()}
    if not any(output in part.values for part in parts):
        placed = placed and (file.opset_imports.get("") or 0) >= PLACED_OPSET
        return [_own_file(file, output, placed=placed)]
    return [
        _own_file(parse_model(part.path), own, name, part.inputs)
        for part in parts
        for name, own in part.values.items()
        if name == output or (name in read and output not in part.values)
    ]


def _own_file(
    file: ir.Model,
    own: str,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    *,
    placed: bool = False,
) -> OwnFile:
    rounds = rounds_inside(file.graph)
    _expose(file.graph, own)
    read = read_at_places(file.graph, own) if placed else own
    return OwnFile(
        data=ir.serde.serialize_model(file).SerializeToString(),
        own=read,
        name=own if name is None else name,
        inputs=None if inputs is None else dict(inputs),
        kinds={
            v.name or "": np.dtype(v.dtype.numpy()).name
            for v in file.graph.inputs
            if inputs is not None and v.dtype is not None
        },
        rounds_inside=rounds,
    )


def _expose(graph: ir.Graph, name: str) -> None:
    """Make an intermediate value an output of the graph.

    Raises:
        ModelError: There is no such value.
    """
    if any(v.name == name for v in graph.outputs):
        return
    found = next((v for node in graph for v in node.outputs if v.name == name), None)
    if found is None:
        raise ModelError("The file has no value of this name", place=name)
    graph.outputs.append(found)


class ReferenceForward:
    """The onnx package's NumPy evaluator with every real number in float64.

    Operations for integer products run in ONNX Runtime (see ``runtime/integer_products.py``).

    Args:
        model: The model.
        names: Names of the values to return.

    Raises:
        ModelError: The evaluator cannot run the model.
    """

    providers: list[str] = ["NumPy"]  # noqa: RUF012 - a constant of the class

    def __init__(self, model: Model, names: Iterable[str]) -> None:
        from onnx.reference import ReferenceEvaluator

        self._names = list(dict.fromkeys(names))
        proto = _with_outputs(model, self._names)
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(
            onnx.numpy_helper.from_array(_text_as_objects(v.const_value.numpy()), v.name)
            for v in model.graph.initializers.values()
            if v.const_value is not None
        )
        _promote_graph(proto.graph)
        self._real = {
            v.name
            for v in proto.graph.input
            if v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
        }
        try:
            own = [*_own_operations(), *_corrected(), *recurrent.operations()]
            own += runtime_operations(proto)
            if model.graph_opset < 13:
                own += _softmax_of_tails()
            self._evaluator = ReferenceEvaluator(proto, new_ops=own)
        except Exception as error:  # an operation that it does not have in this opset
            raise ModelError(
                "The model cannot be run in float64", hint=f"{first_line(error)} Use float32."
            ) from error

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once."""
        wide = {k: v.astype(np.float64) if k in self._real else v for k, v in feeds.items()}
        try:
            with np.errstate(all="ignore"):
                values = self._evaluator.run(self._names, wide)
        except Exception as error:
            raise InputError(
                "The model does not run on this input in float64", hint=first_line(error)
            ) from error
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}


def _text_as_objects(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind == "S" else array


def _corrected() -> list[type]:
    from palrp_onnx.runtime.reference_operations import CORRECTED  # imports the evaluator

    return list(CORRECTED)


def _own_operations() -> list[type]:
    """Operations that the package's evaluator lacks, or lacks in some opset or form."""
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            axis %= data.ndim
            own = tuple(
                slice(None) if k == axis else slice(size) for k, size in enumerate(indices.shape)
            )
            wrapped = np.where(indices < 0, indices + data.shape[axis], indices)
            return (np.take_along_axis(data[own], wrapped, axis),)

    class DequantizeLinear(OpRun):
        def _run(
            self,
            x: Any,
            scale: Any,
            zero: Any = None,
            axis: int = 1,
            block_size: int = 0,
            **_: Any,
        ) -> tuple[Any]:
            def spread(numbers: Any) -> Any:
                """Scales or zero points, broadcast to the entries of x."""
                if block_size:
                    place = slice(x.shape[axis])
                    own = [slice(None)] * x.ndim
                    own[axis] = place
                    return np.repeat(numbers, block_size, axis)[tuple(own)]
                several = numbers.ndim == 1 and numbers.size > 1
                ones = (1,) * (x.ndim - 1 - axis % x.ndim) if several else ()
                return numbers.reshape(-1, *ones) if several else numbers

            whole = x.astype(np.float64)
            if zero is not None:
                whole = whole - spread(zero.astype(np.float64))
            return (whole * spread(scale.astype(np.float64)),)

    class DynamicQuantizeLinear(OpRun):
        def _run(self, x: Any) -> tuple[Any, Any, Any]:
            high, low = max(x.max(), 0.0), min(x.min(), 0.0)
            scale = np.float64((high - low) / 255 or 1.0)
            zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
            q = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
            return q, np.asarray(scale), np.asarray(zero)

    class LpNormalization(OpRun):  # for p = 1 the package sums x instead of |x|
        def _run(self, x: Any, axis: int = -1, p: int = 2) -> tuple[Any]:
            norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
            return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)

    class Erf(OpRun):  # the package computes it in single precision
        def _run(self, x: Any) -> tuple[Any]:
            return (np.vectorize(math.erf, otypes=[np.float64])(x),)

    return [DequantizeLinear, DynamicQuantizeLinear, Erf, GatherElements, LpNormalization]


def _softmax_of_tails() -> list[type]:
    """Softmax and its logarithm before opset 13: over all axes from ``axis`` on.

    The package has the form of opset 13 only.
    """
    from onnx.reference.op_run import OpRun

    def shifted(x: Any, node: onnx.NodeProto) -> tuple[Any, Any]:
        """Scores minus their maximum, and the logarithm of the sum of their exponentials."""
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        tail = tuple(range(axis % x.ndim, x.ndim))
        x = x - x.max(axis=tail, keepdims=True)
        return x, np.log(np.exp(x).sum(axis=tail, keepdims=True))

    class Softmax(OpRun):
        def _run(self, x: Any, **_: Any) -> tuple[Any]:
            scores, total = shifted(x, self.onnx_node)
            return (np.exp(scores - total),)

    class LogSoftmax(OpRun):
        def _run(self, x: Any, **_: Any) -> tuple[Any]:
            scores, total = shifted(x, self.onnx_node)
            return (scores - total,)

    return [LogSoftmax, Softmax]


def _dequantises(graph: ir.Graph) -> bool:
    """Whether weights are dequantised, each of which is large and needed once."""
    return any(has(node, Trait.DEQUANTISE) for node in graph)


def _with_outputs(model: Model, names: list[str]) -> onnx.ModelProto:
    proto = ir.serde.serialize_model(model.proto)
    known = {v.name: v for v in [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]}
    del proto.graph.output[:]
    proto.graph.output.extend(known.get(n, onnx.ValueInfoProto(name=n)) for n in names)
    return proto


def _promote_graph(graph: onnx.GraphProto) -> None:
    """Make every real type of a graph, of its constants and of its casts double."""
    for info in [*graph.input, *graph.output, *graph.value_info]:
        tensor = info.type.tensor_type
        tensor.elem_type = _wide(tensor.elem_type)
    for index, tensor_proto in enumerate(graph.initializer):
        graph.initializer[index].CopyFrom(_promoted(tensor_proto))
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # single precision if unstated
            zero = onnx.numpy_helper.from_array(np.zeros(1))
            node.attribute.append(onnx.helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype"):
                attribute.i = _wide(attribute.i)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_promoted(attribute.t))
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _promote_graph(attribute.g)


_REAL = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _wide(elem_type: int) -> int:
    return int(onnx.TensorProto.DOUBLE) if elem_type in _REAL else elem_type


def _promoted(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in _REAL:
        return tensor
    array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    return onnx.numpy_helper.from_array(array, tensor.name)
