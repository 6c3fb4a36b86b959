"""Serialised graphs that only have to be opened and run: what a forward pass is made of.

A graph is serialised once from a model; from then on neither the model nor the ``onnx`` package is
needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

from msgspec import Struct

from palrp_onnx.model.changes import Blank
from palrp_onnx.session import Session, return_memory
from palrp_onnx.types import Array


class SavedGraph(Struct, frozen=True, kw_only=True):
    """A graph that yields some values, to run without graph optimisation.

    Attributes:
        data: The graph; weights are references to the model's files.
        names: Names of the values.
        prepack: Whether weights have to be packed, as kernels round activations only then.
        arena: Whether memory that was used once is kept: see :class:`Session`.
    """

    data: bytes
    names: tuple[str, ...]
    prepack: bool
    arena: bool = True


class GraphForward:
    """ONNX Runtime without graph optimisation, so that intermediate values are the file's own.

    Args:
        graph: The graph.
        folder: Folder of its weights.
        device: ``cpu`` or ``cuda[:N]``.

    Raises:
        ResourceError: No runtime is installed, or the device is not available.
        ModelError: The runtime cannot load the graph.
    """

    def __init__(self, graph: SavedGraph, folder: Path, *, device: str = "cpu") -> None:
        self.graph = graph
        self._session = Session(
            graph.data,
            folder,
            device=device,
            optimise=False,
            prepack=graph.prepack,
            in_order=True,
            arena=graph.arena,
        )
        self.providers = self._session.providers

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once."""
        return self._session.run(self.graph.names, feeds)


class OwnFile(Struct, frozen=True, kw_only=True):
    """One file, without any rewriting, that computes one value.

    Attributes:
        data: The file with the value as an output.
        own: Name of the value in it.
        name: Name of the value for callers.
        inputs: Name of each input of the file → name of its array; the same where there are none.
        kinds: Type of each of these inputs, as NumPy names it.
        rounds_inside: Whether an operation of it rounds activations internally.
    """

    data: bytes
    own: str
    name: str
    inputs: dict[str, str] | None
    kinds: dict[str, str]
    rounds_inside: bool

    def feeds(self, values: Mapping[str, Array]) -> Mapping[str, Array]:
        """The arrays of its inputs, in the types that it takes."""
        if self.inputs is None:
            return values
        return {
            own: values[name].astype(self.kinds[own], copy=False)
            for own, name in self.inputs.items()
        }


class OwnFiles:
    """The files of a model as they are, with empty caches; two run one after the other.

    Args:
        parts: The files.
        output: Name of the value that they compute.
        removed: Inputs of the files that callers do not feed.
        folder: Folder of the files.
        device: ``cpu`` or ``cuda[:N]``.
        optimise: See :class:`palrp_onnx.session.Session`.
        prepack: See :class:`palrp_onnx.session.Session`; always done if the values depend on it.

    Attributes:
        rounds_inside: Whether an operation of a file rounds activations internally.
    """

    def __init__(
        self,
        parts: Sequence[OwnFile],
        output: str,
        *,
        removed: Sequence[Blank],
        folder: Path,
        device: str = "cpu",
        optimise: bool = True,
        prepack: bool = True,
    ) -> None:
        self.parts, self.removed = tuple(parts), tuple(removed)
        self.rounds_inside = any(each.rounds_inside for each in parts)
        self._output, self._folder, self._device = output, folder, device
        self._optimise, self._prepack = optimise, prepack or self.rounds_inside
        self._sessions: list[Session] = []

    def open(self) -> None:
        """Open the sessions, which the first call does otherwise.

        Raises:
            ModelError: The runtime cannot load a file.
        """
        self._sessions = self._sessions or [
            Session(
                each.data,
                self._folder,
                device=self._device,
                optimise=self._optimise,
                prepack=self._prepack,
            )
            for each in self.parts
        ]

    def close(self) -> None:
        """Close the sessions and free their memory; the next call opens them again."""
        self._sessions = []
        return_memory()

    def as_served(self) -> OwnFiles:
        """The same files with the runtime's graph optimisation, without reading them again."""
        served = copy(self)
        served._sessions, served._optimise, served._prepack = [], True, True
        return served

    def __call__(self, feeds: Mapping[str, Array]) -> Array:
        """Run once and return the output.

        Raises:
            ModelError: The runtime cannot load a file.
        """
        self.open()
        samples = max((len(array) for array in feeds.values() if array.ndim), default=1)
        blanks = {blank.name: blank.array(samples) for blank in self.removed}
        values = {**feeds, **blanks}
        for part, session in zip(self.parts, self._sessions, strict=True):
            values[part.name] = session.run([part.own], part.feeds(values))[part.own]
        return values[self._output]
