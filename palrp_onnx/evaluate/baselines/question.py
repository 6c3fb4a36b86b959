"""What every baseline is asked: one input and one target, run forward, ready for gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from palrp_onnx.engines import NumpyEngine
from palrp_onnx.engines.base import find_targets
from palrp_onnx.relevance.sinks import bring_to_tokens
from palrp_onnx.relevance.target import Resolved, Target
from palrp_onnx.relevance.units import grid_of, to_patches
from palrp_onnx.tensor.numpy import Eager
from palrp_onnx.types import Array, Feeds


@dataclass(frozen=True)
class Question:
    """One batch and the target in each of its rows.

    Attributes:
        engine: Opened with the method ``gradient-x-input``: its multipliers are gradients.
        feeds: What was fed.
        values: Forward values.
        targets: Where the target lies in every row.
        seed: Derivative of the target with respect to the output.
    """

    engine: NumpyEngine
    feeds: Feeds
    values: Feeds
    targets: list[Resolved]
    seed: Array

    @classmethod
    def ask(cls, engine: NumpyEngine, feeds: Feeds, target: Target) -> Question:
        """Run forward, and find the target.

        Raises:
            InputError: The arrays are not what the graph takes.
            TargetError: The output has no such element.
        """
        values = engine.forward(feeds)
        output = values[engine.planned.output]
        targets = find_targets(engine.subject, feeds, output, target)
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        return cls(engine, feeds, values, targets, seed)

    @property
    def explained(self) -> str:
        """Name of the explained input."""
        return self.engine.planned.explained

    def gradients(self, watch: Collection[ir.Value]) -> dict[ir.Value, Array]:
        """∂ target / ∂ value of every watched value that the target depends on."""
        return self.engine.multipliers(self.values, self.seed, watch)

    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the units of an image; ``None`` where units are tokens."""
        return grid_of(self.engine.subject, self.feeds[self.explained])

    def per_unit(self, relevance: Array) -> Array:
        """Relevance of the explained input, or of its looked-up rows, summed to [B, units]."""
        op = Eager(len(relevance), relevance.dtype)
        axes = self.engine.planned.analysis.input_axes(self.explained)
        content, grid = bring_to_tokens(op, relevance, axes), self.grid()
        if grid is not None:
            content = to_patches(content, grid)
        return np.asarray(content.sum(axis=-1, dtype=np.float64))


#: A way to explain by gradients or attention: the map [B, units].
Answer = Callable[[Question], Array]
