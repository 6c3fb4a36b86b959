"""Compiled graphs that were made before.

A graph depends on the content of the model, on options, and on little of an input: on the shapes of
real arrays, as trial runs take these for lengths that the model leaves open. What depends on more
of it is not stored: branches, trial runs on the caller's arrays, and graphs that are compiled for
the memory that is free now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from palrp_onnx.cache.folder import CacheFolder
from palrp_onnx.cache.keys import key_of
from palrp_onnx.cache.models import StoredModel
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.compiler.runnable import Runnable
from palrp_onnx.fidelity import Untouched
from palrp_onnx.machine import Forecast
from palrp_onnx.model.locate import parts_of
from palrp_onnx.model.signature import GraphInput
from palrp_onnx.runtime.saved import SavedGraph
from palrp_onnx.types import Feeds, Shape

T = TypeVar("T")
#: With fewer symbols none is the sum of two others, so that lengths of whole numbers do not count.
_SUMS = 3


class Compiled(Struct, frozen=True, kw_only=True):
    """An engine as it is stored.

    Attributes:
        manifest: Facts about the graph.
        graph: The graph of the explanation.
        untouched: The files to compare with, where the graph was rewritten.
        forecast: Memory that it takes for inputs of ``shapes``, where this decided.
        shapes: Shapes of the inputs that it was compiled for.
        opset: Opset of the graph.
    """

    manifest: Manifest
    graph: Runnable
    untouched: Untouched | None
    forecast: Forecast | None
    shapes: dict[str, Shape]
    opset: int

    def at_most(self, shapes: Mapping[str, Shape]) -> Forecast:
        """A bound of the memory that inputs of these shapes take.

        No value has more than two axes of tokens, so that none grows by more than the square of the
        factor by which an input does.
        """
        factors = [1]
        for name, now in shapes.items():
            before = self.shapes.get(name, ())
            if len(now) == len(before):
                growth = (max(1, -(-n // max(b, 1))) for n, b in zip(now, before, strict=True))
                factors.append(prod(growth))
        assert self.forecast is not None
        fixed, more = self.forecast.apart, max(factors) ** 2
        return Forecast(
            fast=fixed + (self.forecast.fast - fixed) * more,
            bounded=fixed + (self.forecast.bounded - fixed) * more,
            apart=fixed,
        )


@dataclass(frozen=True)
class Recall:
    """Entries of the engines of one model.

    Attributes:
        model: The model.
        options: What engines depend on besides it.
    """

    model: StoredModel
    options: Mapping[str, Any]

    def find(self, feeds: Feeds) -> Compiled | None:
        """The engine of an entry for an input, if there is one."""
        return self._find("engine", feeds, Compiled)

    def find_forward(self, feeds: Feeds) -> SavedGraph | None:
        """The forward pass alone of such an engine, if there is an entry; few targets need it."""
        return self._find("forward", feeds, SavedGraph)

    def keep(self, made: Compiled | SavedGraph, feeds: Feeds) -> None:
        """Store an engine that was made for an input, or its forward pass."""
        kind = "engine" if isinstance(made, Compiled) else "forward"
        self._folder.put(self._key(kind, feeds), msgspec.msgpack.encode(made))

    def forget(self, feeds: Feeds) -> None:
        """Remove the entry of an engine."""
        self._folder.remove(self._key("engine", feeds))

    def _find(self, kind: str, feeds: Feeds, of: type[T]) -> T | None:
        content = self._folder.get(self._key(kind, feeds))
        try:
            return None if content is None else msgspec.msgpack.decode(content, type=of)
        except (ValueError, TypeError):  # also msgspec's, of another form
            return None

    @property
    def _folder(self) -> CacheFolder:
        return self.model.store

    def _key(self, kind: str, feeds: Feeds) -> str:
        whole = self.options["memory"] == "bounded"
        facts = {
            "sha256": self.model.sha256,
            # Weights are references to the files by their names.
            "files": [each.name for each in self.model.files],
            "external": self.model.facts.external,
            "names": [each.name for each in parts_of(self.model.path)],
            "shapes": _shapes(self.model.inputs, feeds, whole=whole),
        }
        return key_of(kind, {**facts, **self.options})


def _shapes(inputs: Sequence[GraphInput], feeds: Feeds, *, whole: bool) -> dict[str, Shape]:
    """The shapes of an input that a compiled graph may depend on."""
    symbols = {d for each in inputs for d in (each.shape or ())[1:] if isinstance(d, str)}
    whole = whole or len(symbols) >= _SUMS
    return {
        each.name: feeds[each.name].shape
        for each in inputs
        if whole or each.shape is None or each.dtype.kind == "f" or each.dtype.itemsize == 1
    }
