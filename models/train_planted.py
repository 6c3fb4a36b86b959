"""Train little classifiers whose labels have a known cause, and write inputs with these causes.

    python models/train_planted.py FOLDER
    python models/train_planted.py FOLDER --tasks first order --kinds rope --samples 50

For every task and architecture ``FOLDER/TASK-KIND`` gets the model, ``inputs`` and ``truth.json``:
the units that decide the label of each input, as ``palrp-onnx evaluate planted`` reads them.

=========  ======================================================  ============================
task       label                                                   cause
=========  ======================================================  ============================
token      one word among neutral ones has a class                 the word
negated    the same, inverted if ``not`` stands anywhere           the word, and ``not``
first      every word has a class; that of the first one counts    the first word
order      whether ``alpha`` stands before ``omega``               both words
distance   whether two ``mark`` are near or far from each other    both words
half       whether ``mark`` is in the first or the second half     the word
patch      one of two patterns in one patch of noise               the patch
side       whether a pattern is in the left or the right half      the patch
=========  ======================================================  ============================

In ``first``, ``order``, ``distance``, ``half`` and ``side`` positions decide: the same units in
another order have another label. Text models have two layers of width 64, with rotary (``rope``:
LLaMA) or learned positions (``bert``), the two for pictures are a ViT of 8 × 8 patches. Each is
trained in about a minute. Only inputs that the model classifies right are written. Needs the extra
``export``.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
SHORTEST, LONGEST = 12, 20
STEPS, BATCH = 1000, 64
NEUTRAL = [f"{a}{b}" for a in "bdgklmnprst" for b in ("a", "e", "i", "o")]
CLASSES = (["bad", "cold", "dark", "dull"], ["good", "warm", "light", "bright"])
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LABELS = {0: "ZERO", 1: "ONE"}

#: Words, places of the cause, label.
Planted = tuple[list[str], list[int], int]


def _neutral(generator: random.Random) -> list[str]:
    return generator.choices(NEUTRAL, k=generator.randint(SHORTEST, LONGEST))


def token(generator: random.Random) -> Planted:
    """One word decides."""
    words, label = _neutral(generator), generator.randrange(2)
    place = generator.randrange(len(words))
    words[place] = generator.choice(CLASSES[label])
    return words, [place], label


def negated(generator: random.Random) -> Planted:
    """One word decides, and another inverts it."""
    words, (place,), label = token(generator)
    if generator.randrange(2):
        return words, [place], label
    other = generator.choice([k for k in range(len(words)) if k != place])
    words[other] = "not"
    return words, sorted([place, other]), 1 - label


def first(generator: random.Random) -> Planted:
    """The first of many words that would decide."""
    labels = [generator.randrange(2) for _ in _neutral(generator)]
    return [generator.choice(CLASSES[k]) for k in labels], [0], labels[0]


def order(generator: random.Random) -> Planted:
    """Which of two words is the earlier one."""
    words = _neutral(generator)
    places = generator.sample(range(len(words)), 2)
    for place, word in zip(places, ("alpha", "omega"), strict=True):
        words[place] = word
    return words, sorted(places), int(places[0] < places[1])


def distance(generator: random.Random) -> Planted:
    """How far apart two words are: at most three places, or at least six."""
    words, label = _neutral(generator), generator.randrange(2)
    apart = generator.randint(1, 3) if label else generator.randint(6, len(words) - 1)
    start = generator.randrange(len(words) - apart)
    words[start] = words[start + apart] = "mark"
    return words, [start, start + apart], label


def half(generator: random.Random) -> Planted:
    """In which half of sixteen words one is."""
    words, place = generator.choices(NEUTRAL, k=16), generator.randrange(16)
    words[place] = "mark"
    return words, [place], int(place >= 8)


TEXTS: dict[str, Callable[[random.Random], Planted]] = {
    each.__name__: each for each in (token, negated, first, order, distance, half)
}
PICTURES = ("patch", "side")


# --- texts ----------------------------------------------------------------------------------------
def build_tokenizer() -> Any:
    """Words between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*NEUTRAL, *CLASSES[0], *CLASSES[1], "not", "alpha", "omega", "mark"]
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def text_model(kind: str, size: int) -> Any:
    """LLaMA or BERT of two layers."""
    import transformers

    shared: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": LONGEST + 2,
        "pad_token_id": 0,
        "id2label": LABELS,
        "label2id": {name: index for index, name in LABELS.items()},
    }
    if kind == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**shared))
    config = transformers.LlamaConfig(**shared, bos_token_id=2, eos_token_id=3)
    return transformers.LlamaForSequenceClassification(config)


def train_text(task: str, kind: str, steps: int) -> tuple[Any, Any]:
    """A model of one task, and its tokenizer."""
    import torch

    generator, tokenizer = random.Random(SEED), build_tokenizer()
    known = tokenizer.get_vocab()
    model = text_model(kind, len(known))

    def batch() -> tuple[dict[str, Any], Any]:
        rows = [TEXTS[task](generator) for _ in range(BATCH)]
        encoded = [[2, *(known[word] for word in words), 3] for words, _, _ in rows]
        width = max(map(len, encoded))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in encoded])
        labels = torch.tensor([label for _, _, label in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}, labels

    _train(model, batch, steps)
    return model, tokenizer


def _train(model: Any, batch: Callable[[], tuple[dict[str, Any], Any]], steps: int) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for _ in range(steps):
        inputs, labels = batch()
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def save_text(model: Any, tokenizer: Any, output: Path) -> None:
    """Save as a Hugging Face folder and export that."""
    from transformers import PreTrainedTokenizerFast

    from palrp_onnx.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
        ).save_pretrained(folder)
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        export_model(folder, output, task="text-classification")


def write_texts(model: Any, tokenizer: Any, task: str, output: Path, count: int) -> float:
    """Texts that were not trained on and are classified right; the share of all that are."""
    import torch

    generator, truth, tried = random.Random(SEED + 1), {}, 0
    (output / "inputs").mkdir(exist_ok=True)
    while len(truth) < count and tried < 4 * count:
        words, places, label = TEXTS[task](generator)
        ids = torch.tensor([tokenizer.encode(" ".join(words)).ids])
        with torch.no_grad():
            said = int(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.argmax())
        tried += 1
        if said == label:
            name = f"{len(truth):04}"
            (output / "inputs" / f"{name}.txt").write_text(" ".join(words), encoding="utf-8")
            truth[name] = [1 + place for place in places]  # after [CLS]
    _write_truth(output, truth)
    return len(truth) / tried


def _write_truth(output: Path, truth: dict[str, list[int]]) -> None:
    (output / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


# --- pictures -------------------------------------------------------------------------------------
GRID, SIZE = 8, 4
_STRIPES = np.indices((SIZE, SIZE)).sum(axis=0) // 2 % 2 * 120 - 60.0


def picture(task: str, generator: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """Grey noise with one pattern; the patch that holds it, and the label."""
    pixels = generator.normal(128, 25, (GRID * SIZE, GRID * SIZE))
    place, falling = int(generator.integers(GRID * GRID)), int(generator.integers(2))
    row, column = divmod(place, GRID)
    pattern = _STRIPES[::-1] if falling else _STRIPES
    pixels[row * SIZE :, column * SIZE :][:SIZE, :SIZE] += pattern
    label = falling if task == "patch" else int(column >= GRID // 2)
    return pixels.clip(0, 255).astype(np.uint8), place, label


def processor() -> Any:
    """How pictures become arrays."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        size={"height": GRID * SIZE, "width": GRID * SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def _prepared(pixels: np.ndarray) -> Any:
    import torch

    grey = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5
    return grey[:, None].repeat(1, 3, 1, 1)


def train_picture(task: str, steps: int) -> Any:
    """A little ViT."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=GRID * SIZE,
        patch_size=SIZE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
    )
    model, generator = ViTForImageClassification(config), np.random.default_rng(SEED)

    def batch() -> tuple[dict[str, Any], Any]:
        rows = [picture(task, generator) for _ in range(BATCH)]
        pixels = _prepared(np.stack([pixels for pixels, _, _ in rows]))
        return {"pixel_values": pixels}, torch.tensor([label for _, _, label in rows])

    _train(model, batch, steps)
    return model


def save_picture(model: Any, output: Path) -> None:
    """Save as a Hugging Face folder and export that."""
    from palrp_onnx.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor().save_pretrained(folder)
        export_model(folder, output, task="image-classification")


def write_pictures(model: Any, task: str, output: Path, count: int) -> float:
    """Pictures that were not trained on and are classified right; the share of all that are."""
    import torch
    from PIL import Image

    generator, truth, tried = np.random.default_rng(SEED + 1), {}, 0
    (output / "inputs").mkdir(exist_ok=True)
    while len(truth) < count and tried < 4 * count:
        pixels, place, label = picture(task, generator)
        with torch.no_grad():
            said = int(model(pixel_values=_prepared(pixels[None])).logits.argmax())
        tried += 1
        if said == label:
            name = f"{len(truth):04}"
            Image.fromarray(pixels).convert("RGB").save(output / "inputs" / f"{name}.png")
            truth[name] = [place]
    _write_truth(output, truth)
    return len(truth) / tried


def main() -> None:
    """Command line."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="FOLDER")
    parser.add_argument("--tasks", nargs="+", choices=[*TEXTS, *PICTURES], default=None)
    parser.add_argument("--kinds", nargs="+", choices=("rope", "bert"), default=("rope", "bert"))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    for task in options.tasks or [*TEXTS, *PICTURES]:
        for kind in options.kinds if task in TEXTS else ("vit",):
            torch.manual_seed(SEED)
            place = options.output / f"{task}-{kind}"
            if task in TEXTS:
                model, tokenizer = train_text(task, kind, options.steps)
                save_text(model.eval(), tokenizer, place)
                right = write_texts(model, tokenizer, task, place, options.samples)
            else:
                model = train_picture(task, options.steps)
                save_picture(model.eval(), place)
                right = write_pictures(model, task, place, options.samples)
            print(json.dumps({"model": place.name, "accuracy": round(right, 3)}), flush=True)


if __name__ == "__main__":
    main()
