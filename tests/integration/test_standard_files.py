"""Every case of the onnx package that ONNX Runtime runs is explained, or refused with a code.

A refusal is an error with a code; a crash, a hang or an open ledger is a failure. This takes one or
two minutes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from palrp_onnx import Explainer
from palrp_onnx.errors import PalrpError, TargetError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.heavy
#: At least as many of the files that run must be explained.
LEAST = 0.65
TARGETS = ("pred", "0", "0,0", "0,0,0", "0,0,0,0", "0,0,0,0,0", "0,0,0,0,0,0")
#: The outputs themselves are NaN inside of these.
NOT_NUMBERS = "fullymasked", "nan_robustness", "structural_empty", "softmax_precision", "rank4_mask"


def cases() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    for case in found:
        if case.data_sets:
            names = (value.name for value in case.model.graph.input)
            yield case.name, case.model, dict(zip(names, case.data_sets[0][0], strict=False))


def runs(path: Path, feeds: dict[str, Any]) -> bool:
    """Whether ONNX Runtime runs the file on real numbers and yields some."""
    arrays = list(feeds.values())
    if not all(isinstance(a, np.ndarray) for a in arrays) or not any(
        a.dtype.kind == "f" for a in arrays
    ):
        return False
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, feeds)
    except Exception:
        return False
    return any(isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.size for y in outputs)


def test_files_of_the_standard(tmp_path: Path) -> None:
    path, counts, faults = tmp_path / "case.onnx", {"explained": 0, "refused": 0}, []
    for name, model, feeds in cases():
        onnx.save(model, path)
        if not runs(path, feeds):
            continue
        sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
        try:
            residuals = explained(path, sample)
        except PalrpError:
            counts["refused"] += 1
            continue
        except Exception as error:
            faults.append(f"{name}: {error!r}")
            continue
        counts["explained"] += 1
        if not max(residuals) < 1e-3 and not any(each in name for each in NOT_NUMBERS):
            faults.append(f"{name}: residual {max(residuals)}")
    assert not faults, faults
    assert counts["explained"] >= LEAST * sum(counts.values()), counts


def explained(path: Path, sample: Sample) -> list[float]:
    """Residuals of all rows, for the first target that the output has."""
    explainer = Explainer(path)
    for target in TARGETS:
        try:
            rows = explainer.explain(sample, target)
        except TargetError as error:
            if "meaning" in error.message or "indices" in error.message:
                continue
            raise
        return [abs(row.record.ledger["residual_relative"]) for row in rows]
    raise TargetError("No target fits the output")
