"""Explain exported ONNX Transformers with Positional-Aware Layer-wise Relevance Propagation."""

from palrp_onnx.attribution import Attribution
from palrp_onnx.errors import PalrpError
from palrp_onnx.explainer import Explainer
from palrp_onnx.graph.model import Model
from palrp_onnx.record import Explanation

__all__ = ["Attribution", "Explainer", "Explanation", "Model", "PalrpError"]
