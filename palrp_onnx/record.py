"""From arrays to records: relevance per unit, with everything needed to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.attribution import (
    Attribution,
    ModelFacts,
    Relevance,
    Run,
    Site,
    TargetFacts,
    Units,
    Warning_,
)
from palrp_onnx.graph.analysis import Analysis
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.patches import patch_size
from palrp_onnx.graph.roles import Role
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.relevance.result import Relevance as Raw
from palrp_onnx.relevance.sinks import Sink, reduce_sinks
from palrp_onnx.relevance.target import Resolved

Array = NDArray[Any]
#: Grid of an image that is not cut into patches by its first layer.
_GRID = 14


@dataclass(frozen=True)
class Explanation:
    """A record and the signed arrays behind it.

    Attributes:
        record: The record of the contract.
        tensors: ``content`` [1, units, features] (``pixels`` [1, C, H, W] for images),
            ``site/LAYER/PART`` [1, tokens, features], ``input/NAME`` for further inputs.
    """

    record: Attribution
    tensors: dict[str, Array]


@dataclass(frozen=True)
class Describer:
    """Turns raw relevance into explanations, one a row of the batch."""

    model: Model
    analysis: Analysis
    explained: str
    run: Run
    map: Literal["sum", "content", "position"]

    def __call__(
        self,
        sample: Sample,
        output: str,
        raw: Raw,
        targets: Sequence[Resolved],
        labels: Mapping[int, str],
    ) -> list[Explanation]:
        """Describe every row."""
        content, grid = self._content(raw.content)
        return [
            self._row(sample, output, raw, content[row : row + 1], grid, row, target, labels)
            for row, target in enumerate(targets)
        ]

    def _content(self, content: Array) -> tuple[Array, tuple[int, int] | None]:
        """[B, units, features], and the grid where units are patches."""
        if content.ndim != 4:
            return content, None
        grid = patch_grid(self.analysis, self.explained, content.shape[2:])
        return to_patches(content, grid), grid

    def _row(
        self,
        sample: Sample,
        output: str,
        raw: Raw,
        content: Array,
        grid: tuple[int, int] | None,
        row: int,
        target: Resolved,
        labels: Mapping[int, str],
    ) -> Explanation:
        sinks = [replace(s, relevance=s.relevance[row : row + 1]) for s in raw.sinks]
        aligned, warnings = align(sinks, content.shape[1])
        summed = content.sum(axis=-1, dtype=np.float64)
        position = np.zeros_like(summed)
        if self.map != "content":
            position = reduce_sinks(aligned, self.run.params["positions"], summed)
        total = {"sum": summed + position, "content": summed, "position": position}[self.map]
        record = Attribution(
            id=sample.id if len(raw.content) == 1 else f"{sample.id}-{row}",
            model=model_facts(self.model),
            run=self.run,
            input=sample.facts,
            target=describe_target(output, target, labels),
            units=self._units(sample, content.shape[1], grid, row),
            relevance=Relevance(
                content=_floats(summed[0]), position=_floats(position[0]), total=_floats(total[0])
            ),
            sites=[
                Site(
                    name=f"site/{s.name}",
                    kind=s.kind,
                    layer=s.layer,
                    part=s.part,
                    relevance=_floats(s.relevance[0].sum(axis=-1, dtype=np.float64)),
                )
                for s in aligned
            ],
            ledger={name: float(amount[row]) for name, amount in raw.ledger.items()},
            warnings=[*sample.warnings, *warnings],
        )
        return Explanation(record, self._tensors(raw, content, sinks, row))

    def _tensors(self, raw: Raw, content: Array, sinks: list[Sink], row: int) -> dict[str, Array]:
        tensors = {"content": content}
        if raw.content.ndim == 4:
            tensors["pixels"] = raw.content[row : row + 1]
        tensors.update((f"site/{s.name}", s.relevance) for s in sinks)
        tensors.update((f"input/{name}", r[row : row + 1]) for name, r in raw.others.items())
        return tensors

    def _units(self, sample: Sample, count: int, grid: tuple[int, int] | None, row: int) -> Units:
        if grid is not None:
            return Units(kind="patch", grid=grid)
        if sample.units is not None and len(sample.units.text) == count:
            return sample.units
        ids = sample.feeds[self.explained][row]
        masks = (sample.feeds[name] for name in self.analysis.inputs.named(Role.MASK))
        mask = next((m[row] for m in masks if m.ndim == 2 and m.shape[1] == count), np.ones(count))
        known = ids.dtype.kind in "iu" and ids.shape == (count,)
        return Units(
            kind="token",
            text=[str(i) for i in (ids.tolist() if known else range(count))],
            id=ids.tolist() if known else [],
            special=(mask == 0).tolist(),
        )


def model_facts(model: Model) -> ModelFacts:
    """The model as records and reports show it."""
    return ModelFacts(
        sha256=model.sha256, opset=model.opset, producer=model.producer, nodes=model.nodes
    )


def _floats(values: Array) -> list[float]:
    return [float(v) for v in values]


def describe_target(output: str, target: Resolved, labels: Mapping[int, str]) -> TargetFacts:
    """The target as the record shows it."""
    index, _ = target.where[0]
    if target.kind == "element":
        return TargetFacts(output=output, kind="element", index=list(index), value=target.value)
    against = target.where[1][0][-1] if len(target.where) > 1 else None
    return TargetFacts(
        output=output,
        kind=target.kind,
        index=index[-1],
        value=target.value,
        position=index[0] if len(index) > 1 else None,
        label=labels.get(index[-1]),
        against=against,
        against_label=labels.get(against) if against is not None else None,
        probability=target.probability,
    )


def patch_grid(analysis: Analysis, name: str, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches; images without patches are cut into at most 14 × 14 blocks."""
    sides = patch_size(analysis, name)
    if sides is None:
        return min(_GRID, size[0]), min(_GRID, size[1])
    return size[0] // sides[0], size[1] // sides[1]


def to_patches(pixels: Array, grid: tuple[int, int]) -> Array:
    """[B, C, H, W] → [B, patches, features]: patches in row-major order.

    Features are a patch's numbers where all patches have one size, else their sum.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = grid
    if height % rows == 0 and width % columns == 0:
        shape = (batch, channels, rows, height // rows, columns, width // columns)
        cut = pixels.reshape(shape).transpose(0, 2, 4, 1, 3, 5)
        return cut.reshape(batch, rows * columns, -1)
    tops = np.arange(rows) * height // rows
    lefts = np.arange(columns) * width // columns
    summed = np.add.reduceat(np.add.reduceat(pixels.sum(axis=1), tops, axis=1), lefts, axis=2)
    return np.asarray(summed.reshape(batch, -1, 1))


def align(sinks: Sequence[Sink], units: int) -> tuple[list[Sink], list[Warning_]]:
    """Sinks with one row a unit: prefix tokens (class, distillation) are cut off.

    A sink with fewer tokens than units cannot be shown on the map; it stays in the ledger and in
    the arrays, and a warning says so.
    """
    aligned, warnings = [], []
    for sink in sinks:
        extra = sink.relevance.shape[1] - units
        if extra >= 0:
            aligned.append(replace(sink, relevance=sink.relevance[:, extra:]))
        else:
            message = (
                f"site/{sink.name} runs over {sink.relevance.shape[1]} places, not {units} units"
            )
            warnings.append(Warning_(code="unaligned-site", message=message))
    return aligned, warnings
