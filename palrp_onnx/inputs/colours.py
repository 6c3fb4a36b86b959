"""Pixels as ids of colours, one token a pixel in row-major order (ImageGPT)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.preprocessing import Preprocessing
from palrp_onnx.inputs.purposes import IDS, MASK, purposes
from palrp_onnx.inputs.sample import Feeds, GraphInput
from palrp_onnx.inputs.signature import check_shape, describe
from palrp_onnx.record import Units

#: Pixels whose colours are found at once.
_AT_ONCE = 1 << 14


class Colours:
    """Ids [1, height · width], and a mask that keeps all of them, if the graph has one.

    Raises:
        InputError: The graph takes something else.
    """

    channels = 3

    def __init__(self, graph_inputs: Sequence[GraphInput]) -> None:
        found = purposes(graph_inputs)
        ids = [each for each in graph_inputs if found[each.name] == IDS]
        self._masks = [each for each in graph_inputs if found[each.name] == MASK]
        if len(ids) != 1 or len(ids) + len(self._masks) != len(graph_inputs):
            raise InputError(
                "colours of pixels are ids of one input, with a mask or without; "
                f"{describe(graph_inputs)}",
                hint="Pass one array per graph input as .npz.",
            )
        (self.input,) = ids

    def feeds(
        self, pixels: NDArray[np.generic], steps: Preprocessing, path: Path
    ) -> tuple[Feeds, Units | None]:
        """The nearest colour of each pixel."""
        assert steps.clusters is not None
        ids = nearest(pixels.reshape(-1, 3), steps.clusters)[None]
        check_shape(self.input, (None, ids.shape[1]), place=str(path))
        feeds: Feeds = {each.name: np.ones(ids.shape, each.dtype) for each in self._masks}
        feeds[self.input.name] = ids.astype(self.input.dtype)
        return feeds, Units(kind="patch", grid=(pixels.shape[0], pixels.shape[1]))


def nearest(points: NDArray[np.generic], colours: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the nearest colour c of each point x, by ‖x − c‖² − ‖x‖² = ‖c‖² − 2 x · c."""
    squares = np.sum(colours**2, axis=1)
    parts = (points[k : k + _AT_ONCE] for k in range(0, len(points), _AT_ONCE))
    return np.concatenate(
        [np.argmin(squares - 2 * (each.astype(np.float64) @ colours.T), axis=1) for each in parts]
    )
