"""``python docs/review.py`` draws the picture of the README."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs import open_sample, read_labels
from palrp_onnx.render.png import render_png

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "docs" / "images" / "review.png"
MODEL = ROOT / "models" / "reviews-rope" / "model.onnx"


def main() -> None:
    """Explain the sample of the model."""
    model = Model.open(MODEL)
    sample = open_sample(
        MODEL.with_name("sample.txt"), model_path=MODEL, graph_inputs=model.inputs, tokenizer=None
    )
    (explained,) = Explainer(model).explain(sample, "pred", read_labels(MODEL))
    PLACE.write_bytes(render_png(explained.record))


if __name__ == "__main__":
    main()
