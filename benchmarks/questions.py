"""Multiple choice questions with four answers, for a language model that predicts the next word.

The prompt has one question with its answer and a second one without. The place of the right answer
changes from question to question. Small models cannot answer by letters: SmolLM2 of 135M parameters
always predicts C. With words as answers, and the question after the options, about three in five of
its answers are right. As in the paper's protocol only questions with a right answer count; here
each is tried with up to four places of the right answer.
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
    """The prompt, which the model continues with its answer."""
    return f"{PREFIX} {', '.join(answers)}\nQuestion: {question}{SUFFIX}"


def protected(tokenizer: Path) -> tuple[int, int]:
    """Numbers of tokens at the start and end of the prompt that do not belong to the question."""
    encode = load_tokenizer(tokenizer).encode
    return len(encode(PREFIX).ids), len(encode(SUFFIX).ids)


def answered(model: Model, tokenizer: Path, folder: Path) -> Iterator[Sample]:
    """Questions that the model answers right, with the first order of options for which it does.

    Args:
        model: A language model.
        tokenizer: Its ``tokenizer.json``.
        folder: The folder to which prompts are written.
    """
    forward = FileForward(model, "logits")
    encode = load_tokenizer(tokenizer).encode
    for number, each in enumerate(json.loads(QUESTIONS.read_text("utf-8"))):
        wanted = encode(f" {each['answer']}").ids[0]
        for turn in range(4):
            place = (number + turn) % 4
            others = each["others"]
            answers = [*others[:place], each["answer"], *others[place:]]
            path = folder / f"q{number:03}.txt"
            path.write_text(prompt(each["question"], answers), encoding="utf-8")
            sample = open_sample(
                path, model_path=model.path, graph_inputs=model.inputs, tokenizer=tokenizer
            )
            if forward(sample.feeds)[0, -1].argmax() == wanted:
                yield sample
                break
