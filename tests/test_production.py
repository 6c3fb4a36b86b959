"""The committed models in the forms that production tools write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.production import FORMS, SHAPES, correlation, make_form, samples
from palrp_onnx import Explainer
from palrp_onnx.attribution import Fidelity

MODELS = Path(__file__).parents[1] / "models"
#: Forms in which a file computes what the plain one does, to rounding or to half precision.
SAME = ("o2", "o3", "o4", "session", "slim")
#: What eight and four bits leave of the agreement.
LEAST = {"int8": 0.95, "qdq": 0.9, "nbits": 0.8}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_form(name: str, form: str, tmp_path: Path) -> None:
    plain = Explainer(MODELS / name / "model.onnx")
    path = make_form(name, form, tmp_path)
    compiled, walked = Explainer(path), Explainer(path, engine="numpy")
    for sample in samples(name, 2):
        reference = plain.explain(sample)[0].record
        target = str(reference.target.index)
        ours, slow = (e.explain(sample, target)[0].record for e in (compiled, walked))
        assert abs(ours.ledger["residual_relative"]) < (1e-3 if form == "o4" else 1e-5)
        sites = {(s.name, s.kind) for s in ours.sites}
        assert sites == {(s.name, s.kind) for s in reference.sites}
        assert correlation(ours, reference) > (0.999 if form in SAME else LEAST[form])
        assert correlation(ours, slow) > 0.999
        if isinstance(ours.fidelity, Fidelity):
            assert ours.fidelity.difference <= ours.fidelity.allowed
        assert np.isfinite(ours.relevance.total).all()
