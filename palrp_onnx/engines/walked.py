"""The auditor's engine: forward values from a forward pass, the walk in NumPy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.engines.outcome import Outcome, find_targets
from palrp_onnx.forward import Forward, ReferenceForward, RuntimeForward
from palrp_onnx.graph.inputs import is_float
from palrp_onnx.planning import Planned, check_feeds
from palrp_onnx.relevance.ledger import close_books, entry_name
from palrp_onnx.relevance.maps import image_grid, make_maps, to_patches
from palrp_onnx.relevance.plan import needed_values
from palrp_onnx.relevance.result import Relevance
from palrp_onnx.relevance.sinks import bring_to_tokens, gather_sinks
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.walk import walk
from palrp_onnx.tensor.eager import Eager

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class NumpyEngine:
    """The walk in NumPy, in float32 or, with the forward pass in NumPy too, in float64."""

    name = "numpy"

    def __init__(self, planned: Planned, *, positions: str, dtype: str, device: str) -> None:
        self.planned = planned
        self.subject = planned.subject
        self._positions = positions
        self._kind = np.dtype(dtype)
        model = planned.analysis.model
        names = [v.name for v in needed_values(planned.plan, walk) if v.name and v.producer()]
        names.append(planned.output)
        self._forward: Forward
        if dtype == "float64":
            self._forward = ReferenceForward(model, names)
        else:
            self._forward = RuntimeForward(model, names, device=device)
        self.providers = self._forward.providers

    def explain(self, feeds: Feeds, target: Target) -> Outcome:
        """Explain one batch."""
        start = time.perf_counter()
        values = self.forward(feeds)
        forward = (time.perf_counter() - start) * 1e3
        output = values[self.planned.output]
        targets = find_targets(self.subject, feeds, output, target)
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        raw = self.propagate(values, seed)
        content, grid = raw.content, None
        tensors: dict[str, Array] = {f"site/{s.name}": s.relevance for s in raw.sinks}
        tensors.update((f"input/{name}", r) for name, r in raw.others.items())
        if content.ndim == 4:
            tensors["pixels"] = content
            grid = image_grid(self.subject.patch, content.shape[2:])
            content = to_patches(content, grid)
        tensors["content"] = content
        kind = self.planned.plan.preset.map
        maps = make_maps(content, raw.sinks, positions=self._positions, kind=kind, grid=grid)
        return Outcome(output, targets, maps, raw.ledger, tensors, {"forward": forward})

    def forward(self, feeds: Feeds) -> dict[str, Array]:
        """Forward values the walk reads, the explained output among them."""
        check_feeds(self.planned.analysis.model.inputs, feeds)
        values = {**feeds, **self._forward(feeds)}
        return {
            name: value.astype(self._kind) if value.dtype.kind == "f" else value
            for name, value in values.items()
        }

    def propagate(self, values: Mapping[str, Array], seed: Array) -> Relevance:
        """Walk back from ``seed``, the multiplier of the explained output [B, …].

        Any seed is allowed: relevance is linear in it. ``values`` come from :meth:`forward`.
        """
        planned = self.planned
        self.subject.refuse_mixing(len(seed))
        op = Eager(len(seed), self._kind)
        constants: dict[ir.Value, Array] = {}

        def value_of(value: ir.Value) -> Array:
            name = value.name or ""
            if name in values:
                return values[name]
            if value not in constants:
                assert value.const_value is not None
                array = value.const_value.numpy()
                constants[value] = array.astype(self._kind) if is_float(value) else array
            return constants[value]

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            caught = walk(op, planned.plan, value_of, seed.astype(self._kind))
        caught.require(planned.explained)
        axes = planned.analysis.caught_axes
        arrays = {name: bring_to_tokens(op, r, axes(name)) for name, r in caught.content.items()}
        entries = {entry_name(e, planned.explained): v for e, v in caught.ledger.items()}
        output = values[planned.output].astype(np.float64)
        target = (output * seed).reshape(len(seed), -1).sum(axis=1)
        return Relevance(
            content=arrays.pop(planned.explained),
            others=arrays,
            sinks=tuple(gather_sinks(op, planned.sites, caught.positions)),
            ledger=close_books(entries, target),
        )
