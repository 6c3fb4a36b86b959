"""Maps for the terminal: every unit is on its colour, and control characters are escaped."""

from __future__ import annotations

import msgspec
import pytest
from committed import MODELS
from rich.text import Text

from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs import open_sample
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution
from palrp_onnx.render.coloured import coloured
from palrp_onnx.render.palette import colour

pytestmark = pytest.mark.quick


def record(name: str, file: str) -> Attribution:
    path = MODELS / name / "model.onnx"
    model = Model.open(path)
    sample = open_sample(
        path.with_name(file), model_path=path, graph_inputs=model.inputs, tokenizer=None
    )
    return Explainer(model).explain(sample, "pred")[0].record


def backgrounds(text: Text) -> list[tuple[str, tuple[int, ...]]]:
    found = []
    for span in text.spans:
        style = span.style
        assert not isinstance(style, str)
        triplet = style.bgcolor and style.bgcolor.triplet
        if triplet is not None:
            found.append((text.plain[span.start : span.end], tuple(triplet)))
    return found


def test_tokens_stand_on_their_colours() -> None:
    shown = record("reviews-rope", "sample.txt")
    text = coloured(shown)
    units, total = shown.units, shown.relevance.total
    pairs = zip(total, units.special, strict=True)
    limit = max(abs(v) for v, special in pairs if not special)
    found = backgrounds(text)
    assert found[:-2] == [
        (name, colour(v, limit)) for name, v in zip(units.text, total, strict=True)
    ]
    assert found[-2] == (" against ", colour(-limit, limit))
    assert found[-1] == (" for the target ", colour(limit, limit))


def test_patches_stand_in_their_grid() -> None:
    shown = record("digits-vit", "sample.png")
    assert shown.units.grid is not None
    rows, columns = shown.units.grid
    lines = coloured(shown).plain.split("\n")
    assert lines[:-1] == ["  " * columns] * rows
    limit = max(map(abs, shown.relevance.total))
    found = [each for _, each in backgrounds(coloured(shown))[:-2]]
    assert found == [colour(v, limit) for v in shown.relevance.total]


def test_other_units_are_listed_and_escaped() -> None:
    shown = record("digits-vit", "sample.png")
    count = len(shown.relevance.total)
    names = [f"\x1b[2J{k}" for k in range(count)]
    columns = msgspec.structs.replace(shown.units, kind="column", grid=None, text=names)
    text = coloured(msgspec.structs.replace(shown, units=columns)).plain
    assert "\x1b" not in text
    strongest = max(range(count), key=lambda k: abs(shown.relevance.total[k]))
    assert text.split("\n")[0].endswith(f"[2J{strongest}")
    assert text.count("\n") == 10
