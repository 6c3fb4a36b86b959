"""Export a Hugging Face model to ONNX through Optimum, and check the file against PyTorch.

The only module that needs the extra ``export``; torch, transformers and optimum are imported inside
its functions.
"""

from __future__ import annotations

import contextlib
import copy
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
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward
from palrp_onnx.types import Array

#: (Ends of architecture names, tasks they imply, the first that the family has); as Optimum calls
#: tasks. What is longer comes first.
TASKS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("ForSequenceClassification",), ("text-classification", "audio-classification")),
    (("ForAudioClassification",), ("audio-classification",)),
    (("ForTokenClassification",), ("token-classification",)),
    (
        ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        ("question-answering", "visual-question-answering"),
    ),
    (("ForVisualQuestionAnswering",), ("visual-question-answering",)),
    (("ForMultipleChoice",), ("multiple-choice",)),
    (("ForMaskedLM",), ("fill-mask",)),
    (("WithLMHeadModel",), ("fill-mask", "text-generation")),
    (("ForCausalLM", "LMHeadModel"), ("text-generation",)),
    (
        ("ForConditionalGeneration", "ForSpeechSeq2Seq"),
        ("text2text-generation", "automatic-speech-recognition", "image-to-text"),
    ),
    (("VisionEncoderDecoderModel",), ("image-to-text",)),
    (("ForCTC",), ("automatic-speech-recognition",)),
    (("ForAudioFrameClassification",), ("audio-frame-classification",)),
    (("ForXVector",), ("audio-xvector",)),
    (("ForImageClassification", "ForImageClassificationWithTeacher"), ("image-classification",)),
    (("ForSemanticSegmentation",), ("semantic-segmentation", "image-segmentation")),
    (
        ("ForSegmentation", "ForInstanceSegmentation", "ForUniversalSegmentation"),
        ("image-segmentation",),
    ),
    (("ForObjectDetection",), ("object-detection", "zero-shot-object-detection")),
    (("ForDepthEstimation",), ("depth-estimation",)),
    (("ForPoseEstimation", "ForKeypointDetection"), ("keypoint-detection",)),
    (("ForImageSuperResolution",), ("image-to-image",)),
    (("ForMaskedImageModeling",), ("masked-im",)),
    (("ForPrediction",), ("time-series-forecasting",)),
    (("MTModel",), ("text2text-generation",)),
    (("Model",), ("zero-shot-image-classification", "feature-extraction")),
)
#: Largest allowed difference from PyTorch, as a share of the largest output.
TOLERANCE = 1e-3
#: Smallest scale of that share: differences between even smaller outputs are rounding.
_SMALLEST_SCALE = 1e-3
_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "chat_template.*",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)
#: (samples, tokens) of the inputs of this comparison. Some families take few lengths: those that
#: run in PyTorch count. The last is the one that Optimum exports with.
_SHAPES = ((2, 12), (1, 7), (2, 16))
#: Tokens of the last sample that are padding.
_PADDING = 3


class ExportReport(Struct, frozen=True, kw_only=True):
    """Report on an export.

    Attributes:
        path: The ONNX file, or the folder of several.
        task: The task that it was exported for.
        opset: Its opset.
        differences: Largest absolute difference from PyTorch by output, over all compared inputs;
            with the name of its file where there are several.
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
        task: A task by Optimum's name; by default it follows from the architecture.
        opset: ONNX opset; by default the exporter chooses it.

    Raises:
        ResourceError: The extra ``export`` is not installed.
        InputError: There is no such model, or it cannot be exported.
        UsageError: The task is unknown, or does not follow from the architecture.
        CheckError: The file does not compute what PyTorch computes.
    """
    manager = _manager()
    if task is not None and task not in (known := sorted(set(manager.get_all_tasks()))):
        raise UsageError(f"Unknown task {task!r}", hint=f"Tasks: {', '.join(known)}.")
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError("The folder holds no config.json", place=str(source))
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise OutputError("The output is not a folder", place=str(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as scratch, _quiet():
        config = _read_config(str(source))
        task = task or _infer_task(config, manager)
        work = Path(scratch)
        _run_optimum(str(source), work, task, opset)
        _copy_companions(folder, work)
        models = {path.stem: Model.open(path) for path in sorted(work.glob("*.onnx"))}
        differences = _compare(str(source), task, models)
        files = sorted(path.name for path in work.iterdir() if path.is_file())
        output.mkdir(exist_ok=True)
        for name in files:
            (work / name).replace(output / name)
    return ExportReport(
        path=str(output / f"{next(iter(models))}.onnx" if len(models) == 1 else output),
        task=task,
        opset=next(iter(models.values())).opset,
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


def _manager() -> Any:
    """What Optimum knows of tasks; its configurations register families."""
    _import("optimum.exporters.onnx.model_configs")
    return _import("optimum.exporters.tasks").TasksManager


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


def _infer_task(config: Any, manager: Any) -> str:
    """The first task of the architecture that Optimum exports for its family."""
    try:
        has = manager.get_supported_tasks_for_model_type(
            config.model_type, "onnx", library_name="transformers"
        )
    except KeyError as error:
        raise InputError(f"Optimum exports no models of type {config.model_type}") from error
    for name in config.architectures or ():
        if found := [task for task in _implied(name) if task in has]:
            return found[0]
    raise UsageError(
        f"The architecture {config.architectures} implies no task",
        hint=f"Name it: --task {'|'.join(each for each in has if not each.endswith('past'))}.",
    )


def _implied(architecture: str) -> list[str]:
    """The tasks that an architecture may be for."""
    return [task for ends, tasks in TASKS if architecture.endswith(ends) for task in tasks]


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
    manager = _manager()
    config = _read_config(source)
    loader = manager.get_model_class_for_task(
        task,
        model_type=config.model_type,
        # One task may have classes of several kinds, such as speech to text.
        model_class_name=next((n for n in config.architectures or () if task in _implied(n)), None),
    )
    network, facts = loader.from_pretrained(source, output_loading_info=True)
    # For feature extraction an unused pooler may be missing; a used one causes a difference.
    if facts["missing_keys"] and task != "feature-extraction":
        raise InputError(
            f"The model has no weights for {', '.join(sorted(facts['missing_keys']))}",
            place=source,
            hint=f"It was not trained for {task}: name another task or train it first.",
        )
    network.config.use_cache = False
    return network.eval()


def _compare(source: str, task: str, models: Mapping[str, Model]) -> dict[str, float]:
    """Largest absolute difference by output, on inputs that Optimum makes up for the model."""
    network = _load(source, task)
    utils = _import("optimum.exporters.onnx.utils")
    _, parts = utils._get_submodels_and_onnx_configs(
        network, task, False, {}, False, "default", "transformers"
    )
    differences: dict[str, float] = {}
    for name, model in models.items():
        part, config = parts[name]
        prefix = f"{name}/" if len(models) > 1 else ""
        for output, difference in _differences(part, config, model, source).items():
            differences[prefix + output] = difference
    return differences


def _differences(part: Any, config: Any, model: Model, source: str) -> dict[str, float]:
    forward = RuntimeForward(model, [s.name for s in model.outputs])
    differences = {s.name: 0.0 for s in model.outputs}
    compared = 0
    for shape in _SHAPES:
        try:
            inputs, expected = _reference(part, config, shape)
        except Exception as error:  # whatever the model's code raises
            if compared or shape != _SHAPES[-1]:
                continue
            raise InputError(
                f"PyTorch does not run on the example of Optimum: {_reason(error)}", place=source
            ) from error
        compared += 1
        for name, exported in forward(_feeds(config, model, inputs)).items():
            if name not in expected:
                raise CheckError(
                    "PyTorch has no output of this name, so it cannot be compared",
                    place=f"output {name}",
                )
            differences[name] = max(differences[name], _difference(exported, expected[name], name))
    return differences


def _difference(exported: Array, original: Array, name: str) -> float:
    """The largest difference.

    Raises:
        CheckError: It is too large.
    """
    if exported.shape != original.shape:
        raise CheckError(
            f"The exported file has the shape {list(exported.shape)}, PyTorch "
            f"{list(original.shape)}",
            place=f"output {name}",
        )
    difference = float(np.abs(exported - original).max(initial=0.0))
    scale = max(_SMALLEST_SCALE, float(np.abs(original).max(initial=0.0)))
    if not difference <= TOLERANCE * scale:  # NaN is a difference too
        raise CheckError(
            f"The exported file differs from PyTorch by {difference:.3g}", place=f"output {name}"
        )
    return difference


def _reference(
    part: Any, config: Any, shape: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Inputs, and what PyTorch makes of them: padded if it takes that, by the outputs' names."""
    plain = _example(config, shape)
    padded = _padded(plain, getattr(part.config, "pad_token_id", None))
    try:
        return padded, _run_pytorch(part, config, padded)
    except Exception:  # as BART, which needs the end of the text in every sample
        if padded is plain:
            raise
        return plain, _run_pytorch(part, config, plain)


def _example(config: Any, shape: tuple[int, int]) -> dict[str, Any]:
    torch = _import("torch")
    torch.manual_seed(0)
    samples, tokens = shape
    made = config.generate_dummy_inputs(framework="pt", batch_size=samples, sequence_length=tokens)
    return dict(made)


def _padded(inputs: dict[str, Any], padding: int | None) -> dict[str, Any]:
    """The inputs with padding at the end of the last sample, and nowhere else."""
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None or mask is None or ids.shape != mask.shape or ids.ndim != len(_SHAPES[0]):
        return inputs
    ids, mask = ids.clone(), mask.clone()
    mask[:] = 1
    if padding is not None:
        ids[ids == padding] = padding + 1 if padding == 0 else padding - 1
        ids[-1, -_PADDING:] = padding
    mask[-1, -_PADDING:] = 0
    return {**inputs, "input_ids": ids, "attention_mask": mask}


def _run_pytorch(part: Any, config: Any, inputs: Mapping[str, Any]) -> dict[str, Array]:
    torch = _import("torch")
    given = config.rename_ambiguous_inputs(copy.deepcopy(dict(inputs)))
    with config.patch_model_for_export(part), torch.inference_mode():
        outputs = part(**given)
    found: dict[str, Array] = {}
    for name, value in outputs.items():
        own = config.torch_to_onnx_output_map.get(name, name)
        several = isinstance(value, list | tuple)
        flat = config.flatten_output_collection_property(own, value) if several else {own: value}
        found.update((n, v.numpy()) for n, v in flat.items() if hasattr(v, "numpy"))
    return found


def _feeds(config: Any, model: Model, inputs: Mapping[str, Any]) -> dict[str, Array]:
    names = [each.name for each in model.inputs]
    renamed = config.generate_dummy_inputs_for_validation(dict(inputs), names)
    return {name: renamed[name].numpy() for name in names}
