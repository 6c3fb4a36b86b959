"""The committed models as production tools rewrite them, compared with the plain files.

    python benchmarks/production.py
    python benchmarks/production.py reviews-bert --form qdq --form int8 --samples 20

One row per form: rewritten operations, difference of the form's target from that of the plain file,
difference of the rewritten graph from the form's file (fidelity), residual of the ledger, and
agreement of the maps with those of the plain file (Pearson over units, median and least over the
samples).
Needs the extra ``dev``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from palrp_onnx import Explainer
from palrp_onnx.inputs import open_sample
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, Fidelity

Array = NDArray[Any]
MODELS = Path(__file__).parents[1] / "models"
#: Model → type, heads and width, which the optimiser needs.
Shape = tuple[str, int, int]
SHAPES: dict[str, Shape] = {
    "reviews-rope": ("gpt2", 4, 128),
    "reviews-bert": ("bert", 4, 128),
    "digits-vit": ("vit", 4, 64),
}
CALIBRATION = 16


def _optimised(source: Path, shape: Shape, *, approximate: bool = False) -> Any:
    """The optimiser that Optimum's levels O2 to O4 call."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    kind, heads, width = shape
    fusion = FusionOptions(kind)
    fusion.enable_gelu_approximation = approximate
    with contextlib.redirect_stdout(io.StringIO()):
        return optimizer.optimize_model(
            str(source), kind, heads, width, optimization_options=fusion, opt_level=1
        )


def make_o2(source: Path, target: Path, shape: Shape) -> None:
    """Attention, norms and activations fused."""
    _optimised(source, shape).save_model_to_file(str(target))


def make_o3(source: Path, target: Path, shape: Shape) -> None:
    """The same, the activation approximated."""
    _optimised(source, shape, approximate=True).save_model_to_file(str(target))


def make_o4(source: Path, target: Path, shape: Shape) -> None:
    """The same in half precision, inputs and outputs left as they were."""
    model = _optimised(source, shape, approximate=True)
    model.convert_float_to_float16(keep_io_types=True)
    model.save_model_to_file(str(target))


def make_session(source: Path, target: Path, shape: Shape) -> None:
    """What a session of ONNX Runtime saves at its highest level."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options)


def make_int8(source: Path, target: Path, shape: Shape) -> None:
    """Weights in eight bits, activations measured as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8)


def make_qdq(source: Path, target: Path, shape: Shape) -> None:
    """Products in eight bits, activations calibrated."""
    _calibrated(source, target, op_types_to_quantize=["MatMul", "Gemm", "Conv"])


def make_all_qdq(source: Path, target: Path, shape: Shape) -> None:
    """Everything in eight bits. Masks of −∞ make scales infinite: causal models break."""
    _calibrated(source, target)


def _calibrated(source: Path, target: Path, **options: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = iter([s.feeds for s in samples(source.parent.name, CALIBRATION, seed=1)])

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._rows, None)

    quantize_static(str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, **options)


def make_nbits(source: Path, target: Path, shape: Shape) -> None:
    """Weights of matrix products in four bits, in blocks."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def make_slim(source: Path, target: Path, shape: Shape) -> None:
    """Constants folded, patterns simplified."""
    import onnxslim

    onnx.save(onnxslim.slim(str(source)), target)


FORMS: dict[str, Callable[[Path, Path, Shape], None]] = {
    "o2": make_o2,
    "o3": make_o3,
    "o4": make_o4,
    "session": make_session,
    "int8": make_int8,
    "qdq": make_qdq,
    "all-qdq": make_all_qdq,
    "nbits": make_nbits,
    "slim": make_slim,
}


def make_form(source: Path, form: str, folder: Path) -> Path:
    """One form of the model in the folder ``source``, written into ``folder``."""
    logging.disable(logging.WARNING)
    name = source.name
    target = folder / f"{name}-{form}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FORMS[form](source / "model.onnx", target, SHAPES.get(name, SHAPES["reviews-bert"]))
    logging.disable(logging.NOTSET)
    return target


def samples(name: str, count: int, *, seed: int = 0) -> Iterator[Sample]:
    """Inputs of a model: digits, or sentences made of pieces of its sample."""
    folder = MODELS / name
    path = folder / "model.onnx"
    inputs = Explainer(path).model.inputs
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as scratch:
        if name == "digits-vit":
            yield from _digits(folder, path, inputs, count, generator, Path(scratch))
            return
        words = (folder / "sample.txt").read_text().split()
        for index in range(count):
            length = int(generator.integers(8, len(words) + 1))
            start = int(generator.integers(0, len(words) - length + 1))
            text = Path(scratch) / f"{index}.txt"
            text.write_text(" ".join(words[start : start + length]))
            yield open_sample(text, model_path=path, graph_inputs=inputs, tokenizer=None)


def _digits(
    folder: Path, path: Path, inputs: Any, count: int, generator: Any, scratch: Path
) -> Iterator[Sample]:
    """The sample, shifted."""
    from PIL import Image, ImageChops

    image = Image.open(folder / "sample.png")
    for index in range(count):
        moved = ImageChops.offset(image, *(int(k) for k in generator.integers(-1, 2, size=2)))
        file = scratch / f"{index}.png"
        moved.save(file)
        yield open_sample(file, model_path=path, graph_inputs=inputs, tokenizer=None)


@dataclass(frozen=True)
class Row:
    """Results for one form."""

    rewritten: int
    moved: float
    fidelity: float
    residual: float
    agreement: list[float]


def measure(name: str, form: str, count: int) -> Row:
    """Explain ``count`` inputs with the plain model and with one form of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_form(MODELS / name, form, Path(folder))
        plain, other = Explainer(MODELS / name / "model.onnx"), Explainer(path)
        pairs = []
        for sample in samples(name, count):
            reference = plain.explain(sample)[0].record
            target = str(reference.target.index)
            pairs.append((reference, other.explain(sample, target)[0].record))
    checks = [r.fidelity for _, r in pairs if isinstance(r.fidelity, Fidelity)]
    return Row(
        rewritten=sum(checks[0].rewritten.values()) if checks else 0,
        moved=max(abs(a.target.value - b.target.value) for a, b in pairs),
        fidelity=max((f.difference for f in checks), default=0.0),
        residual=max(b.residual for _, b in pairs),
        agreement=[correlation(a, b) for a, b in pairs],
    )


def correlation(first: Attribution, second: Attribution) -> float:
    """Pearson's correlation of two maps."""
    return float(np.corrcoef(first.relevance.total, second.relevance.total)[0, 1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SHAPES), metavar="MODEL")
    parser.add_argument("--form", action="append", choices=list(FORMS))
    parser.add_argument("--samples", type=int, default=10)
    options = parser.parse_args()
    print(
        f"{'model':14} {'form':8} {'rewritten':>9} {'moved':>8} {'fidelity':>8} {'residual':>8}"
        f" {'map r, median':>13} {'least':>7}"
    )
    for name in options.models:
        for form in options.form or FORMS:
            try:
                row = measure(name, form, options.samples)
            except Exception as error:  # is printed as a row
                print(f"{name:14} {form:8} {type(error).__name__}: {str(error)[:160]}")
                continue
            print(
                f"{name:14} {form:8} {row.rewritten:9} {row.moved:8.1e} {row.fidelity:8.1e}"
                f" {row.residual:8.1e} {statistics.median(row.agreement):13.4f}"
                f" {min(row.agreement):7.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
