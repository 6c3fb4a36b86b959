"""``docs/operations.md`` says what the tables of the package say, of every operation once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import write_operations
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def listed() -> Counter[str]:
    """How often each operation is listed."""
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    return Counter(name for text in rows for name in re.findall(r"`([^`]+)`", text))


def test_tables_are_those_of_the_package() -> None:
    assert write_operations.written(PAGE) == PAGE, "Run: python docs/write_operations.py"


def test_every_operation_of_the_standard_is_there_once() -> None:
    counts = listed()
    names = {f"{domain}.{name}".lstrip(".") for domain, name in write_operations.standard()}
    assert {name: counts[name] for name in names} == dict.fromkeys(names, 1)
    assert set(counts.values()) == {1}


def test_every_operation_of_the_runtime_is_there() -> None:
    if not hasattr(runtime, "get_all_opkernel_def"):
        pytest.skip("this build of ONNX Runtime does not list its kernels")
    kernels = {
        f"{each.domain}.{each.op_name}".lstrip(".")
        for each in runtime.get_all_opkernel_def()
        if each.provider == "CPUExecutionProvider" and not each.op_name.startswith("Memcpy")
    }
    assert kernels <= listed().keys()
