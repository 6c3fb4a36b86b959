"""A few nodes: what the runtime computes for them, and for what they are lowered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward

Array = NDArray[Any]


def node(
    op_type: str, inputs: str, outputs: str, domain: str = "", **attributes: Any
) -> onnx.NodeProto:
    """A node; ``_`` is an input that is left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), domain=domain, **attributes)


def ms(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node that only ONNX Runtime knows."""
    return node(op_type, inputs, outputs, "com.microsoft", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array],
    opset: int = 18,
    *,
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
    rows: bool = False,
) -> onnx.ModelProto:
    """The nodes and their ``weights``; all axes of the inputs are free, or only ``rows`` are."""
    taken = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            ["n", *array.shape[1:]] if rows else [None] * array.ndim,
        )
        for name, array in feeds.items()
    ]
    made = [helper.make_tensor_value_info(name, kind, None) for name in outputs if name]
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "little", taken, made, stored)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def single(
    op_type: str,
    inputs: Sequence[str],
    feeds: Mapping[str, Array],
    *,
    weights: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    domain: str = "com.microsoft",
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node."""
    made = helper.make_node(op_type, inputs, outputs, domain=domain, name="node", **attributes)
    return model([made], feeds, weights or {}, opset, outputs=outputs, kind=kind)


def compare(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    folder: Path,
    *,
    tolerance: float = 1e-5,
    absolute: float = 0.0,
    names: Sequence[str] | None = None,
    rows: Sequence[slice] | None = None,
) -> Model:
    """Assert that the lowered graph computes what the runtime computes for ``model``.

    ``tolerance`` is relative to the largest magnitude of each output, ``absolute`` is not; the
    larger of the two holds. Of every sample only ``rows`` are looked at. Inputs that were caches
    are left out where the lowered model no longer has them. Returns the lowered model.
    """
    path = folder / "model.onnx"
    onnx.save(model, path)
    wanted = list(names or (v.name for v in model.graph.output))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    expected = session.run(wanted, dict(feeds))
    lowered = Model.open(path)
    assert lowered.lowered, [n.meta for n in lowered.graph]
    left = {s.name for s in lowered.inputs}
    found = RuntimeForward(lowered, wanted)({k: v for k, v in feeds.items() if k in left})
    if rows is not None:
        expected, found = (
            ([_cut(a, rows) for a in expected]),
            {name: _cut(array, rows) for name, array in found.items()},
        )
    for name, array in zip(wanted, expected, strict=True):
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        assert np.isfinite(array).all(), f"{name}: nothing to compare"
        scale = np.abs(array.astype(np.float64)).max()
        error = np.abs(found[name].astype(np.float64) - array.astype(np.float64)).max()
        assert error <= max(tolerance * scale, absolute), f"{name}: {error} of {scale}"
    return lowered


def _cut(array: Array, rows: Sequence[slice]) -> Array:
    """Rows of every sample, one after the other."""
    return np.concatenate([sample[row] for sample, row in zip(array, rows, strict=True)])


def saved_by_a_session(
    nodes: Sequence[onnx.NodeProto],
    image: Array,
    weights: Mapping[str, Array],
    folder: Path,
    level: onnxruntime.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> onnx.ModelProto:
    """The graph of these nodes, from ``x`` to ``y``, as ONNX Runtime saves it for this machine."""
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", *image.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "saved.onnx")
    onnxruntime.InferenceSession(plain.SerializeToString(), options)
    return onnx.load(folder / "saved.onnx")
