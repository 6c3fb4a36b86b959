"""Limits from Python; the command's own are tested with it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from palrp_onnx import Explainer, Limit, check_records, join_tensors, save_tensors
from palrp_onnx.errors import CheckError
from palrp_onnx.inputs import open_sample
from palrp_onnx.limits import AGREEMENT_METRICS

pytestmark = pytest.mark.quick

MODEL = Path(__file__).parents[1] / "models" / "digits-vit"


def test_what_the_command_does() -> None:
    explainer = Explainer(MODEL / "model.onnx")
    sample = open_sample(
        MODEL / "sample.png",
        model_path=MODEL / "model.onnx",
        graph_inputs=explainer.model.inputs,
        tokenizer=None,
    )
    found = explainer.explain(sample, "index:0,index:1")
    records = [each.record for each in found]
    check_records([Limit.parse("residual>0.5")], records)
    with pytest.raises(CheckError, match=r"position_share is .* 1 more failed"):
        check_records([Limit.parse("position_share>=0")], records)
    stream = io.BytesIO()
    save_tensors(join_tensors(found), stream)
    stream.seek(0)
    assert len(np.load(stream)["pixels"]) == 2


def test_metrics_have_a_kind() -> None:
    assert str(Limit.parse(" overlap <= 0.50 ", AGREEMENT_METRICS)) == "overlap<=0.5"
    with pytest.raises(ValueError, match="is not one of residual"):
        Limit.parse("overlap<=0.5")
