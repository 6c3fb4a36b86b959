"""Rows that are padded on either side give the records of the rows alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from committed import FILES, opened, sample
from msgspec import structs

from palrp_onnx import Explainer
from palrp_onnx.inputs.padding import Side
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.stacking import Padding, own_record, stack
from palrp_onnx.jobs.worker import Worker
from palrp_onnx.record import Candidate, Prediction

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_those_alone(side: Side) -> None:
    explainer = Explainer(opened("llama"))
    rows = [replace(sample("llama", 1, n, seed=n), id=str(n)) for n in (9, 5)]
    for row in rows:
        row.feeds["attention_mask"][:] = 1
    padding = Padding("input_ids", 0, frozenset({"attention_mask"}), side)
    joined = explainer.explain(stack(rows, padding))
    for row, found in zip(rows, joined, strict=True):
        length = padding.length(row.feeds)
        own = own_record(found.record, row, length, side)
        (alone,) = explainer.explain(row)
        assert len(own.relevance.total) == length
        assert (own.target.position, own.target.index) == (
            alone.record.target.position,
            alone.record.target.index,
        )
        np.testing.assert_allclose(
            own.relevance.total, alone.record.relevance.total, rtol=1e-3, atol=1e-5
        )


def test_what_the_model_said_of_a_row_padded_on_the_left() -> None:
    """Places of tokens count from the first that is no padding, also where entries are places."""
    row = replace(sample("llama", 1, 5), id="a")
    (found,) = Explainer(opened("llama")).explain(row)
    top = [Candidate(index=index, value=float(-index)) for index in (3, 4)]
    said = Prediction(index=3, value=-3.0, position=4, top=top)
    for head, index in (("question-answering", 1), ("causal-lm", 3)):
        target = structs.replace(found.record.target, head=head)
        record = structs.replace(found.record, target=target, prediction=said)
        own = own_record(record, row, 3, "left").prediction
        assert own and (own.position, own.index, own.top[0].index) == (2, index, index)
        assert own_record(record, row, 3, "right").prediction == said


def test_the_side_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    """A head that reads the first token allows no padding on the left."""
    folder = FILES["reviews-rope"].parent
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Worker(tmp_path / "model.onnx", Settings())._batcher.batching.padding is not None
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    batching = Worker(tmp_path / "model.onnx", Settings())._batcher.batching
    assert (batching.together, batching.padding) == (True, None)
