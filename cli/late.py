"""Modules that are imported only when something is asked of them.

onnx-ir imports SymPy for arithmetic with symbolic lengths, which this package never does, and
importing it takes longer than opening most models. A module that is named here is found as always,
but runs at its first use (:class:`importlib.util.LazyLoader`). This is done in the process of a
command alone: in the programs of others modules are theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

#: SymPy, and the only module of onnx-ir that uses it when it is imported.
LATE = ("sympy", "onnx_ir._symbolic_shapes")


class LateFinder(MetaPathFinder):
    """Finds the modules of `LATE`, with a loader that waits."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of these modules; ``None`` for others, which are found elsewhere."""
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def import_late() -> None:
    """From now on, import these modules at their first use."""
    sys.meta_path.insert(0, LateFinder())
