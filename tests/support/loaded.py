"""Committed models, loaded once."""

from __future__ import annotations

from functools import cache

from committed import MODELS

from palrp_onnx import LoadedModel, load

TEXT = "The dull first half is no fun, but the end is a gripping, beautifully acted drama."


@cache
def loaded(name: str) -> LoadedModel:
    """A model of the folder ``models``."""
    return load(MODELS / name)
