"""The committed models in the forms that production tools write."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from committed import MODELS

from benchmarks.production import FORMS, SHAPES, correlation, make_form, samples
from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, Fidelity

#: Forms in which a file computes what the plain one does, to rounding or to half precision.
SAME = ("o2", "o3", "o4", "session", "slim")
#: What eight and four bits leave of the agreement.
LEAST = {"int8": 0.99, "qdq": 0.95, "all-qdq": 0.99, "nbits": 0.99}
#: A mask of −∞ among what is quantised.
BROKEN = ("reviews-rope", "all-qdq")


@cache
def plain(name: str) -> list[tuple[Sample, Attribution]]:
    """Two inputs, and what the committed file says of them."""
    explainer = Explainer(MODELS / name / "model.onnx")
    return [(sample, explainer.explain(sample)[0].record) for sample in samples(name, 2)]


@pytest.mark.parametrize(
    ("name", "form"), [each for each in product(SHAPES, FORMS) if each != BROKEN]
)
def test_every_form(name: str, form: str, tmp_path: Path) -> None:
    compiled = Explainer(make_form(MODELS / name, form, tmp_path))
    walked = Explainer(compiled.model, engine="numpy")
    for sample, reference in plain(name):
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


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_a_quantiser_that_broke_attention(engine: str, tmp_path: Path) -> None:
    """The file runs, and attends to nothing: that is what is explained, with a warning."""
    name, form = BROKEN
    path = make_form(MODELS / name, form, tmp_path)
    record = Explainer(path, engine=engine).explain(next(samples(name, 1)), "0")[0].record
    codes = [w.code for w in record.warnings]
    assert codes.count("no-attention") == 2
    assert set(codes) <= {"no-attention", "served"}  # how the file is served depends on the machine
    assert abs(record.ledger["residual_relative"]) < 1e-5
    assert isinstance(record.fidelity, Fidelity)
    assert record.fidelity.difference <= record.fidelity.allowed


@pytest.mark.parametrize("form", ["int8", "all-qdq", "nbits"])
def test_in_float64(form: str, tmp_path: Path) -> None:
    """Whole numbers are read in NumPy as the runtime reads them; the ledger closes to rounding."""
    path = make_form(MODELS / "reviews-bert", form, tmp_path)
    rough = Explainer(path)
    exact = Explainer(rough.model, dtype="float64")
    sample = next(samples("reviews-bert", 1))
    ours, reference = (e.explain(sample)[0].record for e in (rough, exact))
    assert abs(reference.ledger["residual_relative"]) < 1e-10
    assert correlation(ours, reference) > 0.99
