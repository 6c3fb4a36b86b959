"""Explain exported ONNX Transformers with Positional-Aware Layer-wise Relevance Propagation.

>>> import palrp_onnx as px
>>> model = px.load("models/reviews-rope")
>>> model.explain("A gripping film.").target.label
'POSITIVE'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palrp_onnx.api.evaluation import (
        compare,
        evaluate_conservation,
        evaluate_perturbation,
        evaluate_pixels,
        evaluate_randomisation,
        evaluate_segmentation,
        evaluate_stability,
    )
    from palrp_onnx.api.loaded import LoadedModel, load
    from palrp_onnx.entries import Entries, Entry
    from palrp_onnx.errors import PalrpError
    from palrp_onnx.explainer import Explainer
    from palrp_onnx.explanation import Explanation, join_tensors, save_tensors
    from palrp_onnx.explanations import Explanations, Generated, load_record
    from palrp_onnx.inspection import Inspection, inspect
    from palrp_onnx.limits import Limit, check_records
    from palrp_onnx.model.open import Model
    from palrp_onnx.record import Attribution
    from palrp_onnx.relevance.method import Method, Parameter
    from palrp_onnx.relevance.method_parsing import method, register_method

    __version__: str

__all__ = [
    "Attribution",
    "Entries",
    "Entry",
    "Explainer",
    "Explanation",
    "Explanations",
    "Generated",
    "Inspection",
    "Limit",
    "LoadedModel",
    "Method",
    "Model",
    "PalrpError",
    "Parameter",
    "check_records",
    "compare",
    "evaluate_conservation",
    "evaluate_perturbation",
    "evaluate_pixels",
    "evaluate_randomisation",
    "evaluate_segmentation",
    "evaluate_stability",
    "inspect",
    "join_tensors",
    "load",
    "load_record",
    "method",
    "register_method",
    "save_tensors",
]

_HOMES = {
    "Attribution": "record",
    "Entries": "entries",
    "Entry": "entries",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Explanations": "explanations",
    "Generated": "explanations",
    "Inspection": "inspection",
    "Limit": "limits",
    "LoadedModel": "api.loaded",
    "Model": "model.open",
    "PalrpError": "errors",
    "check_records": "limits",
    "compare": "api.evaluation",
    "evaluate_conservation": "api.evaluation",
    "evaluate_perturbation": "api.evaluation",
    "evaluate_pixels": "api.evaluation",
    "evaluate_randomisation": "api.evaluation",
    "evaluate_segmentation": "api.evaluation",
    "evaluate_stability": "api.evaluation",
    "inspect": "inspection",
    "join_tensors": "explanation",
    "load": "api.loaded",
    "load_record": "explanations",
    "save_tensors": "explanation",
    "Method": "relevance.method",
    "Parameter": "relevance.method",
    "method": "relevance.method_parsing",
    "register_method": "relevance.method_parsing",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when asked for: `palrp-onnx --help` must not load NumPy."""
    if name in _HOMES:
        return getattr(import_module(f"palrp_onnx.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("palrp-onnx")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
