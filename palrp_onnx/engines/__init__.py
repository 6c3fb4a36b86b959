"""The two engines: one walk, computed in NumPy or compiled into the graph of the model."""

from palrp_onnx.engines.base import Engine, Outcome
from palrp_onnx.engines.numpy import NumpyEngine
from palrp_onnx.engines.onnxruntime import CompiledEngine

__all__ = ["CompiledEngine", "Engine", "NumpyEngine", "Outcome"]
