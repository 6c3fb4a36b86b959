"""What goes into and comes out of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GraphInput:
    """One input or output of the graph. A dimension is a number, a symbol, or ``None``."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...] | None
