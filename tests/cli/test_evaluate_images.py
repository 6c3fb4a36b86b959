"""``evaluate pixels`` and ``evaluate segmentation`` over digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from committed import MODELS
from PIL import Image
from sklearn.datasets import load_digits

Run = Callable[..., Result]

DIGITS = MODELS / "digits-vit"
MODEL = DIGITS / "model.onnx"
#: Held out when the model was trained, and given the right class by it.
CHOSEN = (0, 10, 15, 20, 25, 30)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, masks of their strokes, and their classes."""
    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for k in CHOSEN:
        grey = Image.fromarray(np.round(data.images[k] * 255 / 16).astype(np.uint8))
        grey = grey.resize((64, 64), Image.Resampling.BICUBIC)
        grey.save(folder / "images" / f"{k}.png")
        grey.point(lambda level: level > 100 and 255).save(folder / "masks" / f"{k}.png")
    classes = {str(k): int(data.target[k]) for k in CHOSEN}
    (folder / "classes.json").write_text(json.dumps(classes))
    return folder


def test_pixels(digits: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    given = ("--input", digits / "images", "--baseline", "mean", "-q", "-o", out)
    result = run("evaluate", "pixels", MODEL, *given)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert list(found) == ["pa-lrp", "attnlrp", "random"]
    assert all(name in result.stdout for name in found)
    for name in ("pa-lrp", "attnlrp"):
        ours, random = found[name]["predicted"], found["random"]["predicted"]
        assert ours["positive"]["high"] < random["positive"]["area"]
        assert ours["negative"]["low"] > random["negative"]["area"]
        assert len(ours["positive"]["curve"]) == 9
        assert found[name]["target"] is None
        assert (found[name]["samples"], found[name]["baseline"]) == (6, "mean")
    again = run("evaluate", "pixels", MODEL, *given, "--json")
    assert json.loads(again.stdout) == found


def test_the_true_class(digits: Path, run: Run) -> None:
    given = ("--input", digits / "images", "--method", "attnlrp", "--json", "-q")
    result = run("evaluate", "pixels", MODEL, *given, "--classes", digits / "classes.json")
    assert result.exit_code == 0, result.output
    known = json.loads(result.stdout)
    # The model is right on all six, so its own class and the true one are the same.
    for name in ("attnlrp", "random"):
        assert known[name]["target"] == known[name]["predicted"]
    other = json.loads(run("evaluate", "pixels", MODEL, *given, "--target", "8").stdout)
    assert other["attnlrp"]["predicted"] == known["attnlrp"]["predicted"]
    assert other["attnlrp"]["target"]["negative"]["area"] < 0.4  # there is no 8 among them
    both = run(
        *("evaluate", "pixels", MODEL, *given),
        *("--classes", digits / "classes.json", "--target", "8"),
    )
    assert (both.exit_code, "both name" in both.stderr) == (2, True)


def test_a_class_that_is_missing(digits: Path, run: Run, tmp_path: Path) -> None:
    classes = tmp_path / "classes.json"
    for text, message in (('{"0": 0}', "missing"), ('{"0": [0]}', "not a label")):
        classes.write_text(text)
        given = ("--input", digits / "images", "--classes", classes, "-q")
        result = run("evaluate", "pixels", MODEL, *given)
        assert result.exit_code == 3
        assert message in result.stderr


def test_segmentation(digits: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    given = ("--input", digits / "images", "--masks", digits / "masks", "-q", "-o", out)
    result = run("evaluate", "segmentation", MODEL, *given)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert list(found) == ["pa-lrp", "attnlrp", "random"]
    assert all(name in result.stdout for name in found)
    ours, random = found["pa-lrp"], found["random"]
    for figure in ("pixel_accuracy", "mean_iou", "mean_ap"):
        assert ours[figure]["low"] > random[figure]["value"]
    ignoring = run("evaluate", "segmentation", MODEL, *given, "--ignore", 255, "--json")
    accuracy = json.loads(ignoring.stdout)["pa-lrp"]["pixel_accuracy"]["value"]
    assert accuracy != ours["pixel_accuracy"]["value"]  # strokes are no longer judged


def test_a_mask_that_is_missing(digits: Path, run: Run, tmp_path: Path) -> None:
    given = ("--input", digits / "images" / "0.png", "-q")
    result = run("evaluate", "segmentation", MODEL, *given, "--masks", tmp_path)
    assert result.exit_code == 3
    assert "0.png" in result.stderr


@pytest.mark.parametrize("command", ["pixels", "segmentation"])
def test_a_journal_goes_on(command: str, digits: Path, run: Run, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    masks = ("--masks", digits / "masks") if command == "segmentation" else ()
    classes = ("--classes", digits / "classes.json") if command == "pixels" else ()
    given = ("evaluate", command, MODEL, "--json", "-q", *masks, *classes)
    whole = run(*given, "--input", digits / "images")
    assert whole.exit_code == 0, whole.output
    kept = (*given, "--journal", journal)
    assert run(*kept, "--input", digits / "images" / "10.png").exit_code == 0
    for _ in range(2):
        assert run(*kept, "--input", digits / "images").stdout == whole.stdout
        assert len(journal.read_text().splitlines()) == 1 + len(CHOSEN)
    other = run(*kept, "--input", digits / "images", "--method", "attnlrp")
    assert (other.exit_code, "other settings" in other.stderr) == (2, True)


def test_curves(digits: Path, run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    given = ("--input", digits / "images" / "0.png", "--method", "attnlrp", "-q")
    assert run("evaluate", "pixels", MODEL, *given, "--curves", picture).exit_code == 0
    with Image.open(picture) as page:
        assert (page.format, page.width) == ("PNG", 1200)


@pytest.mark.parametrize("command", ["pixels", "segmentation"])
def test_texts_are_refused(
    command: str, run: Run, model: Path, text: Path, digits: Path, tmp_path: Path
) -> None:
    masks = ("--masks", tmp_path) if command == "segmentation" else ()
    (tmp_path / f"{text.stem}.png").write_bytes((digits / "masks" / "0.png").read_bytes())
    result = run("evaluate", command, model, "--input", text, *masks, "-q")
    assert result.exit_code == 2
    assert "one image" in result.stderr
