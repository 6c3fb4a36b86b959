"""An image and texts from the command line, for a graph of two towers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from towers import write_towers

from palrp_onnx.cli.main import program

pytestmark = pytest.mark.quick


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_towers(tmp_path)
    return tmp_path


def explain(folder: Path, *options: str) -> tuple[int, str, str]:
    files = ["--input", str(folder / "photo.png"), "--input", f"ids={folder / 'texts.txt'}"]
    found = CliRunner().invoke(program, ["explain", str(folder / "clip.onnx"), *files, *options])
    return found.exit_code, found.stdout, found.stderr


def test_every_text_is_a_target_by_its_own_words(folder: Path) -> None:
    for k, text in enumerate(("a cat", "red car")):
        code, out, _ = explain(folder, "--target", text)
        record = json.loads(out)
        assert code == 0 and record["target"]["index"] == k and record["target"]["label"] == text
        assert record["target"]["head_reason"] == "its columns are the texts of input ids"
        assert "probability" not in record["target"]  # CLIP has a softmax of them, SigLIP sigmoids
        assert record["input_name"] == "x" and record["units"]["grid"] == [2, 2]
        (words,) = record["others"]
        assert words["input"] == "ids" and words["units"]["text"] == ["a", "cat", "red", "car"]
        other = slice(2, 4) if k == 0 else slice(0, 2)
        assert not any(words["relevance"]["total"][other])
        assert abs(record["ledger"]["residual_relative"]) < 1e-5
        half = record["target"]["value"] / 2  # a product gives each factor a half
        assert sum(words["relevance"]["content"]) == pytest.approx(half, rel=1e-4)


def test_as_many_texts_as_are_given(folder: Path) -> None:
    """The columns of the output are those of this input, not of an example."""
    (folder / "texts.txt").write_text("a cat\nred car\na car\nred cat\n")
    for target, column in (("index:3", 3), ("red cat", 3), ("index:-4", 0)):
        code, out, err = explain(folder, "--target", target)
        assert code == 0, err
        assert json.loads(out)["target"]["index"] in (column, column - 4)
    code, out, _ = explain(folder, "--target", "all")
    assert code == 0 and len(json.loads(out)) == 4
    code, _, err = explain(folder, "--target", "index:4")
    assert code == 4 and "which has 4" in err


def test_a_subset_of_the_inputs(folder: Path) -> None:
    _, out, _ = explain(folder, "--explain-input", "x")
    assert "others" not in json.loads(out)
    both = ("--explain-input", "ids", "--explain-input", "x")
    _, out, _ = explain(folder, *both)
    record = json.loads(out)
    assert record["input_name"] == "x" and [each["input"] for each in record["others"]] == ["ids"]
    code, _, said = explain(folder, "--explain-input", "nothing")
    assert code == 2 and "'nothing' is not an input" in said


def test_pictures_and_summary(folder: Path) -> None:
    code, _, said = explain(folder, "-o", str(folder / "out"), "--format", "json,png,html")
    assert code == 0 and "strongest: x: patch" in said and "strongest: ids: " in said
    page = (folder / "out" / "photo+texts.html").read_text()
    assert page.count('class="map"') == 2 and page.count('<img class="ground"') == 1


def test_a_compiled_file_has_both_maps(folder: Path) -> None:
    place = folder / "explainer.onnx"
    compiled = CliRunner().invoke(program, ["compile", str(folder / "clip.onnx"), "-o", str(place)])
    assert compiled.exit_code == 0
    made = onnx.load(place)
    names = {value.name for value in made.graph.output}
    assert {"relevance_content", "relevance_content/ids", "relevance_ledger"} <= names
    _, direct, _ = explain(folder, "--target", "index:1")
    place.replace(folder / "clip.onnx")
    _, again, _ = explain(folder, "--target", "index:1")
    first, second = json.loads(direct), json.loads(again)
    for one, other in zip(first["others"], second["others"], strict=True):
        np.testing.assert_allclose(one["relevance"]["total"], other["relevance"]["total"], 1e-5)
