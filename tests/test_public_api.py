"""The public names: there, documented, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import palrp_onnx

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", palrp_onnx.__all__)
def test_name_is_there_and_documented(name: str) -> None:
    assert getattr(palrp_onnx, name).__doc__


def test_names_are_listed() -> None:
    assert list(palrp_onnx.__all__) == sorted(palrp_onnx.__all__)
    assert set(palrp_onnx.__all__) <= set(dir(palrp_onnx))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = palrp_onnx.nothing  # type: ignore[attr-defined]


def test_core_does_not_import_torch() -> None:
    code = f"""
import sys, palrp_onnx
[getattr(palrp_onnx, name) for name in {palrp_onnx.__all__!r}]
assert not {{"torch", "transformers", "click"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_package_is_installed() -> None:
    root = Path(palrp_onnx.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join(path.relative_to(root).parent.parts)
        for path in (root / "palrp_onnx").rglob("__init__.py")
    }
    assert found | {"palrp_onnx.cli"} == set(project["tool"]["setuptools"]["packages"])
