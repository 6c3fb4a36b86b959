"""Train a little language model in which verbs agree with their nouns, export it, and measure it.

    python models/train_agreement.py -o models/agreement-lm
    python models/train_agreement.py --evaluate models/agreement-lm

Sentences of a grammar of 50 words: "the keys to the cabinet are old". The verb agrees with the
first noun, whatever stands between them, so that it is known which word decides. Every fifth pair
of nouns is held out. Two layers of width 48 with rotary positions. Needs the extra ``export``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
LENGTH = 16
STEPS, BATCH = 1500, 64
SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
NOUNS = tuple(
    (one, f"{one}s")
    for one in ("key", "cabinet", "film", "book", "teacher", "dog", "friend", "picture", "garden")
)
BETWEEN = ("to", "of", "near", "with", "behind")
VERBS = (("is", "are"), ("was", "were"), ("seems", "seem"))
OLD = ("old", "new", "good", "red", "small", "lovely")
SO = ("very", "so", "rather")


def held_out(first: str, second: str) -> bool:
    """Whether a pair of nouns is only for the measurement."""
    words = [word for pair in NOUNS for word in pair]
    return (words.index(first) + 3 * words.index(second)) % 5 == 0


def sentence(generator: random.Random, *, tests: bool) -> tuple[list[str], int, str]:
    """A sentence, the place of its verb, and the verb in the other number."""
    while True:
        number, other = generator.randrange(2), generator.randrange(2)
        first, second = (generator.choice(NOUNS)[k] for k in (number, other))
        far = tests or generator.random() < 0.8
        if not far or held_out(first, second) == tests:
            break
    old = [generator.choice(OLD)] if generator.random() < 0.3 else []
    words = ["the", *old, first]
    if far:
        words += [generator.choice(BETWEEN), "the", second]
    verb = generator.choice(VERBS)
    so = [generator.choice(SO)] if generator.random() < 0.4 else []
    place = len(words)
    return [*words, verb[number], *so, generator.choice(OLD), "."], place, verb[1 - number]


def build_tokenizer() -> Any:
    """Words; a text begins with [BOS]."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = [*itertools.chain(*NOUNS), *BETWEEN, *itertools.chain(*VERBS), *OLD, *SO, "the", "."]
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", vocabulary["[BOS]"])]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def build_model(size: int) -> Any:
    """A LLaMA of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=LENGTH,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )


def train(output: Path) -> None:
    """Train, save and export the model."""
    import torch
    from torch.nn import functional

    torch.manual_seed(SEED)
    generator = random.Random(SEED)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=STEPS)
    for step in range(STEPS):
        rows = [sentence(generator, tests=False)[0] for _ in range(BATCH)]
        encoded = [[*tokenizer.encode(" ".join(words)).ids, 3] for words in rows]
        longest = max(map(len, encoded))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
        logits = model(input_ids=ids, attention_mask=(ids > 0).long()).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    save(model.eval(), tokenizer, output)


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
            bos_token="[BOS]",
            eos_token="[EOS]",
        ).save_pretrained(folder)
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        export_model(folder, output, task="text-generation")


def evaluate(folder: Path, count: int = 1000) -> float:
    """Share of held-out sentences in which the right number of the verb is the more probable."""
    import onnxruntime
    from tokenizers import Tokenizer

    generator = random.Random(SEED + 1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = {each.name for each in session.get_inputs()}
    right = 0
    for _ in range(count):
        words, place, wrong = sentence(generator, tests=True)
        ids = np.array([tokenizer.encode(" ".join(words[:place])).ids])
        known = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1])[None],
        }
        feeds = {name: array for name, array in known.items() if name in names}
        scores = session.run(None, feeds)[0][0, -1]
        good, bad = (scores[tokenizer.token_to_id(word)] for word in (words[place], wrong))
        right += int(good > bad)
    return right / count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.output is not None:
        train(options.output)
    folder = options.evaluate or options.output
    if folder is None:
        parser.error("give -o or --evaluate")
    print(json.dumps({"agreement": evaluate(folder)}))


if __name__ == "__main__":
    main()
