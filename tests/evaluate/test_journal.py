"""An evaluation that was stopped goes on, with the same result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.journal import Journal, recalled
from palrp_onnx.evaluate.perturbation import FRACTIONS, Curves, Steps
from palrp_onnx.evaluate.segmentation import MaskScores
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

SETTINGS = {"sha256": "abc", "methods": ["pa-lrp"]}


def curves(seed: int) -> dict[str, Curves]:
    numbers = np.random.default_rng(seed).normal(size=(4, 3, len(FRACTIONS)))
    return {"pa-lrp": Curves(*(Steps(*each) for each in numbers))}


def sample(name: str, *ids: int) -> Sample:
    feeds = {"ids": np.array([ids or (1, 2, 3)])}
    return Sample(id=name, kind="tensors", feeds=feeds, facts=InputFacts(kind="tensors"))


def opened(path: Path, **changed: object) -> Journal[Curves]:
    return Journal(path, Curves, {**SETTINGS, **changed})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_what_was_written_is_read_back(path: Path) -> None:
    first = opened(path)
    first.add(curves(1), sample("a"))
    assert first.find(sample("a")) is not None
    again = opened(path)
    found = again.find(sample("a"))
    assert found is not None
    for order in ("generation", "ascending", "pruning", "removal"):
        for what in ("evidence", "error", "logit"):
            ours = getattr(getattr(found["pa-lrp"], order), what)
            np.testing.assert_array_equal(ours, getattr(getattr(curves(1)["pa-lrp"], order), what))
    assert again.find(sample("b")) is None


def test_it_is_made_once(path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Curves]:
        made.append(1)
        return curves(1)

    for _ in range(2):
        recalled(opened(path), make, sample("a"))
    assert len(made) == 1
    recalled(None, make, sample("a"))
    assert len(made) == 2


def test_what_was_edited_is_done_again(path: Path) -> None:
    mask = np.zeros((2, 2), int)
    opened(path).add(curves(1), sample("a"), mask)
    journal = opened(path)
    assert journal.find(sample("a"), mask) is not None
    assert journal.find(sample("a", 1, 2, 4), mask) is None
    assert journal.find(sample("a"), mask + 1) is None
    assert journal.find(replace(sample("a"), id="b"), mask) is None


def test_counts_and_numbers_that_are_not_finite(path: Path) -> None:
    kept = MaskScores(3, 4, np.array([1, 2]), np.array([3, 4]), 0.5)
    Journal(path, MaskScores, SETTINGS).add({"pa-lrp": kept}, sample("a"))
    found = Journal(path, MaskScores, SETTINGS).find(sample("a"))
    assert found is not None
    assert (found["pa-lrp"].correct, found["pa-lrp"].union.tolist()) == (3, [3, 4])
    other = path.with_suffix(".other")
    steps = Steps(*np.array([[0.5, np.nan], [1, 2], [1, 2]]))
    opened(other).add({"pa-lrp": Curves(steps, steps, steps, steps)}, sample("a"))
    read = opened(other).find(sample("a"))
    assert read is not None
    np.testing.assert_array_equal(read["pa-lrp"].pruning.evidence, [0.5, np.nan])


def test_a_line_that_was_cut_is_done_again(path: Path) -> None:
    journal = opened(path)
    journal.add(curves(1), sample("a"))
    journal.add(curves(2), sample("b"))
    path.write_bytes(path.read_bytes()[:-20])
    again = opened(path)
    assert again.find(sample("a")) is not None
    assert again.find(sample("b")) is None
    again.add(curves(2), sample("b"))
    assert opened(path).find(sample("b")) is not None


def test_other_settings_are_refused(path: Path) -> None:
    opened(path).add(curves(1), sample("a"))
    with pytest.raises(UsageError, match="other settings"):
        opened(path, sha256="def")


@pytest.mark.parametrize("line", ['{"id": "a"}', '{"id": "a", "digest": "", "found": [1]}', "\x00"])
def test_another_file_is_refused(path: Path, line: str) -> None:
    opened(path)
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(InputError, match="no evaluation"):
        opened(path)
    path.write_text(line * 2)
    with pytest.raises(InputError, match="no evaluation"):
        opened(path)
