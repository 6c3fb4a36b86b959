"""The picture in the design page is that of the imports, and no class name has two meanings."""

from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_picture_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
    assert spec is not None and spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert house.PLACE.read_text(encoding="utf-8") == house.draw(), "Run: python docs/house.py"


def test_no_class_name_twice() -> None:
    trees = (ast.parse(file.read_text()) for file in (ROOT / "palrp_onnx").rglob("*.py"))
    names = Counter(
        node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
