"""Which families of models can be explained, as files of PyTorch's two exporters.

    python benchmarks/families.py
    python benchmarks/families.py bert llama t5-encoder --exporter dynamo --static

Every family is built once, tiny and with random weights, exported into a folder that later runs
reuse, inspected, and explained by both engines. One row per file: the nodes that relevance reaches,
the position sites that were found and those of the architecture, the residual of the ledger, the
difference of the two engines, and the difference of a padded row of tokens from the same row alone.
Needs the extras ``export`` and ``cpu``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import multiprocessing
import os
import pkgutil
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from palrp_onnx import Explainer, Model, inspect
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inspection import Inspection
from palrp_onnx.record import InputFacts

Array = NDArray[Any]
Shape = tuple[int, ...]
Config = dict[str, Any]
Sites = Mapping[str, Collection[int]]

BATCH, PADDING = 2, 2
VOCABULARY, PAD = 90, 1
SCALE = 0.15
TOLERANCE = 1e-3

TEXT: dict[str, Shape] = {"input_ids": (9,), "attention_mask": (9,)}
PAIR: dict[str, Shape] = {**TEXT, "token_type_ids": (9,)}
TWO_SIDED: dict[str, Shape] = {**TEXT, "decoder_input_ids": (7,)}
IMAGE: dict[str, Shape] = {"pixel_values": (3, 24, 24)}
LARGER: dict[str, Shape] = {"pixel_values": (3, 32, 32)}

WORDS: Config = {"vocab_size": VOCABULARY, "pad_token_id": PAD}
BLOCKS: Config = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
ENCODER: Config = {**WORDS, **BLOCKS, "max_position_embeddings": 40}
DECODER: Config = {**ENCODER, "num_hidden_layers": 3, "num_key_value_heads": 2}
WIDE: Config = {**ENCODER, "hidden_size": 64, "num_hidden_layers": 3}
GPT: Config = {**WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
PATCHES: Config = {**BLOCKS, "image_size": 24, "patch_size": 8}
SWIN: Config = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
T5: Config = {**WORDS, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
SEQ2SEQ: Config = {
    **WORDS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
DISENTANGLED: Config = {
    **ENCODER,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"],
    "max_relative_positions": 16,
    "type_vocab_size": 0,
}
LLAMA3: Config = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}

LEARNED: Sites = {"learned": [0]}
ROPE: Sites = {"rope": range(3)}
BIAS: Sites = {"relative_bias": range(2)}
ALIBI: Sites = {"alibi": range(2)}
TABLES: Sites = {"disentangled": range(2)}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model: Class of the network, with its head.
        config: Arguments of its configuration.
        sites: Layers with position sites in the architecture, by kind.
        inputs: Shape of every input, without the batch axis.
        part: Attribute that is exported instead of the whole network.
        options: Further arguments of the forward pass.
        free: Whether the sides of the image are free too.
        swaps: Functions of Transformers, as ``MODULE:NAME``, and their replacements.
    """

    model: str
    config: Config
    sites: Sites
    inputs: Mapping[str, Shape] = field(default_factory=lambda: TEXT)
    part: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    free: bool = False
    swaps: Mapping[str, str] = field(default_factory=dict)

    @property
    def exported(self) -> str:
        """Class, or part of a class, that is exported."""
        return f"{self.model}.{self.part}" if self.part else self.model


FAMILIES: dict[str, Family] = {
    "bert": Family("BertForSequenceClassification", ENCODER, LEARNED, PAIR),
    "bert-relative-key": Family(
        "BertForSequenceClassification",
        {**ENCODER, "position_embedding_type": "relative_key"},
        TABLES,
        PAIR,
    ),
    "bert-relative-key-query": Family(
        "BertForSequenceClassification",
        {**ENCODER, "position_embedding_type": "relative_key_query"},
        TABLES,
        PAIR,
    ),
    "roberta": Family("RobertaForSequenceClassification", ENCODER, LEARNED),
    "distilbert": Family(
        "DistilBertForSequenceClassification",
        {
            **WORDS,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 40,
        },
        LEARNED,
    ),
    "electra": Family(
        "ElectraForSequenceClassification", {**ENCODER, "embedding_size": 16}, LEARNED, PAIR
    ),
    "albert": Family(
        "AlbertForSequenceClassification", {**ENCODER, "embedding_size": 16}, LEARNED, PAIR
    ),
    "mpnet": Family("MPNetForSequenceClassification", ENCODER, {**LEARNED, **BIAS}),
    "deberta": Family("DebertaForSequenceClassification", DISENTANGLED, TABLES),
    "deberta-v2": Family(
        "DebertaV2ForSequenceClassification",
        {
            **DISENTANGLED,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
        TABLES,
    ),
    "modernbert": Family(
        "ModernBertForSequenceClassification",
        {
            **WIDE,
            "global_attn_every_n_layers": 2,
            "local_attention": 4,
            "reference_compile": False,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
        },
        ROPE,
    ),
    "roformer": Family(
        "RoFormerForSequenceClassification",
        {**ENCODER, "embedding_size": 16, "num_hidden_layers": 3},
        ROPE,
        PAIR,
    ),
    "gpt2": Family("GPT2LMHeadModel", GPT, LEARNED),
    "gpt-neox": Family("GPTNeoXForCausalLM", WIDE, ROPE),
    "gpt-j": Family("GPTJForCausalLM", {**GPT, "n_layer": 3, "rotary_dim": 4}, ROPE),
    "codegen": Family(
        "CodeGenForCausalLM", {**GPT, "n_layer": 3, "n_ctx": 40, "rotary_dim": 4}, ROPE
    ),
    "llama": Family("LlamaForCausalLM", DECODER, ROPE),
    "llama-linear": Family(
        "LlamaForCausalLM",
        {**DECODER, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ROPE,
    ),
    "llama-dynamic": Family(
        "LlamaForCausalLM",
        {**DECODER, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        ROPE,
    ),
    "llama-llama3": Family("LlamaForCausalLM", {**DECODER, "rope_scaling": LLAMA3}, ROPE),
    "mistral": Family("MistralForCausalLM", {**DECODER, "sliding_window": 4}, ROPE),
    "qwen2": Family("Qwen2ForCausalLM", DECODER, ROPE),
    "qwen3": Family("Qwen3ForCausalLM", {**DECODER, "head_dim": 8}, ROPE),
    "gemma": Family("GemmaForCausalLM", {**DECODER, "head_dim": 8}, ROPE),
    "gemma2": Family("Gemma2ForCausalLM", {**DECODER, "head_dim": 8, "sliding_window": 4}, ROPE),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        {
            **DECODER,
            "head_dim": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        ROPE,
    ),
    "phi": Family("PhiForCausalLM", {**WIDE, "partial_rotary_factor": 0.5}, ROPE),
    "phi3": Family("Phi3ForCausalLM", DECODER, ROPE),
    "falcon-rope": Family("FalconForCausalLM", {**WIDE, "alibi": False}, ROPE),
    # Falcon's own function computes in bfloat16, which ONNX Runtime does not on the CPU.
    "falcon-alibi": Family(
        "FalconForCausalLM",
        {**ENCODER, "alibi": True},
        ALIBI,
        swaps={
            "transformers.models.falcon.modeling_falcon:build_alibi_tensor": (
                "transformers.models.bloom.modeling_bloom:build_alibi_tensor"
            )
        },
    ),
    "bloom": Family(
        "BloomForCausalLM", {**WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}, ALIBI
    ),
    "mpt": Family(
        "MptForCausalLM",
        {**WORDS, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 40},
        ALIBI,
    ),
    "opt": Family("OPTForCausalLM", {**ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 32}, LEARNED),
    "t5-encoder": Family("T5EncoderModel", T5, {"relative_bias": range(3)}),
    # Layers 0 to 2 of the encoder; the decoder's come after 0, 4 and 6: all of the encoder, and
    # two attentions a layer.
    "t5": Family("T5ForConditionalGeneration", T5, {"relative_bias": (0, 1, 2, 4, 6)}, TWO_SIDED),
    "bart": Family(
        "BartForConditionalGeneration",
        {**SEQ2SEQ, "max_position_embeddings": 40},
        LEARNED,
        TWO_SIDED,
    ),
    "vit": Family("ViTForImageClassification", PATCHES, LEARNED, IMAGE),
    "vit-interpolated": Family(
        "ViTForImageClassification",
        PATCHES,
        LEARNED,
        LARGER,
        options={"interpolate_pos_encoding": True},
        free=True,
    ),
    "deit": Family("DeiTForImageClassification", PATCHES, LEARNED, IMAGE),
    "beit": Family(
        "BeitForImageClassification", {**PATCHES, "use_relative_position_bias": True}, BIAS, IMAGE
    ),
    "swin": Family("SwinForImageClassification", SWIN, {"relative_bias": range(4)}, LARGER),
    "swinv2": Family("Swinv2ForImageClassification", SWIN, {"relative_bias": range(4)}, LARGER),
    "dinov2": Family("Dinov2ForImageClassification", {**PATCHES, "mlp_ratio": 2}, LEARNED, IMAGE),
    # Rotations by the rows and columns of the picture.
    "dinov3": Family(
        "DINOv3ViTModel",
        {**PATCHES, "hidden_size": 64, "num_hidden_layers": 3, "num_register_tokens": 2},
        ROPE,
        IMAGE,
    ),
    "clip-vision": Family("CLIPVisionModel", PATCHES, LEARNED, IMAGE),
    "clip-text": Family("CLIPTextModel", {**ENCODER, "eos_token_id": 2}, LEARNED),
    "siglip-vision": Family("SiglipVisionModel", PATCHES, LEARNED, IMAGE),
    "sam-vision": Family(
        "SamVisionModel",
        {
            **BLOCKS,
            "mlp_dim": 48,
            "output_channels": 16,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
        },
        {**LEARNED, **TABLES},
        {"pixel_values": (3, 64, 64)},
    ),
    "whisper-encoder": Family(
        "WhisperModel",
        {**SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 20},
        {"sinusoidal": [0]},
        {"input_features": (16, 40)},
        part="encoder",
    ),
    # Its positions come from a convolution over padded states.
    "wav2vec2": Family(
        "Wav2Vec2ForCTC",
        {
            **WORDS,
            **BLOCKS,
            "conv_dim": (32, 32),
            "conv_stride": (5, 4),
            "conv_kernel": (10, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
        {"convolution": [0]},
        {"input_values": (400,)},
    ),
    "resnet": Family(
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2]},
        {},
        LARGER,
    ),
}
#: Exported with fixed axes too; every family is with ``--static``.
STATIC = (
    "bert bert-relative-key-query roberta deberta-v2 modernbert roformer gpt2 llama mpt bloom "
    "t5-encoder t5 vit swin dinov2"
).split()


class ExporterError(Exception):
    """The failure of an exporter, in one line."""


@dataclass(frozen=True)
class Case:
    """One file: a family as one exporter writes it."""

    name: str
    exporter: str
    static: bool
    cache: Path

    @property
    def path(self) -> Path:
        """Path of the file."""
        axes = "static" if self.static else "dynamic"
        return self.cache / f"{self.name}-{self.exporter}-{axes}.onnx"


@dataclass
class Row:
    """Results for one file, up to the step that failed.

    ``padding`` is NaN if a file has no mask or a fixed length; ``error`` is why ``step`` failed, in
    one line, and empty if every step succeeded.
    """

    nodes: int = 0
    reached: int = 0
    covered: int = 0
    sites: dict[str, set[int]] = field(default_factory=dict)
    right: bool = False
    residual: float = np.nan
    difference: float = np.nan
    padding: float = np.nan
    step: str = "export"
    error: str = ""


def make_feeds(family: Family) -> dict[str, Array]:
    """Two samples; the last tokens of the second are padding where there is a mask."""
    generator = np.random.default_rng(1)
    feeds = {name: _make(generator, name, shape) for name, shape in family.inputs.items()}
    if "attention_mask" in feeds:
        feeds["input_ids"][1, -PADDING:] = PAD
        feeds["attention_mask"][1, -PADDING:] = 0
    return feeds


def _make(generator: np.random.Generator, name: str, shape: Shape) -> Array:
    shape = (BATCH, *shape)
    if name == "attention_mask":
        return np.ones(shape, np.int64)
    if name == "token_type_ids":
        return np.broadcast_to(np.arange(shape[1]) * 2 // shape[1], shape).copy()
    if name.endswith("input_ids"):
        return generator.integers(4, VOCABULARY, size=shape)
    return generator.normal(size=shape).astype(np.float32)


def export(case: Case) -> None:
    """Write the file unless it exists; a failure is stored in a file next to it.

    Raises:
        ExporterError: The exporter failed, now or in an earlier run.
    """
    note = case.path.with_suffix(".failed")
    if note.exists():
        raise ExporterError(note.read_text(encoding="utf-8"))
    if case.path.exists():
        return
    partial = case.path.with_suffix(".part")
    try:
        _export(FAMILIES[case.name], case, partial)
    except Exception as error:
        note.write_text(_reason(error), encoding="utf-8")
        raise ExporterError(_reason(error)) from None
    partial.replace(case.path)


def _export(family: Family, case: Case, path: Path) -> None:
    import torch

    network = _wrap(family, _build(family, case.exporter))
    arrays = tuple(torch.from_numpy(array) for array in make_feeds(family).values())
    axes = {} if case.static else _free_axes(family)
    shared: dict[str, Any] = {"input_names": list(family.inputs), "output_names": ["output"]}
    if case.exporter == "legacy":
        shared |= {"dynamo": False, "opset_version": 17}
        shared["dynamic_axes"] = {**axes, "output": {0: "batch"}} if axes else None
    else:
        shared |= {"dynamo": True, "opset_version": 18, "external_data": False, "verbose": False}
        shared["dynamic_shapes"] = (tuple(axes.values()),) if axes else None
    with torch.no_grad():
        wanted = network(*arrays).numpy()
        torch.onnx.export(network, arrays, str(path), **shared)
    _check_output(path, make_feeds(family), wanted)


def _check_output(path: Path, feeds: dict[str, Array], wanted: Array) -> None:
    """Check that the file loads and computes what PyTorch computes; exporters may fail silently."""
    (output,) = onnxruntime.InferenceSession(str(path)).run(None, feeds)
    error = float(np.abs(output - wanted).max() / np.abs(wanted).max())
    if not error < TOLERANCE:
        raise RuntimeError(f"the file's output differs from PyTorch's by {error:.1e}")


def _build(family: Family, exporter: str) -> Any:
    """The network, no weight or statistic of which has a value that hides a mistake."""
    import torch
    import transformers
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    patcher = importlib.import_module("optimum.exporters.onnx.model_patcher")
    for name, other in family.swaps.items():
        module, _, function = name.partition(":")
        setattr(importlib.import_module(module), function, pkgutil.resolve_name(other))
    torch.manual_seed(3)
    kind = getattr(transformers, family.model)
    attention = {}
    if exporter == "legacy":
        attention = {"attn_implementation": "eager"}
        # Transformers builds masks with vmap, which the legacy exporter cannot trace.
        ALL_MASK_ATTENTION_FUNCTIONS.register("eager", patcher.eager_mask_without_vmap)
    model = kind(kind.config_class(use_cache=False, **family.config, **attention))
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.add_(torch.randn_like(parameter) * SCALE)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return (getattr(model, family.part) if family.part else model).eval()


def _wrap(family: Family, model: Any) -> Any:
    """The network with positional inputs and its first output alone."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *arrays: torch.Tensor) -> Any:
            inputs = dict(zip(family.inputs, arrays, strict=True))
            return self.model(**inputs, **family.options)[0]

    return Network().eval()


def _free_axes(family: Family) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {}
    for name, shape in family.inputs.items():
        axes[name] = {0: "batch"}
        if name.startswith("decoder"):
            axes[name][1] = "decoder_tokens"
        elif name in PAIR:
            axes[name][1] = "tokens"
        elif family.free:
            axes[name] |= {k: f"side{k}" for k in range(2, len(shape) + 1)}
    return axes


def examine(case: Case) -> Row:
    """Export, inspect and explain one file."""
    row = Row()
    with _quiet():
        try:
            _examine(case, row)
        except Exception as error:
            row.error = _reason(error)
    return row


def _examine(case: Case, row: Row) -> None:
    family = FAMILIES[case.name]
    feeds = make_feeds(family)
    export(case)
    row.step = "inspect"
    model = Model.open(case.path)
    _note_structure(row, inspect(model, feeds), family.sites)
    row.step = "numpy"
    target = _target(model)
    sample = _sample(feeds)
    walked = Explainer(case.path, engine="numpy").explain(sample, target)
    row.residual = max(e.record.residual for e in walked)
    row.step = "onnxruntime"
    explainer = Explainer(case.path, engine="onnxruntime")
    compiled = explainer.explain(sample, target)
    row.difference = max(map(_difference, walked, compiled))
    if "attention_mask" in feeds and not case.static:
        row.step = "padding"
        cut = {name: slice(None, -PADDING) for name in PAIR}
        alone = {name: array[1:, cut.get(name, slice(None))] for name, array in feeds.items()}
        row.padding = _padding(compiled[1], explainer.explain(_sample(alone), target)[0])


def _sample(feeds: dict[str, Array]) -> Sample:
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))


def _note_structure(row: Row, report: Inspection, expected: Sites) -> None:
    sites = defaultdict(set)
    for site in report.sites:
        sites[site.kind].add(site.layer)
    row.nodes = report.model.nodes
    row.reached, row.covered = report.coverage.reached, report.coverage.covered
    row.sites = dict(sites)
    row.right = row.sites == {kind: set(layers) for kind, layers in expected.items()}


def _target(model: Model) -> str:
    """The prediction; for feature maps, which have no classes, one element."""
    rank = len(model.outputs[0].shape or ())
    return "pred" if rank <= 3 else ",".join("1" * (rank - 1))


def _difference(first: Explanation, second: Explanation) -> float:
    total = np.array(first.record.relevance.total)
    other = np.array(second.record.relevance.total)
    return float(np.abs(total - other).max() / np.abs(total).max())


def _padding(padded: Explanation, alone: Explanation) -> float:
    """Largest relevance of padding, or change by padding in the map of the real tokens."""
    total = np.array(alone.record.relevance.total)
    other = np.array(padded.record.relevance.total)
    other[: len(total)] -= total
    return float(np.abs(other).max() / np.abs(total).max())


def _reason(error: BaseException) -> str:
    """The first line of the root cause of an exception."""
    if isinstance(error, ExporterError):
        return str(error)
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress and warnings of the exporters between the rows."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    logging.disable(logging.CRITICAL)
    silence = io.StringIO()
    with (
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


def examine_in_process(case: Case) -> Row:
    """The same in a separate process, which may crash."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(examine, case).result()
        except BrokenProcessPool as error:
            return Row(step="process", error=_reason(error))


def describe(case: Case, row: Row) -> str:
    """One line of the table."""
    family = FAMILIES[case.name]
    start = f"{case.name:<24}{_exporter(case):<15}"
    if not row.nodes:
        return f"{start}{row.step}: {row.error}"
    line = (
        f"{start}{row.nodes:>6}{row.reached:>8}{row.covered:>8}  "
        f"{_sites(row.sites):<32}{_sites(family.sites):<32}{'ok' if row.right else 'WRONG':<7}"
        f"{row.residual:>9.1e}{row.difference:>9.1e}{_padding_text(row):>9}  {family.exported}"
    )
    return f"{line}  {row.step}: {row.error}" if row.error else line


def _padding_text(row: Row) -> str:
    return "" if np.isnan(row.padding) else f"{row.padding:.1e}"


def _exporter(case: Case) -> str:
    return f"{case.exporter}/static" if case.static else case.exporter


def _sites(sites: Sites) -> str:
    found = (f"{kind} x{len(layers)}" for kind, layers in sorted(sites.items()) if layers)
    return ", ".join(found) or "none"


def summary(rows: Collection[Row]) -> str:
    """The totals."""
    exported = [r for r in rows if r.step not in ("export", "process")]
    explained = [r for r in exported if not r.error]
    right = [r for r in exported if r.right]
    lines = [
        f"{len(exported)} of {len(rows)} exported, {len(explained)} of these explained by both "
        f"engines, {len(right)} with the right sites, "
        f"{sum(r.right for r in explained)} both"
    ]
    if explained:
        residual = max(r.residual for r in explained)
        difference = max(r.difference for r in explained)
        lines.append(f"largest residual {residual:.1e}, difference of engines {difference:.1e}")
    if padded := [r.padding for r in explained if not np.isnan(r.padding)]:
        lines.append(f"padding changes {max(padded):.1e} at most, in {len(padded)} files")
    return "\n".join(lines)


def find_cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every requested file."""
    exporters = ("legacy", "dynamo") if options.exporter == "both" else (options.exporter,)
    for name in options.names or FAMILIES:
        for exporter in exporters:
            yield Case(name, exporter, False, options.cache)
            if options.static or name in STATIC:
                yield Case(name, exporter, True, options.cache)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--exporter", choices=("legacy", "dynamo", "both"), default="both")
    parser.add_argument("--static", action="store_true", help="fixed axes for every family")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-families"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(FAMILIES):
        parser.error(f"unknown families: {', '.join(sorted(unknown))}")
    options.cache.mkdir(parents=True, exist_ok=True)
    print(
        f"{'family':<24}{'exporter':<15}{'nodes':>6}{'reached':>8}{'covered':>8}  {'sites':<32}"
        f"{'expected':<32}{'':<7}{'residual':>9}{'engines':>9}{'padding':>9}  model"
    )
    rows = []
    for case in find_cases(options):
        rows.append(examine_in_process(case))
        print(describe(case, rows[-1]), flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
