"""``explain --generate``: every token that a language model produces, explained where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import Result
from decoders import VOCABULARY, write_with_tokenizer

Run = Callable[..., Result]


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return write_with_tokenizer(tmp_path)


def greedy(path: Path, count: int) -> list[int]:
    """What ONNX Runtime continues with, the caches left empty."""
    session = onnxruntime.InferenceSession(str(path))
    ids = [3, 7, 1]
    empty = np.zeros((1, 2, 0, 4), np.float32)
    for _ in range(count):
        feeds = {"ids": np.array([ids]), "past_k": empty, "past_v": empty}
        ids.append(int(session.run(["y"], feeds)[0][0, -1].argmax()))
    return ids[3:]


def test_every_token_that_is_produced(run: Run, decoder: Path) -> None:
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "3", "-q")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout_bytes)
    produced = greedy(decoder, 3)
    assert [r["target"]["index"] for r in records] == produced
    labels = [r["target"]["label"].strip() for r in records]
    assert labels == [VOCABULARY[k] for k in produced]
    assert [r["id"] for r in records] == ["prompt-0", "prompt-1", "prompt-2"]
    for step, record in enumerate(records):
        assert record["target"]["position"] == 2 + step
        assert record["units"]["id"] == [3, 7, 1, *produced[:step]]
        assert len(record["relevance"]["total"]) == 3 + step
        text, units = record["input"]["text"], record["units"]
        spans = [text[a:b] for a, b in zip(units["start"], units["end"], strict=True)]
        assert [span.strip() for span in spans] == [t.strip() for t in units["text"]]
        assert abs(record["ledger"]["residual_relative"]) < 1e-6


def test_it_ends_where_the_text_ends(run: Run, decoder: Path) -> None:
    produced = greedy(decoder, 9)
    count = 1 + next(k for k in range(1, 9) if produced[k] not in produced[:k])
    (decoder.parent / "config.json").write_text(json.dumps({"eos_token_id": produced[count - 1]}))
    out = decoder.parent / "out"
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "9", "-o", f"{out}/")
    assert result.exit_code == 0, result.stderr
    pictures = [f"prompt-{step}.png" for step in range(count)]
    assert sorted(p.name for p in out.iterdir()) == [*pictures, "prompt.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "1"), "cannot be used with --target"),
        (("--tensors", "x.npz"), "different lengths"),
    ],
)
def test_options_that_contradict(
    run: Run, decoder: Path, options: tuple[str, ...], message: str
) -> None:
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "2", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_classifier_cannot_continue(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", text, "--generate", "2")
    assert result.exit_code == 2
    assert "predicts the next token" in result.stderr
