"""Little models for tests: written as ONNX text, opened, run and walked back through."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.prepare import Planned
from palrp_onnx.relevance.result import RawRelevance

Array = NDArray[Any]
IR_VERSION = 10
OPSET = 18

_FOLDER = tempfile.TemporaryDirectory(prefix="little-models-")
_NUMBERS = itertools.count()


def real(*shape: int, seed: int = 7, low: float = -1.5, high: float = 1.5) -> Array:
    """Random float32 numbers, none closer to zero than 0.05."""
    numbers = np.random.default_rng(seed).uniform(low, high, shape)
    return np.where(np.abs(numbers) < 0.05, 0.3, numbers).astype(np.float32)


def floats(*values: float) -> Array:
    """A float32 array, one axis long."""
    return np.array(values, np.float32)


def ints(*values: Any) -> Array:
    """An int64 array; numbers make it one axis long."""
    return np.array(values, np.int64)


def proto(
    body: str,
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
    free: Sequence[int] = (0,),
) -> onnx.ModelProto:
    """A model of the nodes in ``body``; inputs look like ``feeds`` with the ``free`` axes named."""
    nodes = onnx.parser.parse_graph(f"g () => () {{ {body} }}").node
    inputs = [_input(name, array, free) for name, array in feeds.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "little", inputs, results, constants)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def _input(name: str, array: Array, free: Sequence[int]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    dims = [f"axis{k}" if k in free else size for k, size in enumerate(array.shape)]
    return helper.make_tensor_value_info(name, kind, dims)


def opened(model: onnx.ModelProto) -> Model:
    """The model, by way of a file."""
    path = Path(_FOLDER.name) / f"{next(_NUMBERS)}.onnx"
    path.write_bytes(model.SerializeToString())
    return Model.open(path)


@dataclass(frozen=True)
class Walk:
    """One walk from a seed at the whole output.

    Attributes:
        engine: The opened engine.
        feeds: What was fed.
        values: Forward values the walk read.
        seed: Multiplier of the output.
        result: RawRelevance and ledger.
    """

    engine: NumpyEngine
    feeds: Mapping[str, Array]
    values: Mapping[str, Array]
    seed: Array
    result: RawRelevance

    @property
    def planned(self) -> Planned:
        """Analysis and plan."""
        return self.engine.planned

    @property
    def y(self) -> Array:
        """The explained output."""
        return np.asarray(self.values[self.planned.output])

    @property
    def x(self) -> Array:
        """The explained input."""
        return self.feeds[self.planned.explained]

    @property
    def content(self) -> Array:
        """Relevance of the explained input in its own shape."""
        flags = self.planned.analysis.input_axes(self.planned.explained).flags
        content = self.result.content
        if flags[1:] == (0, TOKEN):  # sound and series have their tokens last
            content = content.swapaxes(1, 2)
        return content.reshape(self.x.shape)

    @property
    def multiplier(self) -> Array:
        """R / x of the explained input, which must not hold zeros."""
        return np.asarray(self.content / wide(self.x))

    @property
    def residual(self) -> float:
        """Largest |residual_relative| of the ledger."""
        return float(np.abs(self.result.ledger["residual_relative"]).max())

    def output(self, x: Array) -> Array:
        """The explained output for another content."""
        feeds = {**self.feeds, self.planned.explained: x}
        return self.engine.forward(feeds)[self.planned.output]


def walk(model: Model, feeds: Mapping[str, Array], **options: Any) -> Walk:
    """Explain ``model`` from a random seed, in float64 by default."""
    engine = Explainer(model, **{"engine": "numpy", "dtype": "float64", **options}).engine(feeds)
    assert isinstance(engine, NumpyEngine)
    return again(engine, feeds)


def again(engine: NumpyEngine, feeds: Mapping[str, Array], seed: Array | None = None) -> Walk:
    """Walk once more with an opened engine."""
    values = engine.forward(feeds)
    if seed is None:
        seed = np.random.default_rng(11).normal(size=values[engine.planned.output].shape)
    return Walk(engine, feeds, values, seed, engine.propagate(values, seed))


def run(
    body: str,
    x: Array,
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = OPSET,
    free: Sequence[int] = (0,),
    **options: Any,
) -> Walk:
    """Build a model with the one input ``x`` and output ``y``, and walk back through it."""
    model = opened(proto(body, {"x": x}, weights, opset=opset, free=free))
    return walk(model, {"x": x}, **{"output": "y", **options})


def wide(array: Array) -> Array:
    """The same numbers in float64."""
    return array.astype(np.float64)


def gradient(found: Walk) -> Array:
    """Central difference of Σ seed ∘ y, entry by entry, through the forward pass.

    The step is a power of two, so that linear operations are exact to rounding.
    """
    x, step = wide(found.x), 2.0**-12
    slopes = np.empty_like(x)
    for k in np.ndindex(*x.shape):
        above, below = x.copy(), x.copy()
        above[k] += step
        below[k] -= step
        rise = found.output(above) - found.output(below)
        slopes[k] = (rise * found.seed).sum() / (2 * step)
    return slopes
