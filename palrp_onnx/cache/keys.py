"""What entries depend on besides the model: the versions of all that made them, and the machine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import palrp_onnx
from palrp_onnx.session import runtime_version
from palrp_onnx.version import own_version

#: Packages that decide how a file is read and a graph is written, and that need not be imported.
_PACKAGES = ("onnx", "onnx-ir")
_PROCESSOR = Path("/proc/cpuinfo")
#: Lines about the processor, as they are called on x86 and on ARM.
_ABOUT = ("model name", "flags", "Features", "CPU part")


def key_of(kind: str, facts: Mapping[str, Any]) -> str:
    """The key of an entry: what it is, what it depends on, and what everything depends on."""
    return json.dumps({"kind": kind, **surroundings(), **facts}, sort_keys=True)


@cache
def surroundings() -> Mapping[str, str]:
    """Versions and the machine.

    The files of this package count by their sizes and times, so that nothing of an earlier state of
    an editable installation is taken. Some graphs depend on the instruction set of the processor.
    """
    return {
        "palrp-onnx": own_version(),
        "files": _own_files(),
        "onnxruntime": runtime_version(),
        "numpy": np.__version__,
        "msgspec": msgspec.__version__,
        "python": platform.python_version(),
        "machine": _machine(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def _own_files() -> str:
    digest, root = hashlib.sha256(), Path(palrp_onnx.__file__).parent
    for path in sorted(root.rglob("*.py")):
        found = path.stat()
        name = path.relative_to(root)
        digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _machine() -> str:
    try:
        lines = _PROCESSOR.read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    about = [line for line in lines if line.startswith(_ABOUT)]
    return hashlib.sha256("\n".join([platform.machine(), *about]).encode()).hexdigest()
