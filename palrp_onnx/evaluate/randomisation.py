"""Whether maps depend on what a model has learnt: its weights are shuffled, from the output down.

The cascading randomisation of Adebayo et al. (2018), "Sanity checks for saliency maps". A map that
does not change shows the input, or the architecture, but nothing that the model has learnt.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from msgspec import Struct

from palrp_onnx.analysis.content import content_values, fed_values, node_inputs
from palrp_onnx.analysis.inputs import input_roles
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.maps import in_turn, target_text
from palrp_onnx.evaluate.statistics import Estimate, crossed_mean, spearman
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.types import Array

#: Shares of the weights that are shuffled, from the output down.
SHARES = (0.25, 0.5, 0.75, 1.0)
_LARGE = 1 << 16  # bytes; smaller tensors stay in the file


class Stage(Struct, frozen=True, kw_only=True):
    """Rank correlation of the maps before and after shuffling.

    Attributes:
        share: Share of the weights, from the output down, that were shuffled.
        tensors: Number of shuffled tensors.
        signed: Rank correlation of relevance: 1 is the same order, 0 an unrelated one.
        magnitude: Rank correlation of |relevance|.
    """

    share: float
    tensors: int
    signed: Estimate
    magnitude: Estimate


class Randomisation(Struct, frozen=True, kw_only=True):
    """One method on a model whose weights are shuffled step by step.

    A permutation is the same for all samples, and results depend more on it than on the samples,
    above all for signs: a permuted classifier may swap a class with its opposite. So intervals are
    over samples and, if there are several, over draws.

    Attributes:
        samples: Number of samples.
        seed: Seed of the first draw; each further draw adds 1.
        draws: How many times the model was shuffled.
        steps: One entry per share of shuffled weights.
    """

    samples: int
    seed: int
    draws: int
    steps: list[Stage]


def randomisation(
    model: Model,
    build: Callable[[Model], Mapping[str, ComparedMethod]],
    samples: Callable[[], Iterable[Sample]],
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    seed: int = 0,
    draws: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Randomisation]:
    """Compare the maps of a model with those of its shuffled copies.

    All maps of a sample are of one target: the one that the first method finds in the unchanged
    model.

    Args:
        model: The model.
        build: Model → methods by name.
        samples: One row each; they are read once before, and once for every step of every draw.
        target: The explained target.
        labels: Names of classes by index.
        seed: Seed of the permutations.
        draws: Number of permutations.
        progress: Called with the number of samples that are done, over all steps and draws.

    Raises:
        UsageError: An input holds several rows, the model has no weights to shuffle, or it is a
            compiled explainer.
        InputError: There are no samples.
    """
    if Manifest.read(model.metadata) is not None:
        raise UsageError(
            "An explainer cannot be shuffled",
            place=str(model.path),
            hint="Name the model it was compiled from.",
        )
    plain = model.copy()  # planning may add to the graph
    methods = build(model)
    before: list[tuple[str, dict[str, Array]]] = []
    names: list[str] = []
    done = 0
    for sample in samples():
        before.append(_maps(methods, sample, target, labels))
        if not names:
            first = next(iter(methods.values()))
            names = weights(plain, first.engine(sample.feeds).subject.output)
        progress(done := done + 1)
    if not before:
        raise InputError("There is nothing to evaluate")
    steps: dict[str, list[Stage]] = {name: [] for name in methods}
    for share in SHARES:
        count = math.ceil(share * len(names))
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        for draw in range(draws):
            with shuffled(plain, names[:count], seed=seed + draw) as other:
                shuffled_methods = build(other)
                for sample, (wanted, old) in zip(samples(), before, strict=True):
                    for name, new in _maps(shuffled_methods, sample, wanted, labels)[1].items():
                        pairs[name].append(_correlations(old[name], new))
                    progress(done := done + 1)
        for name, found in pairs.items():
            signed, magnitude = np.reshape(found, (draws, len(before), 2)).transpose(2, 0, 1)
            steps[name].append(
                Stage(
                    share=share,
                    tensors=count,
                    signed=crossed_mean(signed),
                    magnitude=crossed_mean(magnitude),
                )
            )
    return {
        name: Randomisation(samples=len(before), seed=seed, draws=draws, steps=found)
        for name, found in steps.items()
    }


def _maps(
    methods: Mapping[str, ComparedMethod],
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None,
) -> tuple[str, dict[str, Array]]:
    maps: dict[str, Array] = {}
    for name, facts, relevance in in_turn(methods, sample, target, labels):
        target, maps[name] = target_text(facts, target), relevance
    return target, maps


def _correlations(old: Array, new: Array) -> tuple[float, float]:
    """Rank correlation of relevance and of its magnitude; 0 if a map is constant."""
    return spearman(old, new) or 0.0, spearman(np.abs(old), np.abs(new)) or 0.0


def weights(model: Model, output: str) -> list[str]:
    """Names of the initializers that hold weights, from the output to the input.

    A weight is the operand, the same for every input, that a matrix product or a convolution on a
    path to the output multiplies content by. If it is computed from stored numbers, as in quantised
    files, the initializer is the largest tensor of two or more axes that it depends on. A weight
    that is used several times is listed at its last use.

    Args:
        model: The model.
        output: The explained output.

    Raises:
        UsageError: There are no weights.
    """
    graph = model.graph
    content = content_values(graph, input_roles(graph))
    fed = fed_values(graph)
    above = _above(graph, output)
    found: dict[str, None] = {}
    for node in reversed(list(graph)):
        if not has(node, Trait.PRODUCT | Trait.LAYER) or node not in above:
            continue
        factors = [v for v in node.inputs[:2] if v is not None]
        if any(v in content for v in factors):
            stored = (_stored(v) for v in factors if v not in fed)
            found.update(dict.fromkeys(name for name in stored if name))
    if not found:
        raise UsageError("The model multiplies by no weights", place=str(model.path))
    return list(found)


def _above(graph: ir.Graph, output: str) -> set[ir.Node]:
    """Nodes that an output depends on."""
    waiting = [v for v in graph.outputs if v.name == output]
    found: set[ir.Node] = set()
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            waiting.extend(node_inputs(node))
    return found


def _stored(weight: ir.Value) -> str | None:
    """Name of the largest tensor of two or more axes that a weight is computed from."""
    waiting, tensors = [weight], []
    while waiting:
        value = waiting.pop()
        if value.const_value is not None and len(value.const_value.shape) > 1:
            tensors.append(value)
        elif (node := value.producer()) is not None:
            waiting.extend(node_inputs(node))
    largest = max(tensors, key=lambda v: v.const_value.size if v.const_value else 0, default=None)
    return largest.name if largest is not None else None


@contextmanager
def shuffled(model: Model, names: Iterable[str], *, seed: int = 0) -> Iterator[Model]:
    """The model with the entries of some initializers permuted, in a temporary file.

    The plain graph is written. So the copy has only primitive operations, and its fidelity is
    checked against itself, not against the original file; its integer products are exact on every
    processor. The permutation of an initializer depends only on ``seed`` and its place in
    ``names``, so a longer list extends a shorter one.
    """
    copy = model.copy()
    for number, name in enumerate(names):
        value = copy.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = _permuted(value.const_value, np.random.default_rng((seed, number)))
    with tempfile.TemporaryDirectory(prefix="palrp-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(copy.proto, path, external_data="weights", size_threshold_bytes=_LARGE)
        yield Model.open(path)


def _permuted(tensor: ir.TensorProtocol, generator: np.random.Generator) -> ir.TensorProtocol:
    array = tensor.numpy()
    entries = generator.permutation(array.reshape(-1)).reshape(array.shape)
    return ir.Tensor(entries, dtype=tensor.dtype, name=tensor.name)
