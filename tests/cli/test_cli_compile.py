"""``palrp-onnx compile``: a file that explains itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from click.testing import CliRunner

from palrp_onnx import Explainer
from palrp_onnx.attribution import InputFacts
from palrp_onnx.cli.main import program
from palrp_onnx.inputs.sample import Sample

MODEL = Path(__file__).parents[2] / "models/reviews-rope/model.onnx"
IDS = np.random.default_rng(0).integers(5, 8000, size=(2, 14))
FEEDS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}


def test_compiled_file_explains_itself(tmp_path: Path) -> None:
    place = tmp_path / "explainer.onnx"
    result = CliRunner().invoke(program, ["compile", str(MODEL), "-o", str(place)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    session = onnxruntime.InferenceSession(str(place))
    total, logits = session.run(["relevance_total", "logits"], FEEDS)
    sample = Sample("x", "tensors", FEEDS, InputFacts(kind="tensors", truncated=False))
    for row, explanation in enumerate(Explainer(MODEL).explain(sample)):
        expected = np.array(explanation.record.relevance.total)
        assert np.abs(total[row] - expected).max() < 2e-3 * np.abs(expected).max()
        assert abs(logits[row].max() - explanation.record.target.value) < 1e-5
    facts = {p.key: p.value for p in onnx.load(place).metadata_props}
    assert facts["palrp_onnx.method"] == "pa-lrp"


def test_external_data_is_shared(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(onnx.load(MODEL), source, save_as_external_data=True, location="weights.bin")
    beside, elsewhere = tmp_path / "explainer.onnx", tmp_path / "other" / "explainer.onnx"
    elsewhere.parent.mkdir()
    run = CliRunner().invoke
    assert run(program, ["compile", str(source), "-o", str(beside), "-q"]).exit_code == 0
    assert beside.stat().st_size < 2**20
    (total,) = onnxruntime.InferenceSession(str(beside)).run(["relevance_total"], FEEDS)
    assert np.isfinite(total).all()
    refused = run(program, ["compile", str(source), "-o", str(elsewhere)])
    assert refused.exit_code == 2
    assert "beside the model" in refused.stderr
    assert not elsewhere.exists()


def test_a_model_that_cannot_be_explained(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    place = tmp_path / "explainer.onnx"
    result = CliRunner().invoke(program, ["compile", str(bad), "-o", str(place)])
    assert result.exit_code == 4
    assert not place.exists()
