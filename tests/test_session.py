"""Sessions of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from building import proto, real

import palrp_onnx.session
from palrp_onnx.errors import ModelError
from palrp_onnx.session import Session

X = real(2, 3)
GRAPH = proto("y = Neg(x)", {"x": X}).SerializeToString()


def _failing(graph: bytes, options: Any, **more: Any) -> Any:
    """A runtime whose optimiser fails on every graph."""
    if options.graph_optimization_level != onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:
        raise RuntimeError("Exception during initialization: the tensor is there already")
    return onnxruntime.InferenceSession(graph, options, **more)


def test_a_graph_that_the_optimiser_fails_on_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = SimpleNamespace(**{**vars(onnxruntime), "InferenceSession": _failing})
    monkeypatch.setattr(palrp_onnx.session, "_import_runtime", lambda: stub)
    found = Session(GRAPH, tmp_path).run(["y"], {"x": X})
    np.testing.assert_array_equal(found["y"], -X)


def test_a_graph_that_cannot_run_is_refused_with_the_first_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        Session(proto("y = Nothing(x)", {"x": X}).SerializeToString(), tmp_path)


def test_large_blocks_go_back_to_the_system_without_an_arena(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the C library can be told so; on others nothing happens."""
    told: list[tuple[int, int]] = []
    libraries = [SimpleNamespace(), SimpleNamespace(mallopt=lambda *given: told.append(given))]
    for library in libraries:
        palrp_onnx.session._return_pages.cache_clear()
        monkeypatch.setattr(palrp_onnx.session.ctypes, "CDLL", lambda name, made=library: made)
        found = Session(GRAPH, tmp_path, arena=False).run(["y"], {"x": X})
        np.testing.assert_array_equal(found["y"], -X)
    palrp_onnx.session._return_pages.cache_clear()
    assert told == [palrp_onnx.session._OWN_PAGES]
