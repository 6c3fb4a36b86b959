"""Whether there is room for what an explanation keeps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from palrp_onnx.machine import Room
from palrp_onnx.types import Shape

SHORT, LONG = {"x": (1, 10)}, {"x": (1, 70)}


def test_every_shape_is_weighed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has run once fits again, though the runtime holds what it has used."""
    weighed: list[Mapping[str, Shape]] = []

    def kept(shapes: Mapping[str, Shape]) -> int:
        weighed.append(shapes)
        return shapes["x"][1]

    room = Room(kept)
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: 100)
    assert (room.fits(SHORT), room.fits(LONG)) == (True, False)
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: 1)
    assert room.fits(SHORT)
    assert room.fits({"x": (1, 9)})
    assert not room.fits({"x": (1, 11)})
    assert weighed == [SHORT, LONG, {"x": (1, 9)}, {"x": (1, 11)}]


def test_where_the_system_tells_nothing_everything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: None)
    assert Room(lambda shapes: 1 << 60).fits(SHORT)
