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

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from msgspec import UNSET, UnsetType

from palrp_onnx.errors import FidelityError, ModelError
from palrp_onnx.model.native import kernel_nodes
from palrp_onnx.model.open import Model
from palrp_onnx.record import Fidelity, Warning_
from palrp_onnx.relevance.ledger import KERNEL, in_order
from palrp_onnx.runtime.forward import FileForward, RuntimeForward
from palrp_onnx.runtime.kernels import are_exact
from palrp_onnx.types import Array

#: Largest allowed difference, as a share of the output's largest magnitude. If activations are
#: rounded, a sum in another order may round to the next step: a few steps of 8 bits are allowed.
FLOAT, HALF, QUANTISED, BFLOAT = 1e-4, 1e-2, 5 / 255, 5e-2
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
#: Entries below this are switched off, as in attention masks, and do not set the scale.
_SWITCHED_OFF = -5e3


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
    """

    def __init__(self, model: Model, output: str, *, device: str = "cpu") -> None:
        self._rewritten = dict(model.lowered)
        self.kernels_exact = True
        self._output, self._device, self.keep = output, device, True
        self.tolerance = BFLOAT if "bfloat16" in model.lowered else tolerance_of(model.graph)
        self._forward: FileForward | None = None
        self._served: FileForward | None = None
        self._exact: Model | None = None
        self._exact_forward: RuntimeForward | None = None
        self._reason: str | UnsetType = UNSET
        #: The last input, and the outputs for it by what computed them.
        self._feeds: Mapping[str, Array] | None = None
        self._outputs: dict[int, Array] = {}
        try:
            self._forward = FileForward(model, output, device=device, optimise=False, prepack=False)
            rounds = self._forward.rounds_inside
            if rounds and self.tolerance < QUANTISED:
                self.tolerance = QUANTISED
            if self.tolerance == QUANTISED:
                self._served = self._forward.as_served()
            if kernel_nodes(model) and (rounds or not are_exact()):
                self.kernels_exact = False
                self._exact = model.copy()  # before the way back is appended to the graph
        except ModelError as error:  # no kernel for an operation, or for a type
            self._reason = error.hint or error.message

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
        expected = None if self._forward is None else self._run(self._forward, feeds)
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
        served = None if self._served is None else self._run(self._served, feeds)
        exact = output if self._exact is None else self._exactly(self._exact, feeds)
        return Fidelity(
            rewritten=self._rewritten,
            difference=difference,
            allowed=self.tolerance * largest,
            served=0.0 if served is None else distance(expected, served),
            kernels=distance(exact, output),
        )

    def _run(self, forward: FileForward, feeds: Mapping[str, Array]) -> Array | None:
        """The output of the file; ``None`` where the runtime cannot load it."""
        if id(forward) in self._outputs:
            return self._outputs[id(forward)]
        try:
            self._outputs[id(forward)] = forward(feeds)
        except ModelError as error:  # no kernel for an operation, or for a type
            self._reason = error.hint or error.message
            return None
        finally:
            if not self.keep:
                forward.close()
        return self._outputs[id(forward)]

    def _exactly(self, model: Model, feeds: Mapping[str, Array]) -> Array:
        """The output of the rewritten graph with exact products."""
        if id(model) not in self._outputs:
            forward = self._exact_forward or RuntimeForward(
                model, [self._output], device=self._device
            )
            self._exact_forward = forward if self.keep else None
            self._outputs[id(model)] = forward(feeds)[self._output]
        return self._outputs[id(model)]

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
    return HALF if any(v.dtype in _HALF for v in values) else FLOAT


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
