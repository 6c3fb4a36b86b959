"""Explanations on a GPU: equal to the CPU's, placed on the GPU, and timed beside the forward pass.

    python benchmarks/cuda.py                        # with a GPU and ".[gpu]" installed
    python benchmarks/cuda.py --device cpu --quick   # the same in small, anywhere

    python benchmarks/full_size.py FOLDER            # full-size graphs, beforehand
    python benchmarks/cuda.py --models FOLDER

Four parts, each with a table; ``--parts`` chooses some.

equality
    The committed models, unchanged and in float16, with every method: the largest difference of a
    map from that of the same file on the CPU, over the largest value, and both residuals.
placement
    Nodes of the compiled graphs that do not run on the GPU, and copies between the devices, as
    ONNX Runtime's profile names them, with the bytes that they wrote.
speed
    Medians of the forward pass alone (its output stays on the GPU) and of an explanation, in
    alternating rounds; and the memory of the GPU that is taken after both.
lxt
    Efficient AttnLRP in PyTorch (LXT) in bfloat16 on the same weights, where it is installed.

Exits with 1 if a provider is not the requested one, maps differ by more than 2e-3 (half precision:
2e-2), a ledger stays open by more than 1e-4 (half precision: 5e-3) and by more than 100 times what
the CPU leaves, which computes half precision in full, or a node elsewhere writes more than a
kilobyte. The ε-rule is left out in half precision: its maps there are rounding errors everywhere.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import gc
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from engines import feeds_for
from onnxruntime.transformers.float16 import convert_float_to_float16

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import PalrpError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.relevance.target_parsing import parse_target

COMMITTED = Path(__file__).parents[1] / "models"
NAMES = ("reviews-rope", "reviews-bert", "digits-vit")
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
#: Largest allowed (difference of maps, residual), by half precision.
LIMITS = {False: (2e-3, 1e-4), True: (2e-2, 5e-3)}
#: Largest output of a node that may run elsewhere, in bytes: lengths of axes and indices.
_SMALL = 1024
#: (batch, tokens) of full-size models, by how memory is used.
SIZES = {
    "fast": ((1, 128), (1, 512), (1, 2048), (1, 8192), (32, 128), (32, 512)),
    "bounded": ((1, 2048), (1, 8192), (32, 512)),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", metavar="cuda[:N]|cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", type=Path, help="folder that full_size.py wrote")
    parser.add_argument("--names", nargs="+", help="full-size models; all in the folder by default")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes for equality")
    parser.add_argument("--quick", action="store_true", help="one method, small sizes")
    options = parser.parse_args()
    print(_machine(options.device), flush=True)
    good = [PARTS[part](options) for part in options.parts]
    sys.exit(not all(good))


def equality(options: argparse.Namespace) -> bool:
    """The committed models against the CPU; whether all are within the limits."""
    methods = ["pa-lrp"] if options.quick else list(METHODS)
    tasks = [
        (name, half, method, options.device)
        for name in NAMES
        for half in (False, True)
        for method in methods
        if not (half and method == "eps-lrp")
    ]
    print(f"\n{'model':<14}{'weights':<9}{'method':<18}", end="")
    print(f"{'difference':>11}{'residual':>10}{'on CPU':>10}  provider")
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, spawned) as pool:
        rows = [_row(*each) for each in zip(tasks, pool.map(_compared, tasks), strict=True)]
    return all(rows)


Compared = tuple[float, float, float, str]


def _row(task: tuple[str, bool, str, str], found: Compared) -> bool:
    """Print one row; whether it is within the limits."""
    name, half, method, device = task
    difference, residual, expected, provider = found
    most, open_books = LIMITS[half]
    fits = provider == PROVIDERS[device.partition(":")[0]] and difference <= most
    fits = fits and residual <= max(open_books, 100 * expected)
    weights, verdict = "float16" if half else "float32", "" if fits else "  FAILED"
    print(
        f"{name:<14}{weights:<9}{method:<18}{difference:>11.1e}{residual:>10.1e}{expected:>10.1e}"
        f"  {provider}{verdict}",
        flush=True,
    )
    return fits


def _compared(task: tuple[str, bool, str, str]) -> Compared:
    """(difference, residual, residual on the CPU, provider or what went wrong)."""
    name, half, method, device = task
    with tempfile.TemporaryDirectory() as folder:
        path = COMMITTED / name / "model.onnx"
        if half:
            model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
        try:
            expected, closed, _ = _explained(path, method, "cpu")
            found, residual, provider = _explained(path, method, device)
        except PalrpError as error:
            return np.nan, np.nan, np.nan, f"{type(error).__name__}: {error} {error.hint}"
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    return difference, residual, closed, provider


def _explained(path: Path, method: str, device: str) -> tuple[np.ndarray[Any, Any], float, str]:
    """(maps, residual, provider)."""
    explainer = Explainer(path, method=method, device=device)
    feeds = feeds_for(explainer.model, 4, 128, vocabulary=8000, side=16)
    sample = Sample("random", "tensors", feeds, InputFacts(kind="tensors"))
    records = [each.record for each in explainer.explain(sample, "0")]
    maps = np.array([record.relevance.total for record in records])
    return maps, max(record.residual for record in records), records[0].run.providers[0]


def placement(options: argparse.Namespace) -> bool:
    """Nodes by provider; whether all that compute real numbers run where they should."""
    wanted = PROVIDERS[options.device.partition(":")[0]]
    print(f"\n{'model':<16}{'nodes':>6}{'elsewhere':>10}{'copies':>7}{'bytes':>12}  elsewhere")
    good = True
    for name, path in _all_models(options):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            graph = path.parent / f"{Path(folder).name}.onnx"
            graph.write_bytes(compile_model(path, graph))
            try:
                nodes = _profile(graph, folder, options.device)
            finally:
                graph.unlink()
        elsewhere = [n for n in nodes if n["provider"] != wanted]
        copies = [n for n in nodes if n["op_name"].startswith("Memcpy")]
        kinds = collections.Counter(f"{n['op_name']}:{_output_type(n)}" for n in elsewhere)
        written = sum(int(n.get("output_size", 0)) for n in elsewhere + copies)
        good &= all(int(node.get("output_size", 0)) <= _SMALL for node in elsewhere)
        shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(
            f"{name:<16}{len(nodes):>6}{len(elsewhere):>10}{len(copies):>7}{written:>12}  {shown}",
            flush=True,
        )
    return good


def _profile(graph: Path, folder: str, device: str) -> list[dict[str, Any]]:
    """The nodes of one run, with type, provider and size of their outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / "profile")
    session = onnxruntime.InferenceSession(str(graph), options, providers=_providers(device))
    feeds = feeds_for(Model.open(graph), 1, 64, vocabulary=8000, side=16)
    session.run(None, {name: a for name, a in feeds.items() if name in _names(session)})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [e["args"] for e in events if e.get("cat") == "Node" and "provider" in e["args"]]


def _providers(device: str) -> list[Any]:
    """The provider of a device, without TF32, and the CPU's behind it."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return [PROVIDERS[kind]]
    return [(PROVIDERS[kind], {"device_id": index or "0", "use_tf32": "0"}), PROVIDERS["cpu"]]


def _names(session: Any) -> set[str]:
    return {each.name for each in session.get_inputs()}


def _output_type(node: dict[str, Any]) -> str:
    shapes = node.get("output_type_shape") or [{}]
    return next(iter(shapes[0]), "?")


def speed(options: argparse.Namespace) -> bool:
    """Times of the full-size models, or of the committed ones; whether every ledger closes."""
    print(
        f"\n{'model':<16}{'memory':<9}{'batch':>6}{'tokens':>7}{'forward ms':>11}{'explain ms':>11}"
        f"{'ratio':>6}{'residual':>10}{'GPU MiB':>16}"
    )
    good = True
    for name, path in _all_models(options, committed=options.models is None):
        for memory, sizes in SIZES.items():
            small = options.quick or options.models is None
            started = time.perf_counter()
            explainer = Explainer(path, device=options.device, memory=memory)
            explainer.engine(_feeds(explainer.model, *sizes[0], name))
            print(f"{name:<16}{memory:<9}opened in {time.perf_counter() - started:.1f} s")
            for size in SIZES["fast"][:1] if small else sizes:
                row = f"{name:<16}{memory:<9}{size[0]:>6}{size[1]:>7}"
                feeds = _feeds(explainer.model, *size, name)
                good &= _timed(explainer, row, path, feeds, options)
            del explainer
            gc.collect()
    return good


def _timed(explainer: Explainer, row: str, path: Path, feeds: dict[str, Any], options: Any) -> bool:
    """Print one row; whether the ledger closes. Sizes for which memory runs out are rows too."""
    engine = explainer.engine(feeds)
    target = parse_target("token:-1:0" if engine.subject.facts.sequence else "0")
    tasks: list[Callable[[], Any]] = [
        _forward(path, feeds, options.device),
        lambda: engine.explain(feeds, target),
    ]
    medians = []
    taken = [""]
    try:
        times: list[list[float]] = [[], []]
        for task in tasks:
            task()
            taken.append(_memory())
        budget = time.perf_counter() + 3
        for _ in range(options.rounds):
            for task, each in zip(tasks, times, strict=True):
                start = time.perf_counter()
                task()
                each.append(time.perf_counter() - start)
            if time.perf_counter() > budget:
                break
        medians = [float(np.median(each)) * 1e3 for each in times]
        residual = float(np.abs(tasks[1]().ledger["residual_relative"]).max())
    except Exception as error:  # the runtime's own exception types are not public
        print(f"{row}  {str(error).splitlines()[0][:150]} after{' '.join(taken)}", flush=True)
        return "emory" in str(error)
    forward, explained = medians
    print(
        f"{row}{forward:>11.2f}{explained:>11.2f}{explained / forward:>6.2f}{residual:>10.1e}"
        f"{' '.join(taken):>16}",
        flush=True,
    )
    return residual <= LIMITS["half" in row][1]


def _forward(path: Path, feeds: dict[str, Any], device: str) -> Callable[[], None]:
    """The plain forward pass; its inputs and outputs stay on the device."""
    kind, _, index = device.partition(":")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
    binding = session.io_binding()
    for name, array in feeds.items():
        place = onnxruntime.OrtValue.ortvalue_from_numpy(array, kind, int(index or 0))
        binding.bind_ortvalue_input(name, place)
    for output in session.get_outputs():
        binding.bind_output(output.name, kind, int(index or 0))

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def lxt(options: argparse.Namespace) -> bool:
    """LXT in bfloat16, in a process of its own; whether it ran."""
    print(f"\n{'LXT, bfloat16':<16}{'batch':>6}{'tokens':>7}", end="")
    print(f"{'forward ms':>11}{'explain ms':>11}{'ratio':>6}", flush=True)
    sizes = [f"{b},{t}" for b, t in SIZES["fast"][: 1 if options.quick else None]]
    child = Path(__file__).with_name("lxt_full_size.py")
    good = True
    for name, _ in _all_models(options, committed=False):
        if not name.startswith(("llama", "tinyllama")) or name == "llama-half":
            continue
        command = [sys.executable, str(child), name, options.device, str(options.rounds), *sizes]
        good &= subprocess.run(command, check=False).returncode == 0
    return good


def _all_models(options: argparse.Namespace, *, committed: bool = True) -> list[tuple[str, Path]]:
    """Names and files; weights of full-size models are made where they are missing."""
    found = [(name, COMMITTED / name / "model.onnx") for name in NAMES] if committed else []
    if options.models is not None:
        from full_size import MODELS, fill

        for name in options.names or MODELS:
            folder = options.models / name
            if folder.exists():
                fill(name, folder, options.device.partition(":")[0])
                found.append((name, folder / "model.onnx"))
    return found


def _feeds(model: Model, batch: int, tokens: int, name: str) -> dict[str, Any]:
    feeds = feeds_for(model, batch, tokens, vocabulary=8000, side=16)
    if "position_ids" in feeds:
        feeds["position_ids"] = np.tile(np.arange(tokens), (batch, 1))
    return feeds


def _machine(device: str) -> str:
    text = f"onnxruntime {onnxruntime.__version__}, {onnxruntime.get_available_providers()}"
    if device == "cpu":
        return text
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"{answer.stdout.strip()}; {text}"


def _memory() -> str:
    """MiB of the GPU in use, of all processes."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "-"


PARTS = {"equality": equality, "placement": placement, "speed": speed, "lxt": lxt}

if __name__ == "__main__":
    main()
