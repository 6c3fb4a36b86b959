"""Seconds from the start of a process to the map, beside the model's own forward pass.

    python benchmarks/cold_start.py [--small | --model FOLDER] [--lxt FOLDER] [--rounds N]

In every round, one after the other: a program that imports ONNX Runtime, loads the model and runs
it once (``plain``), the same with the tokenizer (``tokenizer``), ``palrp-onnx explain`` with an
empty cache (``first``) and again (``second``), and with ``--no-cache``. The table has medians of
wall time and of processor time, and ratios of the medians to ``plain``. Wall time needs a quiet
machine; processor time is less disturbed by others, but counts threads that wait.

By default the model is a BERT classifier of base size with random weights, exported for this
purpose (extra ``export``), which is kept under ``--place``; ``--small`` takes
``models/reviews-bert``. With ``--lxt`` there is AttnLRP by LXT on the weights of the former, in
PyTorch: FOLDER is put on the path of Python and has lxt 2.1 with its Transformers.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from first_maps import REVIEWS, make_model

PLAIN = """
import sys
{tokenizer}
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
ids = {ids}
ones, zeros = np.ones_like(ids), np.zeros_like(ids)
given = {{"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}}
session.run(None, {{each.name: given[each.name] for each in session.get_inputs()}})
"""
TOKENIZER = "from tokenizers import Tokenizer"
READ = (
    "np.array([Tokenizer.from_file(sys.argv[3]).encode(open(sys.argv[2]).read()).ids])",
    "np.array([[int(each) for each in sys.argv[2].split()]])",
)
LXT = """
import sys
import torch
from lxt.efficient import monkey_patch
from transformers import PreTrainedTokenizerFast
from transformers.models.bert import modeling_bert

monkey_patch(modeling_bert)
network = modeling_bert.BertForSequenceClassification.from_pretrained(sys.argv[1]).eval()
network.requires_grad_(False)
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
ids = tokenizer(open(sys.argv[2]).read(), return_tensors="pt").input_ids
embedded = network.get_input_embeddings()(ids).requires_grad_()
network(inputs_embeds=embedded).logits[0].max().backward()
(embedded * embedded.grad).sum(-1)[0].tolist()
"""


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall time and processor time of one process, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


def tokens(tokenizer: Path, text: Path) -> str:
    """The ids of a text, separated by spaces."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer)).encode(text.read_text(encoding="utf-8")).ids
    return " ".join(map(str, ids))


def programs(folder: Path, home: Path, lxt: Path | None) -> dict[str, tuple[list[str], bool]]:
    """Name → command, and whether the cache is emptied before."""
    onnx = folder / "onnx" if (folder / "onnx").is_dir() else folder
    model, tokenizer, text = onnx / "model.onnx", folder / "tokenizer.json", REVIEWS / "sample.txt"
    python = [sys.executable, "-c"]
    plain = PLAIN.format(tokenizer="", ids=READ[1])
    reading = PLAIN.format(tokenizer=TOKENIZER, ids=READ[0])
    ours = [sys.executable, "-m", "palrp_onnx", "explain", str(model), "--input", str(text)]
    ours += ["-o", str(home / "map.json"), "-q"]
    found = {
        "plain": ([*python, plain, str(model), tokens(tokenizer, text)], False),
        "tokenizer": ([*python, reading, str(model), str(text), str(tokenizer)], False),
        "first": (ours, True),
        "second": (ours, False),
        "no cache": ([*ours, "--no-cache"], False),
    }
    if lxt is not None:
        found["LXT"] = ([*python, LXT, str(folder), str(text)], False)
    return found


def measure(folder: Path, rounds: int, threads: int, lxt: Path | None) -> None:
    """Run all programs in turn, and print the table."""
    from palrp_onnx.cache.folder import CacheFolder

    walls: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        environment = {**os.environ, "XDG_CACHE_HOME": scratch, "PALRP_ONNX_CACHE": "1"}
        environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        for number in range(rounds + 1):  # the first round warms the pages of files
            for name, (command, empty) in programs(folder, home, lxt).items():
                if empty:
                    CacheFolder(home / "palrp-onnx").clear()
                own = {**environment, "PYTHONPATH": str(lxt)} if name == "LXT" else environment
                wall, cpu = timed(command, own)
                if number:
                    walls.setdefault(name, []).append(wall)
                    cpus.setdefault(name, []).append(cpu)
    print("| program | wall, s | ÷ plain | processor, s | ÷ plain |\n|---|---|---|---|---|")
    base = [statistics.median(each["plain"]) for each in (walls, cpus)]
    for name in walls:
        wall, cpu = (statistics.median(each[name]) for each in (walls, cpus))
        print(f"| {name} | {wall:.2f} | {wall / base[0]:.2f} | {cpu:.2f} | {cpu / base[1]:.2f} |")


def main() -> None:
    """Make the model, if it is not there, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="models/reviews-bert")
    parser.add_argument("--model", type=Path, help="a folder with model.onnx and tokenizer.json")
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir(), "cold-start"))
    parser.add_argument("--lxt", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = REVIEWS if options.small else options.model or options.place
    if not options.small and options.model is None and not (folder / "onnx").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        make_model(folder)
    measure(folder, options.rounds, options.threads, options.lxt)


if __name__ == "__main__":
    main()
