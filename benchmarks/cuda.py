"""Explanations on a GPU: equal to the CPU's, placed on the GPU, and timed beside the forward pass.

    python benchmarks/cuda.py                        # with a GPU and ".[gpu]" installed
    python benchmarks/cuda.py --device cpu --quick   # the same in small, anywhere

    python benchmarks/full_size.py FOLDER            # full-size graphs, beforehand
    python benchmarks/cuda.py --models FOLDER --out RESULTS --seconds 240

Parts, each with a table; ``--parts`` chooses some. With ``--out`` every row is at once also written
to ``PART.json`` and ``PART.md`` in a folder. After ``--seconds`` no further row is begun.

equality
    The committed models, unchanged and in float16, with every method: the largest difference of a
    map, a score or a site from that of the same file on the CPU, over the largest value, and both
    residuals.
placement
    Nodes of the compiled graphs that do not run on the GPU, and copies between the devices, as
    ONNX Runtime's profile names them, with the bytes that they wrote.
speed
    Medians of the forward pass alone (its output stays on the GPU) and of an explanation, in
    alternating rounds; and the memory of the GPU that is taken after both.
half
    Entries of the ledger in float16 beside those of the same model in float32, of the sample whose
    ledger is open most.
bounded
    ``--memory bounded`` at long inputs, timed as in speed.
recording
    Explanations of one size with inputs and outputs in one place: with the lengths of axes free,
    with lengths that are fixed when the session is opened, and replayed as a CUDA graph.
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
from collections.abc import Callable, Mapping, Sequence
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
#: (batch, tokens) of full-size models.
SIZES = {
    "speed": ((1, 128), (1, 512), (1, 2048), (1, 8192), (32, 128), (32, 512)),
    "bounded": ((1, 2048), (1, 8192)),
    "half": ((1, 512), (1, 8192), (32, 512)),
    "recording": ((1, 128),),
}
#: Full-size models of a part, unless --names says others.
CHOSEN = {
    "placement": ("bert", "llama-half"),
    "speed": ("bert", "bert-half", "llama-half", "tinyllama-half"),
    "half": ("bert", "bert-half", "llama", "llama-half"),
    "bounded": ("bert-half", "tinyllama-half"),
    "recording": ("bert", "llama-half"),
    "lxt": ("llama", "tinyllama-half"),
}
#: Sizes with --quick, and of committed models.
SMALL_SIZES = ((2, 32),)


class Table:
    """Rows of one part, printed and written as they come.

    Args:
        part: Name of the part.
        columns: Name of a column → its format.
        options: The command line.
    """

    def __init__(self, part: str, columns: Mapping[str, str], options: argparse.Namespace) -> None:
        self._columns, self._part, self._out = columns, part, options.out
        self._rows: list[dict[str, Any]] = []
        self._ends = options.ends
        print(f"\n{part}: {' | '.join(columns)}", flush=True)

    def open(self, what: str) -> bool:
        """Whether there is time for another row."""
        if time.perf_counter() < self._ends:
            return True
        print(f"  {what}: left out, as the time is over", flush=True)
        return False

    def row(self, **values: Any) -> None:
        """Print and store a row; ``note`` needs no column."""
        self._rows.append(values)
        cells = [_cell(values.get(name), form) for name, form in self._columns.items()]
        print("  " + " | ".join([*cells, values.get("note", "")]), flush=True)
        if self._out is None:
            return
        lines = [[*self._columns, "note"], ["---"] * (len(self._columns) + 1)]
        for each in self._rows:
            cells = [_cell(each.get(name), form) for name, form in self._columns.items()]
            lines.append([*cells, each.get("note", "")])
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        (self._out / f"{self._part}.md").write_text(table, encoding="utf-8")
        text = json.dumps(self._rows, indent=1, default=str)
        (self._out / f"{self._part}.json").write_text(text, encoding="utf-8")


def _cell(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", metavar="cuda[:N]|cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", type=Path, help="folder that full_size.py wrote")
    parser.add_argument("--names", nargs="+", help="full-size models; a choice by default")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes for equality")
    parser.add_argument("--quick", action="store_true", help="one method, small sizes")
    parser.add_argument("--out", type=Path, help="folder for the tables")
    parser.add_argument("--seconds", type=float, default=np.inf, help="time for everything")
    options = parser.parse_args()
    options.ends = time.perf_counter() + options.seconds
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "machine.txt").write_text(_machine(options.device) + "\n", encoding="utf-8")
    print(_machine(options.device), flush=True)
    good = []
    for part in options.parts:
        started = time.perf_counter()
        good.append(PARTS[part](options))
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
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
    columns = {"model": "", "weights": "", "method": "", "difference": ".1e"}
    table = Table("equality", columns | {"residual": ".1e", "on CPU": ".1e"}, options)
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, spawned) as pool:
        found = zip(tasks, pool.map(_compared, tasks), strict=True)
        good = [_fits(table, *each) for each in found]  # every row is written
    return all(good)


Compared = tuple[float, float, float, str]


def _fits(table: Table, task: tuple[str, bool, str, str], found: Compared) -> bool:
    """Write one row; whether it is within the limits."""
    name, half, method, device = task
    difference, residual, expected, provider = found
    most, open_books = LIMITS[half]
    fits = provider == PROVIDERS[device.partition(":")[0]] and difference <= most
    fits = fits and residual <= max(open_books, 100 * expected)
    measured = {"difference": difference, "residual": residual, "on CPU": expected}
    note = provider + ("" if fits else "  FAILED")
    weights = "float16" if half else "float32"
    table.row(model=name, weights=weights, method=method, note=note, **measured)
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
    largest = np.abs(expected[0]).max()
    pairs = zip(found, expected, strict=True)
    difference = max(float(np.abs(ours - theirs).max(initial=0)) for ours, theirs in pairs)
    return difference / float(largest), residual, closed, provider


def _explained(
    path: Path, method: str, device: str
) -> tuple[list[np.ndarray[Any, Any]], float, str]:
    """(maps, scores and sites; residual; provider)."""
    explainer = Explainer(path, method=method, device=device)
    feeds = feeds_for(explainer.model, 4, 128, vocabulary=8000, side=16)
    sample = Sample("random", "tensors", feeds, InputFacts(kind="tensors"))
    records = [each.record for each in explainer.explain(sample, "0")]
    arrays = [
        np.array([record.relevance.total for record in records]),
        np.array([record.relevance.score for record in records]),
        np.array([[site.relevance for site in record.sites] for record in records]),
    ]
    return arrays, max(record.residual for record in records), records[0].run.providers[0]


def placement(options: argparse.Namespace) -> bool:
    """Nodes by provider; whether all that compute real numbers run where they should."""
    wanted = PROVIDERS[options.device.partition(":")[0]]
    columns = {"model": "", "nodes": "", "elsewhere": "", "copies": "", "bytes": ",d"}
    table = Table("placement", columns, options)
    good = True
    for name, path in _all_models("placement", options):
        if not table.open(name):
            break
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
        counts = {"nodes": len(nodes), "elsewhere": len(elsewhere), "copies": len(copies)}
        table.row(model=name, bytes=written, note=shown, **counts)
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
    return _speeds("speed", "fast", options)


def bounded(options: argparse.Namespace) -> bool:
    """The same with ``--memory bounded``, each size in a session of its own."""
    return _speeds("bounded", "bounded", options)


def _speeds(part: str, memory: str, options: argparse.Namespace) -> bool:
    columns = {"model": "", "batch": "", "tokens": "", "opened s": ".1f", "forward ms": ".2f"}
    columns |= {"explain ms": ".2f", "ratio": ".2f", "residual": ".1e", "of the map": ".1e"}
    table = Table(part, columns | {"GPU MiB": ""}, options)
    good = True
    for name, path in _all_models(part, options, committed=options.models is None):
        explainer, opened = None, None
        for size in _sizes(part, options):
            if not table.open(f"{name} {size}"):
                return good
            feeds = _feeds(Model.open(path), *size, name)
            if explainer is None or memory == "bounded":  # which keeps what suits the first size
                del explainer
                gc.collect()
                started = time.perf_counter()
                explainer = Explainer(path, device=options.device, memory=memory)
                explainer.engine(feeds)
                opened = time.perf_counter() - started
            shown = {"model": name, "batch": size[0], "tokens": size[1], "opened s": opened}
            found = _timed(explainer, path, feeds, options)
            table.row(**shown, **found)
            good &= found.get("residual", 0.0) <= LIMITS["half" in name][1]
        del explainer
        gc.collect()
    return good


def _sizes(part: str, options: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    return SMALL_SIZES if options.quick or options.models is None else SIZES[part]


def _target(engine: Any) -> Any:
    return parse_target("token:-1:0" if engine.subject.facts.sequence else "0")


def _timed(explainer: Explainer, path: Path, feeds: dict[str, Any], options: Any) -> dict[str, Any]:
    """One row. That memory runs out is a row, too."""
    taken = []
    try:
        engine = explainer.engine(feeds)
        tasks: list[Callable[[], Any]] = [
            _forward(path, feeds, options.device),
            lambda: engine.explain(feeds, _target(engine)),
        ]
        for task in tasks:
            task()
            taken.append(_memory())
        forward, explained = _medians(tasks, options.rounds)
        outcome = tasks[1]()
    except Exception as error:  # the runtime's own exception types are not public
        return {"note": str(error).splitlines()[0][:150], "GPU MiB": ", ".join(taken)}
    amounts = np.abs(outcome.maps.content + outcome.maps.position).sum(axis=1)
    return {
        "forward ms": forward,
        "explain ms": explained,
        "ratio": explained / forward,
        "residual": float(np.abs(outcome.ledger["residual_relative"]).max()),
        "of the map": float((np.abs(outcome.ledger["residual"]) / amounts).max()),
        "GPU MiB": ", ".join(taken),
    }


def _medians(tasks: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Milliseconds of each task, in alternating rounds of about two seconds together."""
    times: list[list[float]] = [[] for _ in tasks]
    ends = time.perf_counter() + 2
    for _ in range(rounds):
        for task, each in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            each.append(time.perf_counter() - start)
        if time.perf_counter() > ends:
            break
    return [float(np.median(each)) * 1e3 for each in times]


def half(options: argparse.Namespace) -> bool:
    """Entries of ledgers in half precision beside those in full; always true."""
    columns = {"model": "", "batch": "", "tokens": "", "sample": "", "entry": ""}
    table = Table("half", columns | {"float32": ".6f", "float16": ".6f", "of all": ".1e"}, options)
    models = dict(_all_models("half", options, committed=False))
    for name in sorted(models):
        pair = [models.get(name.removesuffix("-half")), models[name]]
        if not name.endswith("-half") or pair[0] is None:
            continue
        explainers = [Explainer(path, device=options.device, memory="bounded") for path in pair]
        for size in _sizes("half", options):
            if not table.open(f"{name} {size}"):
                return True
            shown = {"model": name, "batch": size[0], "tokens": size[1]}
            try:
                ledgers = []
                for explainer in explainers:
                    feeds = _feeds(explainer.model, *size, name)
                    engine = explainer.engine(feeds)
                    ledgers.append(engine.explain(feeds, _target(engine)).ledger)
            except Exception as error:  # the runtime's own exception types are not public
                table.row(**shown, note=str(error).splitlines()[0][:150])
                continue
            sample = int(np.abs(ledgers[1]["residual_relative"]).argmax())
            full, ours = ({k: v[sample] for k, v in ledger.items()} for ledger in ledgers)
            entries = [k for k in full if k not in ("target", "residual", "residual_relative")]
            whole = sum(abs(full[k]) for k in entries)
            for k in full:
                amounts = {"float32": full[k], "float16": ours[k]}
                share = abs(ours[k] - full[k]) / whole
                table.row(**shown, sample=sample, entry=k, **amounts, **{"of all": share})
        del explainers
        gc.collect()
    return True


def recording(options: argparse.Namespace) -> bool:
    """Explanations with free and with fixed lengths, and as a CUDA graph; whether all agree."""
    columns = {"model": "", "batch": "", "tokens": "", "how": "", "opened s": ".1f"}
    table = Table("recording", columns | {"explain ms": ".2f", "difference": ".1e"}, options)
    good = True
    for name, path in _all_models("recording", options):
        for size in _sizes("recording", options):
            if not table.open(f"{name} {size}"):
                return good
            feeds = _feeds(Model.open(path), *size, name)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                graph = path.parent / f"{Path(folder).name}.onnx"
                graph.write_bytes(compile_model(path, graph))
                try:
                    good &= _recorded(table, name, size, graph, feeds, options)
                finally:
                    graph.unlink()
    return good


def _recorded(
    table: Table,
    name: str,
    size: tuple[int, int],
    graph: Path,
    feeds: dict[str, Any],
    options: argparse.Namespace,
) -> bool:
    """The rows of one model and size; whether all have one result."""
    ways = ["free", "fixed"] + ["recorded"] * options.device.startswith("cuda")
    first: np.ndarray[Any, Any] | None = None
    good = True
    for how in ways:
        row: dict[str, Any] = {"model": name, "batch": size[0], "tokens": size[1], "how": how}
        try:
            started = time.perf_counter()
            run, read = _bound(graph, feeds, options.device, how, first)
            run()
            row["opened s"] = time.perf_counter() - started
            run()
            (row["explain ms"],) = _medians([run], 20 * options.rounds)
            found = read()
            first = found if first is None else first
            row["difference"] = float(np.abs(found - first).max() / np.abs(first).max())
            good &= row["difference"] <= LIMITS["half" in name][0]
        except Exception as error:  # the runtime's own exception types are not public
            row["note"] = str(error).splitlines()[0][:200]
        table.row(**row)
        gc.collect()
    return good


def _bound(
    graph: Path,
    feeds: dict[str, Any],
    device: str,
    how: str,
    like: np.ndarray[Any, Any] | None,
) -> tuple[Callable[[], None], Callable[[], np.ndarray[Any, Any]]]:
    """A run of a compiled graph whose arrays stay on the device; and its map, shaped ``like``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    kind, _, index = device.partition(":")
    place = (kind, int(index or 0))
    if how != "free":
        for each in onnx.load(graph, load_external_data=False).graph.input:
            axes = each.type.tensor_type.shape.dim
            for axis, length in zip(axes, feeds.get(each.name, np.empty(0)).shape, strict=False):
                if axis.dim_param:
                    options.add_free_dimension_override_by_name(axis.dim_param, length)
    providers = _providers(device)
    if how == "recorded":
        providers[0][1]["enable_cuda_graph"] = "1"
    session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
    binding, value = session.io_binding(), onnxruntime.OrtValue
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, value.ortvalue_from_numpy(array, *place))
    if like is None:
        binding.bind_output("relevance_total", *place)
    else:  # a recording writes to one place
        kept = value.ortvalue_from_shape_and_type(like.shape, like.dtype, *place)
        binding.bind_ortvalue_output("relevance_total", kept)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run, lambda: np.array(binding.copy_outputs_to_cpu()[0])


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
    columns = {"model": "", "batch": "", "tokens": "", "forward ms": "", "explain ms": ""}
    table = Table("lxt", columns | {"ratio": ""}, options)
    sizes = [f"{b},{t}" for b, t in SIZES["speed"][: 1 if options.quick else None]]
    child = Path(__file__).with_name("lxt_full_size.py")
    good = True
    for name, _ in _all_models("lxt", options, committed=False):
        if not table.open(name):
            break
        command = [sys.executable, str(child), name, options.device, str(options.rounds), *sizes]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            cells = line.split(maxsplit=3)
            numbers = cells.pop().split() if len(cells) > 3 else []
            whole = len(numbers) == 3 and numbers[0][0].isdigit()
            names = [*columns, "ratio"] if whole else ["model", "batch", "tokens", "note"]
            cells += numbers if whole else [" ".join(numbers)]
            table.row(**dict(zip(names, cells, strict=True)))
        good &= done.returncode == 0
    return good


def _all_models(
    part: str, options: argparse.Namespace, *, committed: bool = True
) -> list[tuple[str, Path]]:
    """Names and files; weights of full-size models are made where they are missing."""
    found = [(name, COMMITTED / name / "model.onnx") for name in NAMES] if committed else []
    if options.models is not None:
        from full_size import fill

        for name in options.names or CHOSEN[part]:
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


PARTS = {
    "equality": equality,
    "placement": placement,
    "speed": speed,
    "half": half,
    "bounded": bounded,
    "recording": recording,
    "lxt": lxt,
}

if __name__ == "__main__":
    main()
