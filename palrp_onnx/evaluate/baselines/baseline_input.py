"""The input of every baseline: forward values of one batch, its targets, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from palrp_onnx.engines import NumpyEngine
from palrp_onnx.engines.base import find_targets
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.routes import bring_to_tokens
from palrp_onnx.relevance.target import Resolved, Target
from palrp_onnx.relevance.units import grid_of, to_patches
from palrp_onnx.tensor.numpy import Eager
from palrp_onnx.types import Array, Feeds


@dataclass(frozen=True)
class BaselineInput:
    """One batch and the target of each of its rows.

    Attributes:
        engine: An engine with the method ``gradient-x-input``, whose multipliers are gradients.
        feeds: Arrays by graph input.
        values: Forward values by name.
        targets: The target of every row.
        seed: Derivative of the target with respect to the output.
        engine_of: The engine of another method for the same model.
    """

    engine: NumpyEngine
    feeds: Feeds
    values: Feeds
    targets: list[Resolved]
    seed: Array
    engine_of: Callable[[Method], NumpyEngine]

    @classmethod
    def of(
        cls,
        engine: NumpyEngine,
        feeds: Feeds,
        target: Target | Sequence[Target],
        engine_of: Callable[[Method], NumpyEngine],
    ) -> BaselineInput:
        """Run the forward pass, and find the targets.

        Raises:
            InputError: The arrays do not fit the graph.
            TargetError: The output has no such element.
        """
        values = engine.forward(feeds)
        output = engine.subject.by_sample(values[engine.planned.output])
        targets = find_targets(engine.subject, feeds, output, target)
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        return cls(engine, feeds, values, targets, seed, engine_of)

    @property
    def explained(self) -> str:
        """Name of the explained input."""
        return self.engine.planned.explained

    def gradients(self, watch: Collection[ir.Value]) -> dict[ir.Value, Array]:
        """∂ target / ∂ value, for each of the values ``watch`` that the target depends on."""
        return self.engine.multipliers(self.values, self.seed, watch)

    def values_of(self, names: Sequence[str]) -> Feeds:
        """Forward values of these names, also of those that the walk does not read."""
        missing = [name for name in names if name not in self.values]
        found = self.engine.forward_from((), missing)(self.feeds) if missing else {}
        return {name: self.values[name] if name in self.values else found[name] for name in names}

    def multipliers_under(self, method: Method, names: Collection[str]) -> dict[str, Array]:
        """Multipliers of the values of these names under another method, where there are any."""
        engine = self.engine_of(method)
        graph = engine.planned.analysis.model.graph
        watch = [v for node in graph for v in node.outputs if v.name in names]
        found = engine.multipliers(engine.forward(self.feeds), self.seed, watch)
        return {value.name or "": array for value, array in found.items()}

    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches of an image; ``None`` if units are tokens."""
        return grid_of(self.engine.subject, self.feeds[self.explained])

    def per_unit(self, relevance: Array) -> Array:
        """Relevance of the explained input, or of its embeddings, summed to [B, units]."""
        op = Eager(self.engine.subject.samples(self.feeds), relevance.dtype)
        axes = self.engine.planned.analysis.input_axes(self.explained)
        content, grid = bring_to_tokens(op, relevance, axes), self.grid()
        if grid is not None:
            content = to_patches(content, grid)
        return np.asarray(content.sum(axis=-1, dtype=np.float64))


#: A baseline, which computes a map [B, units].
BaselineMap = Callable[[BaselineInput], Array]
