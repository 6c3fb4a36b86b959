"""Examples in docstrings of the public names give what they say; they name the committed models."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from committed import ROOT

MODULES = (
    "palrp_onnx",
    "palrp_onnx.api.loaded",
    "palrp_onnx.api.evaluation",
    "palrp_onnx.explanation",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(import_module(name))
    assert found.attempted and not found.failed
