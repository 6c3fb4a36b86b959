"""Pixels as rows of patches, beside the numbers of rows and columns of patches (SigLIP 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.preprocessing import Preprocessing
from palrp_onnx.inputs.purposes import PADDING, purposes
from palrp_onnx.inputs.sample import Feeds, GraphInput
from palrp_onnx.inputs.signature import check_shape, describe
from palrp_onnx.record import Units

#: Number of axes of patches, and of the inputs beside them.
_PATCHES, _BESIDE = 3, 2


class Patches:
    """Patches [1, patches, P · P · 3], their rows and columns [1, 2], and a mask of the patches.

    Padding is only made where the graph fixes the number of patches: it is hidden by the mask, so
    that the output is the same without it.

    Raises:
        InputError: The graph takes something else.
    """

    channels = 3

    def __init__(self, graph_inputs: Sequence[GraphInput]) -> None:
        self._all = graph_inputs
        rows, shapes, masks = _parts(graph_inputs)
        if len(rows) != 1 or len(rows + shapes + masks) != len(graph_inputs) or len(masks) > 1:
            raise self._error("patches of an image are an input [batch, patches, features]")
        if len(shapes) != 1 or shapes == masks:
            raise self._error(
                "no input [batch, 2] takes the rows and columns of patches, so that the positions "
                "may be those of another shape of image"
            )
        (self.input,), (self._shapes,), self._masks = rows, shapes, masks
        found = purposes(graph_inputs)
        if any(found[each.name] == PADDING for each in masks):
            raise self._error("the mask hides patches where it is not zero")

    def feeds(
        self, pixels: NDArray[np.generic], steps: Preprocessing, path: Path
    ) -> tuple[Feeds, Units | None]:
        """Patches in row-major order, with their pixels in row-major order, colours last."""
        side = steps.patch or 1
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        cut = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
        patches = cut.reshape(1, rows * columns, -1)
        kept = np.ones((1, rows * columns))
        declared = (self.input.shape or ())[1]
        if isinstance(declared, int) and self._masks:
            beyond = (0, max(declared - rows * columns, 0))
            patches, kept = (
                np.pad(patches, ((0, 0), beyond, (0, 0))),
                np.pad(kept, ((0, 0), beyond)),
            )
        check_shape(self.input, (None, *patches.shape[1:]), place=str(path))
        feeds: Feeds = {
            self.input.name: patches.astype(self.input.dtype),
            self._shapes.name: np.array([[rows, columns]], self._shapes.dtype),
            **{each.name: kept.astype(each.dtype) for each in self._masks},
        }
        return feeds, Units(kind="patch", grid=(rows, columns))

    def _error(self, message: str) -> InputError:
        hint = "Pass one array per graph input as .npz."
        return InputError(f"{message}; {describe(self._all)}", hint=hint)


def patch_inputs(graph_inputs: Sequence[GraphInput]) -> list[GraphInput]:
    """Those of some inputs that patches provide."""
    return [each for part in _parts(graph_inputs) for each in part]


def _parts(graph_inputs: Sequence[GraphInput]) -> tuple[list[GraphInput], ...]:
    """Inputs that may hold patches, rows and columns, and a mask, by their shapes."""
    rows = [e for e in graph_inputs if len(e.shape or ()) == _PATCHES and _is(e, "f")]
    flat = [e for e in graph_inputs if len(e.shape or ()) == _BESIDE]
    shapes = [e for e in flat if (e.shape or ())[1] == 2 and _is(e, "iu")]
    masks = [e for e in flat if rows and (e.shape or ())[1] == (rows[0].shape or ())[1]]
    return rows, shapes, masks


def _is(graph_input: GraphInput, kinds: str) -> bool:
    return np.dtype(graph_input.dtype).kind in kinds
