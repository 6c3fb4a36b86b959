"""The two engines: the same walk, computed in NumPy or compiled into the model's own graph."""

from palrp_onnx.engines.compiled import CompiledEngine
from palrp_onnx.engines.outcome import Engine, Outcome
from palrp_onnx.engines.walked import NumpyEngine

__all__ = ["CompiledEngine", "Engine", "NumpyEngine", "Outcome"]
