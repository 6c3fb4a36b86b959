"""A record's map in the size of a thumb, for lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from palrp_onnx.record import Attribution
from palrp_onnx.render.markup import data_uri
from palrp_onnx.render.palette import colours
from palrp_onnx.render.wording import common_scale

#: Most cells of a strip; neighbouring units are summed where there are more.
_CELLS = 120


@dataclass(frozen=True)
class MiniMap:
    """A picture with a pixel for each cell; a strip is one row of units."""

    source: str
    rows: int
    columns: int

    @property
    def strip(self) -> bool:
        """Whether units follow each other, other than the patches of a picture."""
        return self.rows == 1


def mini_map(record: Attribution) -> MiniMap | None:
    """Total relevance of the first input; ``None`` where it has no units."""
    total = record.relevance.total
    if not total:
        return None
    limit, _ = common_scale(record.maps[0])
    grid = record.units.grid
    cells = np.reshape(total, grid) if grid is not None else _strip(total)
    drawn = data_uri(Image.fromarray(colours(cells, limit)))
    return MiniMap(drawn, *cells.shape)


def _strip(values: Sequence[float]) -> np.ndarray:
    each = -(-len(values) // _CELLS)
    return np.add.reduceat(np.asarray(values, np.float64), np.arange(0, len(values), each))[None]
