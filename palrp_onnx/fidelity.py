"""Fidelity: whether the explained graph computes what the file computes.

Fused and quantised operations are rewritten before rules apply, and one of several conditional
branches is chosen. Each rewriting is checked on the input that is explained: the output has to be
that of the unchanged file, run by ONNX Runtime without graph optimisation. A forward pass in NumPy,
which is another implementation of every operation, is checked in the same way.

Two differences between machines are measured too: with graph optimisation the runtime may fuse
quantised operations and round at other places, and its integer kernels need not be exact. If the
runtime has no kernel for the file on this device, the record states that nothing was checked, and
why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from palrp_onnx.errors import FidelityError, ModelError
from palrp_onnx.model.changes import Blank
from palrp_onnx.record import Fidelity, Warning_
from palrp_onnx.relevance.ledger import KERNEL, in_order
from palrp_onnx.runtime.saved import GraphForward, OwnFile, OwnFiles, SavedGraph
from palrp_onnx.types import Array

if TYPE_CHECKING:
    import onnx_ir as ir

    from palrp_onnx.model.open import Model

#: Largest allowed difference, as a share of the output's largest magnitude. If activations are
#: rounded, a sum in another order may round to the next step: a few steps of 8 bits are allowed.
FLOAT, HALF, QUANTISED, BFLOAT = 1e-4, 1e-2, 5 / 255, 5e-2
_HALF = ("FLOAT16", "BFLOAT16")
#: Entries below this are switched off, as in attention masks, and do not set the scale.
_SWITCHED_OFF = -5e3


class Untouched(Struct, frozen=True, kw_only=True):
    """The files of a rewritten model, unchanged, with what decides how they are compared.

    Attributes:
        output: Name of the explained output.
        rewritten: Number of changes of each kind in the rewritten graph.
        tolerance: Largest allowed difference, as a share of the output's largest magnitude.
        parts: The files.
        exact: The rewritten graph, where the runtime's products of whole numbers are not exact.
    """

    output: str
    rewritten: dict[str, int]
    tolerance: float
    parts: tuple[OwnFile, ...]
    exact: SavedGraph | None = None

    @classmethod
    def of(cls, model: Model, output: str) -> Untouched:
        """The files of a rewritten model.

        Raises:
            ModelError: They have no such value.
        """
        from palrp_onnx.model.native import kernel_nodes
        from palrp_onnx.runtime.forward import own_files, saved_graph
        from palrp_onnx.runtime.kernels import are_exact

        parts = tuple(own_files(model, output))
        rounds = any(each.rounds_inside for each in parts)
        tolerance = _tolerance(model)
        inexact = kernel_nodes(model) and (rounds or not are_exact())
        return cls(
            output=output,
            rewritten=dict(model.lowered),
            tolerance=max(tolerance, QUANTISED) if rounds else tolerance,
            parts=parts,
            exact=saved_graph(model, [output]) if inexact else None,
        )


def _tolerance(model: Model) -> float:
    return BFLOAT if "bfloat16" in model.lowered else tolerance_of(model.graph)


class Original:
    """The unchanged file, to compare a rewritten graph with.

    Args:
        model: The rewritten model.
        output: Name of the explained output.
        device: ``cpu`` or ``cuda[:N]``.

    Attributes:
        keep: Whether sessions stay open for further inputs. If not, one after the other is opened
            and closed, so that memory is needed for one.
        tolerance: Largest allowed difference, as a share of the output's largest magnitude.
        kernels_exact: Whether the runtime computes the file's integer products exactly.
        untouched: The files; ``None`` where they cannot be run.
    """

    _forward: OwnFiles | None = None
    _served: OwnFiles | None = None
    _exact: SavedGraph | None = None
    _exact_forward: GraphForward | None = None
    _reason: str | UnsetType = UNSET
    #: The last input.
    _feeds: Mapping[str, Array] | None = None
    kernels_exact = keep = True
    untouched: Untouched | None = None

    def __init__(self, model: Model, output: str, *, device: str = "cpu") -> None:
        self._begin(dict(model.lowered), output)
        self.tolerance = _tolerance(model)
        try:
            self._open(Untouched.of(model, output), model.removed, model.folder, device)
        except ModelError as error:  # there is no such value in the file
            self._reason = error.hint or error.message

    @classmethod
    def again(
        cls, untouched: Untouched, removed: Sequence[Blank], folder: Path, *, device: str = "cpu"
    ) -> Original:
        """Files that were opened before.

        Args:
            untouched: The files.
            removed: Inputs of the files that were removed from the graph.
            folder: Folder of the files.
            device: ``cpu`` or ``cuda[:N]``.
        """
        self = cls.__new__(cls)
        self._begin(untouched.rewritten, untouched.output)
        self._open(untouched, removed, folder, device)
        return self

    def _begin(self, rewritten: dict[str, int], output: str) -> None:
        self._rewritten, self._output = rewritten, output
        #: Outputs for the last input, by what computed them.
        self._outputs: dict[str, Array] = {}

    def _open(
        self, untouched: Untouched, removed: Sequence[Blank], folder: Path, device: str
    ) -> None:
        self._folder, self._device = folder, device
        self._forward = OwnFiles(
            untouched.parts,
            untouched.output,
            removed=removed,
            folder=folder,
            device=device,
            optimise=False,
            prepack=False,
        )
        self.tolerance = untouched.tolerance
        if self.tolerance == QUANTISED:
            self._served = self._forward.as_served()
        self._exact = untouched.exact
        self.kernels_exact = untouched.exact is None
        self.untouched = untouched

    def knows(self, feeds: Mapping[str, Array]) -> bool:
        """Whether the file has run on these arrays, and no session will be opened for them."""
        return self.keep or self._feeds is feeds

    def check(
        self,
        feeds: Mapping[str, Array],
        output: Array,
        ledger: Mapping[str, Array] | None = None,
        unmasked: Array | None = None,
    ) -> Fidelity:
        """Compare the rewritten graph's ``output`` with that of the file.

        Args:
            feeds: The input.
            output: The explained output, in the shape that the file gives it.
            ledger: Entries of its explanation, each [B], if there is one.
            unmasked: Not zero at the entries of the output to compare, if not all: a query whose
                keys are all masked has scores that depend on how the mask is rounded.

        Raises:
            FidelityError: The outputs differ by more than the order of sums explains; or the
                ledger's entry ``kernel`` is large although this machine's kernels are exact.
        """
        if self.keep or self._feeds is not feeds:
            self._feeds, self._outputs = feeds, {}
        expected = None if self._forward is None else self._run("file", self._forward, feeds)
        if expected is None:
            return Fidelity(
                rewritten=self._rewritten, difference=None, allowed=None, unverified=self._reason
            )
        if unmasked is None:
            difference, largest = compare(expected, output)
        else:
            difference, largest = compare(expected[unmasked != 0], output[unmasked != 0])
        if not difference <= self.tolerance * largest:
            raise FidelityError(
                f"{self._explained()} does not compute what the file computes: "
                f"they differ by {difference:.3g} of {largest:.3g}",
                place=self._place(),
                hint="This explanation would be of another function. Please report the model.",
            )
        if self.kernels_exact and _kernel_share(ledger or {}) > QUANTISED:
            raise FidelityError(
                "Products of whole numbers as they were rewritten are not what the file computes: "
                "the ledger's entry kernel is not small, though this machine's kernels are exact",
                place=self._place(),
                hint="This explanation would be of another function. Please report the model.",
            )
        served = None if self._served is None else self._run("served", self._served, feeds)
        exact = output if self._exact is None else self._exactly(self._exact, feeds)
        return Fidelity(
            rewritten=self._rewritten,
            difference=difference,
            allowed=self.tolerance * largest,
            served=0.0 if served is None else distance(expected, served),
            kernels=distance(exact, output),
        )

    def _run(self, what: str, forward: OwnFiles, feeds: Mapping[str, Array]) -> Array | None:
        """The output of the file; ``None`` where the runtime cannot load it."""
        if what in self._outputs:
            return self._outputs[what]
        try:
            self._outputs[what] = forward(feeds)
        except ModelError as error:  # no kernel for an operation, or for a type
            self._reason = error.hint or error.message
            return None
        finally:
            if not self.keep:
                forward.close()
        return self._outputs[what]

    def _exactly(self, graph: SavedGraph, feeds: Mapping[str, Array]) -> Array:
        """The output of the rewritten graph with exact products."""
        if "exact" not in self._outputs:
            forward = self._exact_forward or GraphForward(graph, self._folder, device=self._device)
            self._exact_forward = forward if self.keep else None
            self._outputs["exact"] = forward(feeds)[self._output]
        return self._outputs["exact"]

    def _place(self) -> str:
        return f"output {self._output}; rewritten: {', '.join(self._rewritten) or 'nothing'}"

    def _explained(self) -> str:
        if self._rewritten:
            return "The graph with its operations rewritten"
        return "The forward pass that was explained"


def doubts(fidelity: Fidelity | None) -> tuple[Warning_, ...]:
    """Warnings for the record: nothing was checked, or other machines give other results."""
    if fidelity is None:
        return ()
    if fidelity.unverified is not UNSET:
        reason = fidelity.unverified
        text = f"whether the explained graph computes what the file computes is not known: {reason}"
        return (Warning_(code="unverified", message=text),)
    allowed = fidelity.allowed or 0.0
    found = []
    if fidelity.kernels > allowed:
        text = (
            "products of whole numbers are not exact in ONNX Runtime on this machine, which moves "
            f"the output by {fidelity.kernels:.3g}: other processors answer differently"
        )
        found.append(Warning_(code="kernels", message=text))
    if fidelity.served > allowed:
        text = (
            "ONNX Runtime as it optimises the file gives another output, by "
            f"{fidelity.served:.3g}: a service that runs it answers differently"
        )
        found.append(Warning_(code="served", message=text))
    return tuple(found)


def distance(first: Array, second: Array) -> float:
    """The largest difference between two arrays; infinite if only one is finite somewhere."""
    return float(_gaps(first, second).max(initial=0.0))


def compare(expected: Array, found: Array) -> tuple[float, float]:
    """The largest difference, and the largest magnitude of what is expected, as its scale.

    The difference of an entry that is switched off is relative to that entry's own magnitude.
    """
    gaps, largest = _gaps(expected, found), magnitude(expected)
    sizes = np.abs(expected.astype(np.float64))
    if gaps.shape == sizes.shape:
        beyond = np.isfinite(sizes) & (sizes > largest)
        gaps = gaps * np.where(beyond, largest / np.maximum(sizes, 1.0), 1.0)
    return float(gaps.max(initial=0.0)), largest


def magnitude(output: Array) -> float:
    """The largest magnitude of an output, without infinite and switched-off entries."""
    finite = np.isfinite(output)
    usual = finite & (output > _SWITCHED_OFF)
    chosen = output[usual if usual.any() else finite]
    return float(np.abs(chosen.astype(np.float64)).max(initial=0.0))


def _gaps(first: Array, second: Array) -> Array:
    """|first − second|; 0 between equal infinities or NaN, infinite if only one is finite."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    if one.shape != other.shape:
        return np.array([np.inf])
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        gaps = np.abs(one - other)
    return np.where(same, 0.0, np.where(np.isnan(gaps), np.inf, gaps))


def tolerance_of(graph: ir.Graph) -> float:
    """Allowed difference of a rewritten graph, as a share of the output's largest magnitude."""
    if _rounds_activations(graph):
        return QUANTISED
    values = (v for node in graph for v in node.outputs)
    return HALF if any(v.dtype and v.dtype.name in _HALF for v in values) else FLOAT


def _kernel_share(ledger: Mapping[str, Array]) -> float:
    """The largest |kernel| / Σ |entries| of a batch."""
    if KERNEL not in ledger:
        return 0.0
    sizes = sum(np.abs(ledger[name]) for name in in_order(ledger))
    return float(np.max(np.abs(ledger[KERNEL]) / np.maximum(sizes, np.finfo(float).tiny)))


def _rounds_activations(graph: ir.Graph) -> bool:
    """Whether a value that depends on an input is rounded; stored weights do not matter."""
    depends = {v for v in graph.inputs if not v.is_initializer()}
    for node in graph:
        if depends.isdisjoint(node.inputs):
            continue
        if node.op_type == "Round":
            return True
        depends.update(node.outputs)
    return False
