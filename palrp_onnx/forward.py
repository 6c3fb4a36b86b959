"""Forward passes: ONNX Runtime on the file's own numbers, or NumPy in float64.

Both return any intermediate value by name. The graph is served with the wanted values added to its
outputs; the file itself is never changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, ModelError, ResourceError
from palrp_onnx.graph.model import Model

Array = NDArray[np.generic]


class Forward(Protocol):
    """A prepared forward pass."""

    providers: list[str]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; returns the wanted values by name."""
        ...


class RuntimeForward:
    """ONNX Runtime with intermediates exposed, optimisation off so that they are the file's own.

    Raises:
        ResourceError: No runtime is installed, or the device asked for was not obtained.
        ModelError: The runtime does not take the model.
    """

    def __init__(self, model: Model, names: Iterable[str], *, device: str = "cpu") -> None:
        self._names = list(dict.fromkeys(names))
        graph = _with_outputs(model, self._names)
        self._session = open_session(graph, model.path, device=device, optimise=False)
        self.providers = list(self._session.get_providers())

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once."""
        return run_session(self._session, self._names, feeds)


def open_session(proto: onnx.ModelProto, path: Path, *, device: str, optimise: bool) -> Any:
    """A session of ``proto``, whose external data lies beside the file ``path``.

    Raises:
        ResourceError: No runtime is installed, or the device asked for was not obtained.
        ModelError: The runtime does not take the model.
    """
    runtime = _import_runtime()
    wanted, provider = _providers(device)
    if provider not in runtime.get_available_providers():
        raise _no_device(device, runtime.get_available_providers())
    options = runtime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    folder = str(path.resolve().parent) + os.sep
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        session = runtime.InferenceSession(proto.SerializeToString(), options, providers=wanted)
    except Exception as error:  # the runtime's own exception types are not public
        raise ModelError(
            "ONNX Runtime cannot load the model", place=str(path), hint=_first_line(error)
        ) from error
    obtained = list(session.get_providers())
    if provider not in obtained:
        raise _no_device(device, obtained)
    return session


def run_session(session: Any, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run once; values by name.

    Raises:
        InputError: The model does not run on this input.
    """
    try:
        values = session.run(names, dict(feeds))
    except Exception as error:  # the runtime's own exception types are not public
        raise InputError("The model does not run on this input", hint=_first_line(error)) from error
    return dict(zip(names, values, strict=True))


class ReferenceForward:
    """The onnx package's NumPy evaluator with every real number in float64."""

    providers: list[str] = ["NumPy"]  # noqa: RUF012 - a constant of the class

    def __init__(self, model: Model, names: Iterable[str]) -> None:
        from onnx.reference import ReferenceEvaluator

        self._names = list(dict.fromkeys(names))
        proto = _with_outputs(model, self._names)
        onnx.load_external_data_for_model(proto, str(model.path.parent))
        _promote_graph(proto.graph)
        self._real = {
            v.name
            for v in proto.graph.input
            if v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
        }
        self._evaluator = ReferenceEvaluator(proto)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once."""
        wide = {k: v.astype(np.float64) if k in self._real else v for k, v in feeds.items()}
        try:
            with np.errstate(all="ignore"):
                values = self._evaluator.run(self._names, wide)
        except Exception as error:
            raise InputError(
                "The model does not run on this input in float64", hint=_first_line(error)
            ) from error
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ResourceError(
            "ONNX Runtime is not installed",
            hint='pip install "palrp-onnx[cpu]" or, for NVIDIA GPUs, "palrp-onnx[gpu]".',
        ) from error
    return onnxruntime


def _providers(device: str) -> tuple[list[Any], str]:
    name, _, index = device.partition(":")
    if name == "cpu":
        return ["CPUExecutionProvider"], "CPUExecutionProvider"
    cuda = ("CUDAExecutionProvider", {"device_id": index or "0"})
    return [cuda, "CPUExecutionProvider"], "CUDAExecutionProvider"


def _no_device(device: str, providers: list[str]) -> ResourceError:
    return ResourceError(
        f"Asked for {device}, but the runtime offers {', '.join(providers)}",
        hint='Install the GPU runtime: pip install "palrp-onnx[gpu]", or use --device cpu.',
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__


def _with_outputs(model: Model, names: list[str]) -> onnx.ModelProto:
    proto = ir.serde.serialize_model(model.proto)
    known = {v.name: v for v in [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]}
    del proto.graph.output[:]
    proto.graph.output.extend(known.get(n, onnx.ValueInfoProto(name=n)) for n in names)
    return proto


def _promote_graph(graph: onnx.GraphProto) -> None:
    """Make every float of a graph, its constants and its casts a double."""
    for info in [*graph.input, *graph.output, *graph.value_info]:
        tensor = info.type.tensor_type
        tensor.elem_type = _wide(tensor.elem_type)
    for index, tensor_proto in enumerate(graph.initializer):
        graph.initializer[index].CopyFrom(_promoted(tensor_proto))
    for node in graph.node:
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
