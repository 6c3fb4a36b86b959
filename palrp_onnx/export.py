"""Export a Hugging Face model to ONNX through Optimum, and check the file against PyTorch.

The only module that needs the extra ``export``; torch, transformers and optimum are imported inside
its functions.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import (
    CheckError,
    InputError,
    OutputError,
    ResourceError,
    UsageError,
)
from palrp_onnx.inputs.purposes import IDS, MASK, NAMES, POSITIONS, TYPES
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward
from palrp_onnx.types import Array

#: Task → (Auto class that loads the model, endings of architecture names that imply the task).
TASKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "text-classification": ("AutoModelForSequenceClassification", ("ForSequenceClassification",)),
    "text-generation": ("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
    "image-classification": (
        "AutoModelForImageClassification",
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
    ),
    "fill-mask": ("AutoModelForMaskedLM", ("ForMaskedLM",)),
    "feature-extraction": ("AutoModel", ("Model",)),
}
#: Largest allowed difference from PyTorch, as a share of the largest output.
TOLERANCE = 1e-3
#: Smallest scale of that share: differences between even smaller outputs are rounding.
_SMALLEST_SCALE = 1e-3
_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "preprocessor_config.json",
)
#: (samples, tokens) of the inputs of this comparison.
_SHAPES = ((2, 12), (1, 7))


class ExportReport(Struct, frozen=True, kw_only=True):
    """Report on an export.

    Attributes:
        path: The ONNX file.
        task: The task that it was exported for.
        opset: Its opset.
        differences: Largest absolute difference from PyTorch by output, over all compared inputs.
        files: Names of the files in its folder.
    """

    path: str
    task: str
    opset: int
    differences: dict[str, float]
    files: list[str]


def export_model(
    source: str | Path, output: Path, *, task: str | None = None, opset: int | None = None
) -> ExportReport:
    """Export ``source``, a folder or a model's name, into the folder ``output``.

    Configuration, tokenizer and preprocessor are saved in the same folder. If an export fails,
    no files are left. Code that comes with a model is never run.

    Args:
        source: A folder with ``config.json`` and weights, or the name of a model on the hub.
        output: The folder to write.
        task: One of :data:`TASKS`; by default it follows from the architecture.
        opset: ONNX opset; by default the exporter chooses it.

    Raises:
        ResourceError: The extra ``export`` is not installed.
        InputError: There is no such model, or it cannot be exported.
        UsageError: The task is unknown, or does not follow from the architecture.
        CheckError: The file does not compute what PyTorch computes.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"Unknown task {task!r}", hint=f"Tasks: {', '.join(TASKS)}.")
    _import("optimum.exporters.onnx")
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError("The folder holds no config.json", place=str(source))
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise OutputError("The output is not a folder", place=str(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as scratch, _quiet():
        config = _read_config(str(source))
        task = task or _infer_task(config)
        work = Path(scratch)
        _run_optimum(str(source), work, task, opset)
        _copy_companions(folder, work)
        model = Model.open(work / "model.onnx")
        differences = _compare(str(source), task, model)
        files = sorted(path.name for path in work.iterdir() if path.is_file())
        output.mkdir(exist_ok=True)
        for name in files:
            (work / name).replace(output / name)
    return ExportReport(
        path=str(output / "model.onnx"),
        task=task,
        opset=model.opset,
        differences=differences,
        files=files,
    )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ResourceError(
            f"Export needs a package that is not installed: {error.name}",
            hint='pip install "palrp-onnx[export]"',
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress, logs and warnings of the libraries on stdout and stderr."""
    reports = _import("transformers").utils.logging
    verbosity = reports.get_verbosity()
    disabled = logging.root.manager.disable
    reports.set_verbosity_error()
    logging.disable(max(disabled, logging.WARNING))
    # The TorchScript exporter always enables its C++ log. If an export fails, that log writes the
    # whole graph to the stdout of the process, bypassing sys.stdout.
    torch_log = mock.patch("torch._C._jit_set_onnx_log_enabled", create=True)
    try:
        with torch_log, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        reports.set_verbosity(verbosity)


def _read_config(source: str) -> Any:
    transformers = _import("transformers")
    try:
        return transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The model cannot be loaded: {_reason(error)}",
            place=source,
            hint="Give a folder with config.json and weights, or the name of a model on the hub.",
        ) from error


def _infer_task(config: Any) -> str:
    for name in config.architectures or ():
        for task, (_, ends) in TASKS.items():
            if name.endswith(ends):
                return task
    raise UsageError(
        f"The architecture {config.architectures} implies no task",
        hint=f"Name it: --task {'|'.join(TASKS)}.",
    )


def _reason(error: Exception) -> str:
    """The first line of a library's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _run_optimum(source: str, work: Path, task: str, opset: int | None) -> None:
    main_export = _import("optimum.exporters.onnx").main_export
    try:
        main_export(
            source,
            output=work,
            task=task,
            opset=opset,
            do_validation=False,
            no_post_process=True,
            trust_remote_code=False,
        )
    except Exception as error:  # exporters raise whatever the model's code raised
        raise InputError(
            f"The model cannot be exported for {task}: {_reason(error)}", place=source
        ) from error


def _copy_companions(folder: Path, work: Path) -> None:
    for pattern in _COMPANIONS:
        for path in folder.glob(pattern) if folder.is_dir() else ():
            if not (work / path.name).exists():
                shutil.copyfile(path, work / path.name)


def _load(source: str, task: str) -> Any:
    """The PyTorch model.

    Raises:
        InputError: Weights of its head are missing, which would be random.
    """
    transformers = _import("transformers")
    network, facts = getattr(transformers, TASKS[task][0]).from_pretrained(
        source, output_loading_info=True
    )
    # For feature extraction an unused pooler may be missing; a used one causes a difference.
    if facts["missing_keys"] and task != "feature-extraction":
        raise InputError(
            f"The model has no weights for {', '.join(sorted(facts['missing_keys']))}",
            place=source,
            hint=f"It was not trained for {task}: name another task or train it first.",
        )
    return network.eval()


def _compare(source: str, task: str, model: Model) -> dict[str, float]:
    """Largest absolute difference by output; with padding on the right if there is a mask."""
    torch = _import("torch")
    network = _load(source, task)
    forward = RuntimeForward(model, [s.name for s in model.outputs])
    differences = {s.name: 0.0 for s in model.outputs}
    for samples, tokens in _SHAPES:
        feeds = _example(model, network.config, samples, tokens)
        with torch.no_grad():
            expected = network(**{k: torch.from_numpy(v) for k, v in feeds.items()})
        for name, exported in forward(feeds).items():
            if name not in expected:
                raise CheckError(
                    "PyTorch has no output of this name, so it cannot be compared",
                    place=f"output {name}",
                )
            original = expected[name].numpy()
            difference = float(np.abs(exported - original).max())
            differences[name] = max(differences[name], difference)
            scale = max(_SMALLEST_SCALE, float(np.abs(original).max()))
            if not difference <= TOLERANCE * scale:  # NaN is a difference too
                raise CheckError(
                    f"The exported file differs from PyTorch by {difference:.3g}",
                    place=f"output {name}",
                )
    return differences


def _example(model: Model, config: Any, samples: int, tokens: int) -> dict[str, Array]:
    """Random tokens, of which the last three of the last sample are padding; or images of noise."""
    generator = np.random.default_rng(0)
    padding: Any = getattr(config, "pad_token_id", None)
    feeds: dict[str, Array] = {}
    for signature in model.inputs:
        if signature.dtype.kind == "f":
            size = config.image_size
            sides = (size, size) if isinstance(size, int) else tuple(size)
            noise = generator.normal(size=(samples, config.num_channels, *sides))
            feeds[signature.name] = noise.astype(signature.dtype)
            continue
        purpose = NAMES.get(signature.name, "")
        values = {
            IDS: generator.integers(5, config.vocab_size, size=(samples, tokens)),
            POSITIONS: np.tile(np.arange(tokens), (samples, 1)),
            TYPES: np.zeros((samples, tokens)),
        }.get(purpose, np.ones((samples, tokens)))
        if purpose == MASK:
            values[-1, -3:] = 0
        if purpose == IDS and padding in range(config.vocab_size):
            values[values == padding] = (padding + 1) % config.vocab_size
            values[-1, -3:] = padding
        feeds[signature.name] = values.astype(signature.dtype)
    return feeds
