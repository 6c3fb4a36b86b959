"""The version of the package, looked up in its metadata once."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


@cache
def own_version() -> str:
    """The version of the installed package."""
    return version("palrp-onnx")
