"""An evaluation that was stopped goes on, with the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.journal import Journal
from palrp_onnx.evaluate.perturbation import FRACTIONS, Curves, Steps

SETTINGS = {"sha256": "abc", "methods": ["pa-lrp"]}


def curves(seed: int) -> dict[str, Curves]:
    numbers = np.random.default_rng(seed).normal(size=(4, 3, len(FRACTIONS)))
    return {"pa-lrp": Curves(*(Steps(*each) for each in numbers))}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path, SETTINGS)
    first.add("a", curves(1))
    assert first["a"] is not None
    again = Journal(path, SETTINGS)
    found = again["a"]
    assert found is not None
    for order in ("generation", "ascending", "pruning", "removal"):
        for what in ("evidence", "error", "logit"):
            ours = getattr(getattr(found["pa-lrp"], order), what)
            np.testing.assert_array_equal(ours, getattr(getattr(curves(1)["pa-lrp"], order), what))
    assert again["b"] is None


def test_a_line_that_was_cut_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTINGS)
    journal.add("a", curves(1))
    journal.add("b", curves(2))
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal(path, SETTINGS)
    assert again["a"] is not None
    assert again["b"] is None
    again.add("b", curves(2))
    assert Journal(path, SETTINGS)["b"] is not None


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, SETTINGS).add("a", curves(1))
    with pytest.raises(UsageError, match="other settings"):
        Journal(path, {**SETTINGS, "sha256": "def"})


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, SETTINGS)
    with path.open("a") as stream:
        stream.write('{"id": "a"}\n')
    with pytest.raises(InputError):
        Journal(path, SETTINGS)
