"""Seconds to the first map of a text, beside other libraries, all on the same weights.

    python benchmarks/first_maps.py --python ENVIRONMENT/bin/python

ENVIRONMENT has PyTorch, Transformers, and those of captum, shap and transformers-interpret that are
to be timed. The model is a BERT classifier of base size with random weights, exported for this
project; the text is that of ``models/reviews-bert``. Each library is called as in its first
examples, with its defaults: gradients along 50 steps (captum, transformers-interpret), 500 masked
texts (shap). Every program is a process of its own, on ``--threads`` threads, in turn: the seconds
from the start of the process to the first map, and those of one more. What they compute differs:
the table compares what a person waits for, not methods. Needs the extra ``export``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REVIEWS = HERE.parent / "models" / "reviews-bert"
LIBRARIES = ("palrp-onnx", "captum", "transformers-interpret", "shap")


def make_model(folder: Path) -> None:
    """A BERT classifier of base size, as a folder of Transformers and as an exported file."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(REVIEWS)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), num_labels=2)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    command = [
        sys.executable,
        "-m",
        "palrp_onnx",
        "export",
        str(folder),
        "-o",
        str(folder / "onnx"),
    ]
    subprocess.run([*command, "--task", "text-classification"], check=True, capture_output=True)


def child(library: str, folder: Path, text: str) -> None:
    """Explain twice, and print the seconds of the first, from the start, and of the second."""
    explain = OPENED[library](folder)
    seconds = []
    for _ in range(2):
        start = time.time()
        explain(text)
        seconds.append(time.time() - start)
    first = time.time() - seconds[1] - float(os.environ["STARTED"])
    print(json.dumps({"first": first, "further": seconds[1]}))


def _ours(folder: Path) -> Callable[[str], Any]:
    import palrp_onnx as px

    return px.load(folder / "onnx").explain


def _parts(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def _captum(folder: Path) -> Callable[[str], Any]:
    from captum.attr import LayerIntegratedGradients

    model, tokenizer = _parts(folder)

    def explain(text: str) -> Any:
        ids = tokenizer(text, return_tensors="pt").input_ids
        method = LayerIntegratedGradients(lambda x: model(x).logits, model.bert.embeddings)
        return method.attribute(ids, baselines=ids * 0, target=0).sum(-1)

    return explain


def _interpret(folder: Path) -> Callable[[str], Any]:
    from transformers_interpret import SequenceClassificationExplainer

    return SequenceClassificationExplainer(*_parts(folder))


def _shap(folder: Path) -> Callable[[str], Any]:
    import shap
    from transformers import pipeline

    model, tokenizer = _parts(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    explainer = shap.Explainer(classify)
    return lambda text: explainer([text])


OPENED = {
    "palrp-onnx": _ours,
    "captum": _captum,
    "transformers-interpret": _interpret,
    "shap": _shap,
}


def main() -> None:
    """Time the libraries in turn and print a table of medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="the environment of the other libraries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("LIBRARY", "FOLDER"))
    options = parser.parse_args()
    text = (REVIEWS / "sample.txt").read_text(encoding="utf-8").strip()
    if options.child:
        child(options.child[0], Path(options.child[1]), text)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
        for _ in range(options.rounds):
            for name in LIBRARIES:
                python = sys.executable if name == "palrp-onnx" else options.python
                if python is None:
                    continue
                environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
                environment |= {"STARTED": str(time.time()), "HF_HUB_OFFLINE": "1"}
                call = [str(python), __file__, "--child", name, folder]
                done = subprocess.run(call, env=environment, capture_output=True, text=True)
                if done.returncode:
                    print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                    continue
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    print("| library | first map, s | a further one, s |\n|---|---|---|")
    for name, rounds in found.items():
        if rounds:
            first, further = (statistics.median(r[k] for r in rounds) for k in ("first", "further"))
            print(f"| {name} | {first:.1f} | {further:.2f} |")


if __name__ == "__main__":
    main()
