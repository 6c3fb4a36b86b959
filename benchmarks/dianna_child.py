"""Child of ``neighbours.py``: RISE on text and KernelSHAP on an image, through DIANNA's API.

Every setting is DIANNA's default. RISE gets a function with one open session, not the path of the
file: with a path, it would open the file again for every hundred masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dianna
import numpy as np
import onnxruntime
import serving
from tokenizers import Tokenizer


class Pieces:
    """The model's word pieces with the interface that DIANNA requires."""

    #: The review models have no [MASK].
    mask_token = "[UNK]"

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def tokenize(self, sentence: str) -> list[str]:
        """Word pieces without special tokens."""
        pieces: list[str] = self._tokenizer.encode(sentence, add_special_tokens=False).tokens
        return pieces

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Word pieces joined by spaces, which :meth:`ids` splits again."""
        return " ".join(tokens)

    def ids(self, sentence: str) -> list[int]:
        """Token ids, special tokens included."""
        pieces = ["[CLS]", *sentence.split(" "), "[SEP]"]
        return [self._tokenizer.token_to_id(piece) for piece in pieces]


def rise(model: Path, source: Path) -> serving.Explain:
    """RISE on text, for the predicted class."""
    pieces = Pieces(model.with_name("tokenizer.json"))
    text = source.read_text().strip()
    session = onnxruntime.InferenceSession(str(model))

    def classify(sentences: list[str]) -> np.ndarray[Any, Any]:
        ids = np.array([pieces.ids(sentence) for sentence in sentences])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feeds["token_type_ids"] = np.zeros_like(ids)
        logits = session.run(None, feeds)[0]
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(odds / odds.sum(-1, keepdims=True))

    joined = pieces.convert_tokens_to_string(pieces.tokenize(text))
    label = int(classify([joined])[0].argmax())

    def explain() -> list[float]:
        (entries,) = dianna.explain_text(classify, text, pieces, "RISE", labels=[label])
        return [float(amount) for _, _, amount in entries]

    return explain


def kernelshap(model: Path, source: Path) -> serving.Explain:
    """KernelSHAP on an image, for the predicted class."""
    pixels = np.load(source)["pixel_values"]
    session = onnxruntime.InferenceSession(str(model))
    label = int(session.run(None, {"pixel_values": pixels})[0].argmax())

    def explain() -> list[float]:
        maps = dianna.explain_image(str(model), pixels[0], "KernelSHAP", labels=[label])
        amounts: list[float] = np.asarray(maps).ravel().tolist()
        return amounts

    return explain


def opening(model: Path, source: Path, method: str) -> serving.Explain:
    """One of both methods."""
    return {"rise": rise, "kernelshap": kernelshap}[method](model, source)


if __name__ == "__main__":
    serving.main(opening, ["dianna", "shap", "onnxruntime"])
