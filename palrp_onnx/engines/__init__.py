"""The two engines: one walk, computed in NumPy or compiled into the graph of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palrp_onnx.engines.base import Engine, Outcome
from palrp_onnx.engines.onnxruntime import CompiledEngine

if TYPE_CHECKING:
    from palrp_onnx.engines.numpy import NumpyEngine

__all__ = ["CompiledEngine", "Engine", "NumpyEngine", "Outcome"]


def __getattr__(name: str) -> Any:
    """The NumPy engine is imported when asked for: it needs the whole analysis of a graph."""
    if name == "NumpyEngine":
        from palrp_onnx.engines.numpy import NumpyEngine

        return NumpyEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
