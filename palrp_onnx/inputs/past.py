"""A decoding step: arrays that hold cached keys and values of earlier tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from palrp_onnx.inputs.tensors import filled

if TYPE_CHECKING:
    from palrp_onnx.model.open import Model


def open_for(path: Path, arrays: Path | Literal["-"] | None, *, at_least: int = 0) -> Model:
    """Open a model for an input: with its caches if the input is an ``.npz`` that fills them.

    Args:
        path: The model.
        arrays: The input, ``-`` for stdin.
        at_least: Opset to which the graph is raised where the file has an older one.

    Raises:
        InputError: A file does not exist, or the arrays cannot be read.
        ModelError: The model cannot be opened.
    """
    from palrp_onnx.model.open import Model

    model = Model.open(path, at_least=at_least)
    if not isinstance(arrays, Path) or arrays.suffix.lower() != ".npz":
        return model
    caches = {blank.name for blank in model.removed}
    return model.with_past() if caches and filled(arrays, caches) else model


def holds_past(value: Any, caches: Collection[str]) -> bool:
    """Whether a value holds real arrays of these names that are not empty.

    Args:
        value: The path of an ``.npz`` file, or arrays by their names; nothing else holds any.
        caches: Names of the inputs for cached keys and values.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    if isinstance(value, Path):
        return value.suffix.lower() == ".npz" and filled(value, caches)
    if not isinstance(value, Mapping):
        return False
    arrays = (np.asarray(value[name]) for name in caches if name in value)
    return any(array.size and array.dtype.kind == "f" for array in arrays)
