"""Time of an explanation, as a ratio to the plain forward session in the same process.

    python benchmarks/engines.py --models bert llama --tokens 128 512
    python benchmarks/engines.py --models bert --tokens 128 --form o2 int8 nbits

Models of the usual sizes with random weights are exported once into the temporary folder. Rounds of
forward and compiled explanation alternate, so that a busy machine slows both; the NumPy engine
runs after them. Ratios are of medians. ``--form`` uses models as production tools rewrite them; the
forward session is then of the same form. Needs the extras ``export`` and ``dev``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from production import FORMS

from palrp_onnx import Explainer, Model
from palrp_onnx.relevance.target_parsing import parse_target

LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
}
#: The shape of SmolLM2-135M.
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
#: Type, heads and width, which the optimiser needs.
SHAPES = {
    "bert": ("bert", 12, 768),
    "distilbert": ("bert", 12, 768),
    "llama": ("gpt2", 12, 768),
    "vit": ("vit", 12, 768),
}
#: name → (family, head, configuration, task).
MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("Bert", "ForSequenceClassification", {}, "text-classification"),
    "distilbert": ("DistilBert", "ForSequenceClassification", {}, "text-classification"),
    "llama": ("Llama", "ForSequenceClassification", LLAMA, "text-classification"),
    "smollm2": ("Llama", "ForCausalLM", SMOLLM2, "text-generation"),
    "vit": ("ViT", "ForImageClassification", {}, "image-classification"),
}


def build(name: str, cache: Path) -> Path:
    """Export a random model unless the file exists."""
    import torch
    import transformers

    from palrp_onnx.export import export_model

    target = cache / name
    if not (target / "model.onnx").exists():
        family, head, arguments, task = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**arguments)
        model = getattr(transformers, f"{family}{head}")(config).eval()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            if name == "vit":
                transformers.ViTImageProcessor().save_pretrained(folder)
            export_model(folder, target, task=task)
    return target / "model.onnx"


def feeds_for(
    model: Model, batch: int, tokens: int, *, vocabulary: int = 30000, side: int = 224
) -> dict[str, np.ndarray[Any, Any]]:
    """Random tokens or pixels."""
    generator = np.random.default_rng(0)
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for signature in model.inputs:
        if signature.name == "pixel_values":
            noise = generator.normal(size=(batch, 3, side, side))
            feeds[signature.name] = noise.astype(np.float32)
        elif signature.name == "input_ids":
            feeds[signature.name] = generator.integers(5, vocabulary, size=(batch, tokens))
        else:
            ones = np.ones((batch, tokens), np.int64)
            feeds[signature.name] = ones * (signature.name == "attention_mask")
    return feeds


def rewrite(plain: Path, name: str, form: str) -> Path:
    """One production form of a model, written unless the file exists."""
    target = plain.with_name(f"{form}.onnx")
    if not target.exists():
        FORMS[form](plain, target, SHAPES[name])
    return target


def measure(path: Path, batch: int, tokens: int, rounds: int) -> str:
    """One row: times and ratios."""
    model = Model.open(path)
    feeds = feeds_for(model, batch, tokens)
    target = parse_target("pred")
    start = time.perf_counter()
    compiled = Explainer(path, engine="onnxruntime").engine(feeds)
    opened = time.perf_counter() - start
    numpy = Explainer(model, engine="numpy").engine(feeds)
    plain = onnxruntime.InferenceSession(str(path))
    tasks: list[Callable[[], Any]] = [
        lambda: plain.run(None, feeds),
        lambda: compiled.explain(feeds, target),
        lambda: numpy.explain(feeds, target),
    ]
    times: list[list[float]] = [[] for _ in tasks]
    # The NumPy engine runs alone, because its use of memory slows the others.
    for together in (range(2), range(2, 3)):
        for each in together:
            tasks[each]()
        for _ in range(rounds):
            for each in together:
                start = time.perf_counter()
                tasks[each]()
                times[each].append(time.perf_counter() - start)
    forward, onnx, eager = (float(np.median(taken)) for taken in times)
    residual = np.abs(compiled.explain(feeds, target).ledger["residual_relative"]).max()
    return (
        f"{path.parent.name:<12}{batch:>6}{tokens:>8}{forward * 1e3:>12.0f}"
        f"{onnx / forward:>12.2f}{eager / forward:>12.2f}{opened:>10.1f}{residual:>12.1e}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bert", "llama", "vit"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--form", nargs="+", choices=["plain", *FORMS], default=["plain"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-benchmarks"
    )
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    print(
        f"{'form':<8}{'model':<12}{'batch':>6}{'tokens':>8}{'forward ms':>12}"
        f"{'compiled ×':>12}{'numpy ×':>12}{'open s':>10}{'residual':>12}"
    )
    for name in options.models:
        plain = build(name, options.cache)
        for form in options.form:
            path = plain if form == "plain" else rewrite(plain, name, form)
            for batch in options.batch:
                for tokens in options.tokens if name != "vit" else [196]:
                    print(f"{form:<8}{measure(path, batch, tokens, options.rounds)}", flush=True)


if __name__ == "__main__":
    main()
