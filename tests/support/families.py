"""Small networks of the families that Optimum exports, from seeds.

Weights are random but every bias, norm and table is non-trivial, so that a wrong sign or a lost
term shows in the ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from once import made_once

from palrp_onnx import Model
from palrp_onnx.export import export_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

TEXT: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 24,
    "patch_size": 8,
}
GPT2: dict[str, Any] = {
    "vocab_size": 90,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "pad_token_id": 1,
}
DISTIL: dict[str, Any] = {
    "vocab_size": 90,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
ROPE = {("rope", 0), ("rope", 1)}
LEARNED = {("learned", 0)}
KV = {"num_key_value_heads": 2}

TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
}
#: name → (family, head, configuration, sites as (kind, layer)).
FAMILIES: dict[str, tuple[str, str, dict[str, Any], set[tuple[str, int]]]] = {
    "bert": ("Bert", "ForSequenceClassification", TEXT, LEARNED),
    "bert-mlm": ("Bert", "ForMaskedLM", TEXT, LEARNED),
    "roberta": ("Roberta", "ForSequenceClassification", TEXT, LEARNED),
    "distilbert": ("DistilBert", "ForSequenceClassification", DISTIL, LEARNED),
    "distilbert-sin": (
        "DistilBert",
        "ForSequenceClassification",
        {**DISTIL, "sinusoidal_pos_embds": True},
        {("sinusoidal", 0)},
    ),
    "gpt2": ("GPT2", "LMHeadModel", GPT2, LEARNED),
    "gpt2-tc": ("GPT2", "ForSequenceClassification", GPT2, LEARNED),
    "llama": ("Llama", "ForCausalLM", TEXT | KV, ROPE),
    "llama-tc": ("Llama", "ForSequenceClassification", TEXT | KV, ROPE),
    "mistral": ("Mistral", "ForCausalLM", TEXT | KV | {"sliding_window": 5}, ROPE),
    "qwen2": ("Qwen2", "ForCausalLM", TEXT | KV, ROPE),
    "vit": ("ViT", "ForImageClassification", VISION, LEARNED),
    "deit": ("DeiT", "ForImageClassificationWithTeacher", VISION, LEARNED),
}
Array = NDArray[Any]


def build(name: str) -> Any:
    family, head, arguments, _ = FAMILIES[name]
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**arguments)
    model = getattr(transformers, f"{family}{head}")(config)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model.eval()


def exported(name: str, opset: int, folder: Path) -> Path:
    """The exported model below ``folder``, made at the first call for it."""

    def export(place: Path) -> None:
        model = build(name)
        if model.config.model_type in ("vit", "deit"):
            size = {"height": 24, "width": 24}
            transformers.ViTImageProcessor(size=size).save_pretrained(place / "torch")
        model.save_pretrained(place / "torch")
        task = TASKS[FAMILIES[name][1]]
        export_model(place / "torch", place / "onnx", task=task, opset=opset)

    return made_once(folder / f"{name}-{opset}", export) / "onnx" / "model.onnx"


def feeds_for(model: Model, tokens: int = 9) -> dict[str, Array]:
    """Two samples; the last two tokens of the second are padding where there is a mask."""
    generator = np.random.default_rng(1)
    feeds: dict[str, Array] = {}
    for signature in model.inputs:
        match signature.name:
            case "pixel_values":
                feeds[signature.name] = generator.normal(size=(2, 3, 24, 24)).astype(np.float32)
            case "input_ids":
                ids = generator.integers(4, 90, size=(2, tokens))
                ids[1, -2:] = 1
                feeds[signature.name] = ids
            case "attention_mask":
                mask = np.ones((2, tokens), np.int64)
                mask[1, -2:] = 0
                feeds[signature.name] = mask
            case "position_ids":
                feeds[signature.name] = np.tile(np.arange(tokens), (2, 1))
            case _:
                types = np.zeros((2, tokens), np.int64)
                types[:, 5:] = 1
                feeds[signature.name] = types
    return feeds
