"""Whether what is explained is what the file computes.

Fused and quantised operations are rewritten before rules apply, and of conditional branches one is
taken. Each such rewriting is checked on the very input that is explained: the file as it is, run by
ONNX Runtime to the letter, has to give the same output. A runtime that serves the file may fuse
quantised operations and round elsewhere; how far that moves the output is measured too. Where the
runtime has no kernel for the file on this device, the record says that nothing was checked, and
why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from palrp_onnx.attribution import Fidelity, Warning_
from palrp_onnx.errors import FidelityError, ModelError
from palrp_onnx.forward import FileForward
from palrp_onnx.graph.model import Model

Array = NDArray[Any]

#: Largest difference allowed, as a share of the output's largest magnitude. With whole numbers
#: inside, sums in another order may round to the neighbour: a few steps of eight bits.
FLOAT, HALF, QUANTISED, BFLOAT = 1e-4, 1e-2, 5 / 255, 5e-2
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_WHOLE = ("DequantizeLinear", "Round")


class Original:
    """The file as it is, to hold a rewritten graph against.

    Args:
        model: The rewritten model.
        output: Name of the explained output.
        device: ``cpu`` or ``cuda[:N]``.
    """

    def __init__(self, model: Model, output: str, *, device: str = "cpu") -> None:
        self._rewritten = dict(model.lowered)
        self._output = output
        self._tolerance = BFLOAT if "bfloat16" in model.lowered else tolerance_of(model.graph)
        self._forward: FileForward | None = None
        self._served: FileForward | None = None
        self._reason: str | UnsetType = UNSET
        try:
            self._forward = FileForward(model, output, device=device, optimise=False, prepack=False)
            if self._tolerance == QUANTISED:
                self._served = FileForward(model, output, device=device)
        except ModelError as error:  # no kernel for an operation, or for a type of numbers
            self._reason = error.hint or error.message

    def check(self, feeds: Mapping[str, Array], output: Array) -> Fidelity:
        """Hold the rewritten graph's ``output`` against that of the file.

        Raises:
            FidelityError: They differ by more than the order of sums explains.
        """
        if self._forward is None:
            return Fidelity(
                rewritten=self._rewritten, difference=None, allowed=None, unverified=self._reason
            )
        expected = self._forward(feeds)
        largest = float(np.nanmax(np.abs(expected.astype(np.float64)), initial=0.0))
        difference = distance(expected, output)
        if not difference <= self._tolerance * largest:
            raise FidelityError(
                "The graph with its operations rewritten does not compute what the file computes: "
                f"they differ by {difference:.3g} of {largest:.3g}",
                place=f"output {self._output}; rewritten: {', '.join(self._rewritten)}",
                hint="This explanation would be of another function. Please report the model.",
            )
        served = distance(expected, self._served(feeds)) if self._served is not None else 0.0
        return Fidelity(
            rewritten=self._rewritten,
            difference=difference,
            allowed=self._tolerance * largest,
            served=served,
        )


def doubts(fidelity: Fidelity | None) -> tuple[Warning_, ...]:
    """What a record must say of a file that could not be held against what was explained."""
    reason = UNSET if fidelity is None else fidelity.unverified
    if reason is UNSET:
        return ()
    text = f"whether the explained graph computes what the file computes is not known: {reason}"
    return (Warning_(code="unverified", message=text),)


def distance(first: Array, second: Array) -> float:
    """The largest difference between two arrays; infinite where only one holds numbers."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def tolerance_of(graph: ir.Graph) -> float:
    """The share of the output's largest magnitude that a rewritten ``graph`` may be off by."""
    if any(node.op_type in _WHOLE for node in graph):
        return QUANTISED
    values = (v for node in graph for v in node.outputs)
    return HALF if any(v.dtype in _HALF for v in values) else FLOAT
