"""Sessions of ONNX Runtime: on the requested device, or an error."""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from palrp_onnx.errors import ModelError, ResourceError, RunError
from palrp_onnx.types import Array

if TYPE_CHECKING:
    import onnx

#: Ledger sums must be exact to float32 rounding, so TF32 is off; memory grows as needed.
_CUDA = {
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
}
#: Bytes of the numbers of real types.
_REAL = {"tensor(float16)": 2, "tensor(float)": 4, "tensor(double)": 8}
#: Bytes of a result from which on it is not copied.
_SHARED = 1 << 24
#: The C library's parameter for bytes from which on a block has pages of its own, and this size.
_OWN_PAGES = -3, 1 << 20
#: What the runtime says of a GPU that the machine does not have; it has no type for it.
_NO_DEVICE = "Invalid device ID"
#: What the runtime says where memory runs out; it has no type for it.
_NO_MEMORY = (
    *("Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory"),
    "Cannot allocate memory",  # of the system, where a file is mapped
)


class Session:
    """A session for one graph.

    Args:
        graph: A serialised model.
        folder: Folder of its external data.
        device: ``cpu`` or ``cuda[:N]``.
        optimise: Whether the runtime optimises the graph; if not, every value is the file's own.
        prepack: Whether weights are copied into the layout that products run fastest in; if not,
            they stay mapped from the file. Kernels that round activations internally need it.
        reuse: Whether the runtime plans which values share a buffer. A buffer that a late value
            shares with an early one stays allocated in between.
        layout: Whether convolutions may run on blocks of channels, which is faster. They do so all
            before anything else, so that their results are there together.
        in_order: Whether nodes run in the order of the graph where they can, so that values are
            freed early. By default the runtime may compute what stands on weights alone first.
        arena: Whether memory that was used once is kept for other values and further runs. If not,
            large blocks of this process go back to the system as soon as they are free.

    Raises:
        ResourceError: No runtime is installed, or the device is not available.
        ModelError: The runtime cannot load the model.
    """

    def __init__(
        self,
        graph: bytes,
        folder: Path,
        *,
        device: str = "cpu",
        optimise: bool = True,
        prepack: bool = True,
        in_order: bool = False,
        reuse: bool = True,
        layout: bool = True,
        arena: bool = True,
    ) -> None:
        runtime = _import_runtime()
        wanted, provider = _providers(device)
        if provider not in runtime.get_available_providers():
            raise _no_device(device, runtime.get_available_providers())
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        if not optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        elif not layout:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if in_order:
            options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
        options.enable_mem_reuse = reuse
        options.enable_cpu_mem_arena = arena
        if not arena:
            _return_pages()
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder) + os.sep
        )
        try:
            self._session = _opened(runtime, graph, options, wanted)
        except Exception as error:  # the runtime's own exception types are not public
            _check_memory(error)
            if _NO_DEVICE in str(error):
                raise _no_device(device, runtime.get_available_providers()) from error
            raise ModelError(
                "ONNX Runtime cannot load the model", place=str(folder), hint=first_line(error)
            ) from error
        self.providers = list(self._session.get_providers())
        if provider not in self.providers:
            raise _no_device(device, self.providers)
        self._device, _, index = device.partition(":")
        self._index = int(index or 0)

    def run(self, names: Iterable[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return the named values; no others leave the device.

        Raises:
            RunError: The model does not run on this input.
        """
        wanted = list(names)
        if not wanted:  # for example, if all conditions of branches are inputs
            return {}
        binding = self._session.io_binding()
        try:
            for name, array in feeds.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name in wanted:
                binding.bind_output(name, self._device, self._index)
            self._session.run_with_iobinding(binding)
            if self._device == "cpu":
                values = [_array(value) for value in binding.get_outputs()]
            else:
                values = binding.copy_outputs_to_cpu()
        except Exception as error:  # the runtime's own exception types are not public
            _check_memory(error)
            raise RunError(
                "The model does not run on this input", hint=first_line(error)
            ) from error
        return dict(zip(wanted, values, strict=True))


@cache
def _return_pages() -> None:
    """Let large tensors go back to the system when they are freed, where the C library is GNU's.

    By itself it keeps blocks of up to 32 MiB for later ones, which then fit between values that are
    still in use only in part: a process may so hold several times what its values need.
    """
    if (set_option := _of_c("mallopt")) is not None:
        set_option(*_OWN_PAGES)


def _of_c(name: str) -> Any | None:
    """A function of the C library; ``None`` where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # another system
        return None


def _array(value: Any) -> Array:
    """The numbers of a result on the CPU; large real ones are not copied, and are read-only."""
    kind = _REAL.get(value.data_type())
    if kind is None or prod(value.shape()) * kind < _SHARED:
        array: Array = value.numpy()
        return array
    return np.from_dlpack(value)


def _opened(runtime: Any, graph: bytes, options: Any, providers: list[Any]) -> Any:
    """A session; of the graph as it is where the runtime's optimiser fails on it.

    In some graphs in half precision a fusion makes the same weight twice. The runtime's own second
    attempt is switched off: it would be on another device, and it prints to stdout.
    """

    def attempt() -> Any:
        return runtime.InferenceSession(graph, options, providers=providers, enable_fallback=0)

    try:
        return attempt()
    except Exception as error:
        if "Exception during initialization" not in str(error):
            raise
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return attempt()
        except Exception:
            raise error from None


def _check_memory(error: Exception) -> None:
    """Raise a :class:`ResourceError` if memory ran out."""
    if any(text in str(error) for text in _NO_MEMORY):
        raise ResourceError(
            "Memory ran out",
            place=first_line(error),
            hint="Use --memory bounded, or explain a smaller input, or fewer at a time.",
        ) from error


def saved_as_optimised(graph: bytes) -> onnx.ModelProto:
    """A graph as the runtime saves it after its highest level of optimisation on this machine."""
    import onnx  # most sessions need none of it

    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def return_memory() -> None:
    """Give freed memory to the system: what is in cycles, or kept by the C library of Linux."""
    gc.collect()
    if (trim := _of_c("malloc_trim")) is not None:
        trim(0)


def runtime_version() -> str:
    """Version of ONNX Runtime."""
    return str(_import_runtime().__version__)


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
    cuda = ("CUDAExecutionProvider", {"device_id": index or "0", **_CUDA})
    return [cuda, "CPUExecutionProvider"], "CUDAExecutionProvider"


def _no_device(device: str, providers: list[str]) -> ResourceError:
    return ResourceError(
        f"The device {device} is not available: the runtime offers {', '.join(providers)}",
        hint="Use --device cpu, or replace the runtime, as both have one import name: "
        'pip uninstall -y onnxruntime, then pip install "palrp-onnx[gpu]".',
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__
