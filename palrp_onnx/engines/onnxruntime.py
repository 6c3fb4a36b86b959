"""The compiled engine: forward and relevance pass in one session of ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from palrp_onnx.compiler.interface import (
    AGAINST,
    CONTENT,
    DEFAULT_SCALE,
    FEATURES,
    LEDGER,
    OFF_MAP,
    POSITION,
    SCORE,
    SEED_SCALE,
    SITES,
    TARGET,
    TARGET_POSITION,
    TARGET_SEED,
    TARGET_VECTOR,
    TOTAL,
    source_name,
)
from palrp_onnx.compiler.manifest import Aligned, Manifest
from palrp_onnx.compiler.runnable import Runnable
from palrp_onnx.engines.base import Outcome, find_targets, settled
from palrp_onnx.errors import InputError, ModelError, TargetError
from palrp_onnx.model.signature import GraphInput, check_feeds
from palrp_onnx.relevance.ledger import close_ledger
from palrp_onnx.relevance.sinks import Sink
from palrp_onnx.relevance.target import Resolved, Target, of_rows, vector_factor
from palrp_onnx.relevance.units import Maps, grid_of, unit_relevance
from palrp_onnx.session import Session, return_memory
from palrp_onnx.subject import Subject
from palrp_onnx.types import Array, Feeds


class CompiledEngine:
    """Runs a compiled graph, just compiled or from an explainer file.

    Args:
        graph: The compiled graph.
        manifest: Its manifest.
        inputs: Inputs of the model that was compiled.
        folder: Folder of external data.
        device: ``cpu`` or ``cuda[:N]``.
        prepack: See :class:`Session`.
        forward: Computes the explained output alone, for targets that depend on it.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: Runnable,
        manifest: Manifest,
        inputs: tuple[GraphInput, ...],
        *,
        folder: Path,
        device: str,
        prepack: bool,
        forward: Callable[[Feeds], Array] | None = None,
    ) -> None:
        self.subject: Subject = manifest
        self.manifest = manifest
        self._inputs = inputs
        self._forward = forward
        self._scaled = SEED_SCALE in graph.optional
        self._targets = [n for n in graph.optional if n not in (SEED_SCALE, TARGET_VECTOR)]
        self._takes_vectors = TARGET_VECTOR in graph.optional
        self._takes_seeds = TARGET_SEED in graph.inputs
        self._output = source_name(manifest.output)
        if SCORE not in graph.outputs:  # before version 2.0 of records, the total was the score
            raise ModelError(
                f"The explainer has no output {SCORE!r}: it is of an earlier version",
                hint="Compile the model again.",
            )
        published = {self._output, CONTENT, POSITION, TOTAL, SCORE, SITES, OFF_MAP, LEDGER}
        prefixes = (FEATURES, *(f"{name}/" for name in published - {self._output}))
        self._outputs = [n for n in graph.outputs if n in published or n.startswith(prefixes)]
        fast = manifest.memory == "fast"
        self._open = partial(
            Session,
            graph.data,
            folder,
            device=device,
            prepack=prepack or graph.rounds_inside,
            in_order=not graph.widens,
            reuse=fast,
            layout=fast,
            arena=fast,
        )
        self.providers = self._session.providers

    @cached_property
    def _session(self) -> Session:
        return self._open()

    def close(self) -> None:
        """Close the session and free its memory; the next explanation opens it again."""
        if self.__dict__.pop("_session", None) is not None:
            return_memory()

    def output(self, feeds: Feeds) -> Array:
        """The explained output [B, …] alone: by the forward pass, else of an explanation."""
        check_feeds(self._inputs, feeds, self.manifest.masks)
        if self._forward is not None:
            return self.manifest.by_sample(self._forward(feeds))
        given = {source_name(name): array for name, array in feeds.items()}
        rest = {**self._default(self.manifest.samples(feeds)), **self._scales(given)[-1]}
        values = self._session.run([self._output], {**given, **rest})
        return self.manifest.by_sample(values[self._output])

    def explain(self, feeds: Feeds, target: Target | Sequence[Target]) -> Outcome:
        """Explain one batch."""
        check_feeds(self._inputs, feeds, self.manifest.masks)
        samples = self.manifest.samples(feeds)
        self.manifest.refuse_mixing(samples)
        self.manifest.check_rows(feeds)
        start = time.perf_counter()
        given = {source_name(name): array for name, array in feeds.items()}
        wanted = of_rows(target, samples)
        if self._takes_seeds or any(each.of_output for each in wanted):
            before = self.output(feeds)
            chosen, lengths = self._seeds(
                find_targets(self.manifest, feeds, before, target), before
            )
        else:
            chosen, lengths = self._chosen(wanted), None
        default = self._default(samples)
        try:
            values = self._run({**given, **default, **chosen})
        except InputError:
            # An index outside of its axis, or a vector of another length, fails inside the graph.
            # The output alone, without them, gives the precise error.
            if chosen:
                find_targets(self.manifest, feeds, self.output(feeds), target)
            raise
        ms = {"session": (time.perf_counter() - start) * 1e3}
        output = self.manifest.by_sample(values[self._output])
        targets = find_targets(self.manifest, feeds, output, target)
        if lengths is None and wanted and wanted[0].vector is not None:
            lengths = np.array(
                [vector_factor(each, t.scores) for each, t in zip(wanted, targets, strict=True)]
            )
        if lengths is not None:
            values = self._rescaled(values, lengths)
        view, *others = self.manifest.views
        maps = self._maps(view, self.manifest.aligned, values, feeds)
        further = {
            other.input: self._maps(other, aligned, values, feeds, f"/{other.input}")
            for other, aligned in zip(others, self.manifest.further_aligned, strict=True)
        }
        sums = np.array([t.value - t.absorbed for t in targets])
        ledger = settled(self._ledger(values, sums), targets)
        return Outcome(output, targets, maps, ledger, self._tensors(values, maps), ms, further)

    def _seeds(self, targets: Sequence[Resolved], output: Array) -> tuple[Feeds, Array]:
        """Multipliers of the output as inputs, each divided by its length; and these lengths [B].

        Raises:
            TargetError: The graph takes them at one place of the output alone.
        """
        rows = output.astype(np.float64)
        seeds = [t.seed(row) for t, row in zip(targets, rows, strict=True)]
        lengths = np.array([float(np.linalg.norm(seed)) for seed in seeds])
        # Relevance is linear in the seed: a seed of zeros is any other times 0.
        unit = [
            (seed / n if n else np.ones_like(seed)).astype(np.float32)
            for seed, n in zip(seeds, lengths, strict=True)
        ]
        if self._takes_seeds:
            return {TARGET_SEED: np.stack(unit)}, lengths
        if not self._takes_vectors or any(len(t.place) != output.ndim - 2 for t in targets):
            raise TargetError(
                "The explainer takes no target at several places of the output",
                hint="Explain the model itself.",
            )
        vectors = np.stack([u[t.place] for u, t in zip(unit, targets, strict=True)])
        places = np.array([t.place for t in targets], np.int64)
        position = {TARGET_POSITION: places[:, 0]} if output.ndim == 3 else {}
        return {TARGET_VECTOR: vectors, **position}, lengths

    def _default(self, samples: int) -> Feeds:
        """The target inputs at their defaults."""
        vector = {TARGET_VECTOR: np.zeros((samples, 1), np.float32)}
        return {
            **{name: np.full(samples, -1, np.int64) for name in self._targets},
            **(vector if self._takes_vectors else {}),
        }

    def _chosen(self, targets: Sequence[Target]) -> Feeds:
        """The targets of all rows as inputs.

        Raises:
            TargetError: One has no meaning for the output, or the explainer does not support it.
        """
        rows = [target_inputs(each, self.manifest.axes) for each in targets]
        names = dict.fromkeys(name for row in rows for name in row)
        absent = np.array(-1, np.int64)
        chosen = {name: np.stack([row.get(name, absent) for row in rows]) for name in names}
        if TARGET_VECTOR in chosen and not self._takes_vectors:
            raise TargetError(
                "The explainer takes no vector as a target",
                hint="Compile the model again, or explain the model itself.",
            )
        return chosen

    def _rescaled(self, values: Mapping[str, Array], lengths: Array) -> dict[str, Array]:
        """Relevance for seeds of these lengths, from the relevance for seeds of length 1.

        Relevance is linear in the seed, and its reductions are linear for positive factors. So the
        length of the output, which a cosine divides by, need not be known before the run.
        """
        return {
            name: array * lengths.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
            if name != self._output
            else array
            for name, array in values.items()
        }

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        """Run; in half precision again with smaller seeds if relevance overflows."""
        for scale in self._scales(feeds):
            values = self._session.run(self._outputs, {**feeds, **scale})
            if np.isfinite(values[TOTAL]).all() and np.isfinite(values[SCORE]).all():
                break
        return values

    def _scales(self, feeds: Feeds) -> list[Feeds]:
        """Seeds to try in half precision.

        The multiplier of a token among n is of the size of 1/n, and those of its scores of 1/n². So
        that they do not vanish, longer inputs start with a larger seed.
        """
        if not self._scaled:
            return [{}]
        samples = {source_name(name): axis for name, axis in self.manifest.batched.items()}
        lengths = [
            length
            for name, array in feeds.items()
            for axis, length in enumerate(array.shape)
            if name in samples and axis != samples[name]
        ]
        doubled = max(max(lengths, default=1) // _SHORT, 1).bit_length() - 1
        raised = DEFAULT_SCALE * 2.0 ** min(doubled, _RAISED)
        factors = dict.fromkeys((raised, *(DEFAULT_SCALE / n for n in (1, 16, 1024))))
        return [{SEED_SCALE: np.array([factor], np.float32)} for factor in factors]

    def _maps(
        self,
        view: Subject,
        aligned: Aligned,
        values: Mapping[str, Array],
        feeds: Feeds,
        suffix: str = "",
    ) -> Maps:
        """The maps of one input, whose outputs end in ``suffix``."""
        found = values.get(SITES + suffix)
        rows: Sequence[Array] = [] if found is None else list(found.swapaxes(0, 1))
        content = values[CONTENT + suffix]
        off = values.get(OFF_MAP + suffix, np.zeros((len(content), len(rows)))).T
        sites = [
            Sink(kind, layer, part, row, width=1, route=None, off_map=rest)
            for (kind, layer, part), row, rest in zip(aligned.sites, rows, off, strict=False)
        ]
        return Maps(
            content=content,
            position=values[POSITION + suffix],
            score=values[SCORE + suffix],
            sites=tuple(sites),
            grid=grid_of(view, feeds[view.input]),
            unaligned=aligned.unaligned,
            off_map=off[len(rows) :].sum(axis=0),
        )

    def _ledger(self, values: Mapping[str, Array], target: Array) -> dict[str, Array]:
        if LEDGER not in values:
            return {}
        columns = values[LEDGER].T.astype(np.float64)
        return close_ledger(dict(zip(self.manifest.ledger, columns, strict=True)), target)

    def _tensors(self, values: Mapping[str, Array], maps: Maps) -> dict[str, Array]:
        raw = {name: array for name, array in values.items() if name.startswith(FEATURES)}
        tensors = {name.removeprefix(FEATURES): array for name, array in raw.items()}
        if maps.grid is not None and "content" in tensors:
            tensors["pixels"] = tensors["content"]
            tensors["content"] = unit_relevance(self.manifest, tensors["pixels"], maps.grid)
        return tensors


#: Up to how many tokens the seed of half precision is the default, and how often it is doubled.
_SHORT, _RAISED = 128, 6


def target_inputs(target: Target, axes: int) -> dict[str, Array]:
    """The target of one row as inputs of the compiled graph: see :mod:`palrp_onnx.compiler.graph`.

    Raises:
        TargetError: It has no meaning for an output of ``axes`` axes.
    """
    if axes == 1 and target.names_the_only():
        return {}
    if axes not in (2, 3):
        if target.kind != "element" or len(target.element) != axes - 1:
            raise TargetError(
                f"Target {target.kind!r} has no meaning for an output of {axes} axes",
                hint="Name one element: --target I,J,… (the batch axis not counted).",
            )
        return {TARGET: np.array(target.element, np.int64)}
    named = {TARGET: target.index, AGAINST: target.against, TARGET_POSITION: target.position}
    if target.kind == "element":
        if len(target.element) != axes - 1:
            raise TargetError(
                f"An element of this output has {axes - 1} indices, not {len(target.element)}",
                hint="Write several classes of one output as index:0,index:1.",
            )
        named = dict(zip((TARGET_POSITION, TARGET)[-axes + 1 :], target.element, strict=True))
    if axes == 2 and named.get(TARGET_POSITION) is not None:
        raise TargetError("The output has no token axis", hint="Use a class index or label.")
    inputs: dict[str, Array] = {
        name: np.array(index if index >= 0 else index - 1, np.int64)
        for name, index in named.items()
        if index is not None
    }
    if target.vector is not None:
        unit = target.vector.numbers / np.linalg.norm(target.vector.numbers)
        inputs[TARGET_VECTOR] = unit.astype(np.float32)
    return inputs
