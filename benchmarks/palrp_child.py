"""Child of ``neighbours.py``: the compiled engine of palrp-onnx, open for many explanations."""

from __future__ import annotations

from pathlib import Path

import serving

from palrp_onnx import Explainer
from palrp_onnx.inputs import open_sample


def opening(model: Path, source: Path, method: str) -> serving.Explain:
    """A function for the content relevance of the predicted class."""
    explainer = Explainer(model, method=method, engine="onnxruntime")
    sample = open_sample(
        source, model_path=model, graph_inputs=explainer.model.inputs, tokenizer=None
    )

    def explain() -> list[float]:
        (explanation,) = explainer.explain(sample)
        return list(explanation.record.relevance.content)

    return explain


if __name__ == "__main__":
    serving.main(opening, ["palrp-onnx", "onnxruntime"])
