"""Questions with four answers to choose from, for a language model that says the next word.

The prompt shows one question that is answered and leaves the second one open. The right answer
stands in another place from question to question. Small models do not answer by letters: SmolLM2 of
135M says C whatever is asked; asked for a word, and for the question after the answers, it is right
about three times in five. As in the paper's protocol only questions that are answered right count;
here each may be asked four times, with the right answer in another place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from palrp_onnx import Model
from palrp_onnx.inputs import open_sample
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.tokens import load_tokenizer
from palrp_onnx.runtime.forward import FileForward

QUESTIONS = Path(__file__).with_name("questions.json")
PREFIX = "Options: grass, blood, sky, coal\nQuestion: Which is blue?\nAnswer: sky\n\nOptions:"
SUFFIX = "\nAnswer:"


def prompt(question: str, answers: list[str]) -> str:
    """What the model goes on from."""
    return f"{PREFIX} {', '.join(answers)}\nQuestion: {question}{SUFFIX}"


def protected(tokenizer: Path) -> tuple[int, int]:
    """Tokens of the prompt in front and at the end that are no part of the question."""
    encode = load_tokenizer(tokenizer).encode
    return len(encode(PREFIX).ids), len(encode(SUFFIX).ids)


def answered(model: Model, tokenizer: Path, folder: Path) -> Iterator[Sample]:
    """Questions that the model answers right, in the first order of the answers in which it does.

    Args:
        model: A language model.
        tokenizer: Its ``tokenizer.json``.
        folder: Where prompts are written.
    """
    says = FileForward(model, "logits")
    encode = load_tokenizer(tokenizer).encode
    for number, asked in enumerate(json.loads(QUESTIONS.read_text("utf-8"))):
        wanted = encode(f" {asked['answer']}").ids[0]
        for turn in range(4):
            place = (number + turn) % 4
            others = asked["others"]
            answers = [*others[:place], asked["answer"], *others[place:]]
            path = folder / f"q{number:03}.txt"
            path.write_text(prompt(asked["question"], answers), encoding="utf-8")
            sample = open_sample(
                path, model_path=model.path, graph_inputs=model.inputs, tokenizer=tokenizer
            )
            if says(sample.feeds)[0, -1].argmax() == wanted:
                yield sample
                break
