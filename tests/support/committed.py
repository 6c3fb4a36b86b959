"""Models that are committed, and random input for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from building import Array

from palrp_onnx import Model
from palrp_onnx.inputs import Sample
from palrp_onnx.record import InputFacts

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
GOLDEN = ROOT / "tests" / "golden"
FILES = {
    "bert": GOLDEN / "lxt_bert_seqcls/model.onnx",
    "gpt2": GOLDEN / "lxt_gpt2_lm/model.onnx",
    "llama": GOLDEN / "palrp_llama_causal_gqa/model.onnx",
    "llama-tc": GOLDEN / "palrp_llama_seqcls/model.onnx",
    "vit": GOLDEN / "lxt_vit_hf/model.onnx",
    "reviews-rope": MODELS / "reviews-rope/model.onnx",
    "reviews-bert": MODELS / "reviews-bert/model.onnx",
    "digits-vit": MODELS / "digits-vit/model.onnx",
}


@cache
def opened(name: str) -> Model:
    """The model, opened once."""
    return Model.open(FILES[name])


def sample(name: str, samples: int = 2, tokens: int = 9, seed: int = 0) -> Sample:
    """Random input; the last row's last two tokens are padding."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for signature in opened(name).inputs:
        if signature.name == "pixel_values":
            side = 16 if name == "digits-vit" else 48
            feeds["pixel_values"] = generator.normal(size=(samples, 3, side, side)).astype("f4")
        elif signature.name == "input_ids":
            feeds["input_ids"] = generator.integers(5, 60, size=(samples, tokens))
        elif signature.name == "attention_mask":
            mask = np.ones((samples, tokens), np.int64)
            mask[-1, -2:] = 0
            feeds["attention_mask"] = mask
        elif signature.name == "position_ids":
            feeds["position_ids"] = np.tile(np.arange(tokens), (samples, 1))
        else:
            feeds[signature.name] = np.zeros((samples, tokens), np.int64)
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
