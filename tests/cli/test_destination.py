from __future__ import annotations

import os
from pathlib import Path

import pytest

from palrp_onnx.cli.destination import Destination
from palrp_onnx.errors import UsageError


def test_a_device_is_a_file() -> None:
    found = Destination.parse(os.devnull, None)
    assert (found.kind, found.formats) == ("file", ("json",))
    assert Destination.parse(os.devnull, ("kserve",)).files("id", 3) == {Path(os.devnull): None}
    with pytest.raises(UsageError):
        Destination.parse(os.devnull, ("png",))


def test_only_what_was_not_asked_for_is_by_default() -> None:
    assert Destination.parse(None, None).by_default
    assert not Destination.parse("-", None).by_default
    assert not Destination.parse(None, ("json",)).by_default


def test_destinations(tmp_path: Path) -> None:
    assert Destination.parse(None, None).files("id", 1) == {}
    assert Destination.parse("a.JSON", None).files("id", 3) == {Path("a.JSON"): None}
    assert Destination.parse("a.png", ("png",)).files("id", 1) == {Path("a.png"): 0}
    assert Destination.parse("out", None).files("id", 1) == {
        Path("out/id.json"): None,
        Path("out/id.png"): 0,
    }
    assert Destination.parse("out.v1/", ("png",)).files("id", 2) == {
        Path("out.v1/id-0.png"): 0,
        Path("out.v1/id-1.png"): 1,
    }
    assert Destination.parse("a.svg", None).files("id", 1) == {Path("a.svg"): 0}
    with pytest.raises(UsageError, match="One picture cannot show a batch"):
        Destination.parse("a.svg", None).files("id", 2)
    assert Destination.parse("out", ("svg",)).files("id", 1) == {Path("out/id.svg"): 0}
    assert Destination.parse("a.svg", None).files("id", 3, matrix=True) == {Path("a.svg"): "matrix"}
    (tmp_path / "there.json").mkdir()
    assert Destination.parse(str(tmp_path / "there.json"), None).kind == "folder"
    with pytest.raises(UsageError):
        Destination.parse("out.v1", None)
