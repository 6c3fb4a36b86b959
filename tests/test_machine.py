"""Whether there is room for an explanation, and how it uses memory."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from palrp_onnx.errors import ResourceError, UsageError
from palrp_onnx.machine import Forecast, Memory, Room, size_text
from palrp_onnx.types import Shape

SHORT, LONG = {"x": (1, 10)}, {"x": (1, 70)}


def free(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: size)


def growing(shapes: Mapping[str, Shape]) -> Forecast:
    return Forecast(fast=shapes["x"][1], bounded=1)


def test_every_shape_is_weighed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has run once fits again, though the runtime holds what it has used."""
    weighed: list[Mapping[str, Shape]] = []

    def forecast(shapes: Mapping[str, Shape]) -> Forecast:
        weighed.append(shapes)
        return growing(shapes)

    room = Room(forecast, Memory(), "fast")
    free(monkeypatch, 100)
    assert (room.fits(SHORT), room.fits(LONG)) == (True, False)
    free(monkeypatch, 1)
    assert room.fits(SHORT)
    assert room.fits({"x": (1, 9)})
    assert not room.fits({"x": (1, 11)})
    assert weighed == [SHORT, LONG, {"x": (1, 9)}, {"x": (1, 11)}]


def test_where_the_system_tells_nothing_everything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, None)
    assert Room(lambda shapes: Forecast(1 << 60, 1 << 60), Memory(), "fast").fits(SHORT)


@pytest.mark.parametrize(
    ("text", "way", "limit"),
    [
        (None, "auto", None),
        ("auto", "auto", None),
        ("fast", "fast", None),
        ("bounded", "bounded", None),
        ("6GB", "auto", 6_000_000_000),
        ("6GiB", "auto", 6 << 30),
        ("1.5g", "auto", 1_500_000_000),
        ("800 mb", "auto", 800_000_000),
        ("2000000", "auto", 2_000_000),
    ],
)
def test_ways_and_sizes(text: str | None, way: str, limit: int | None) -> None:
    assert Memory.of(text) == Memory(way, limit)


@pytest.mark.parametrize(
    "text", ["", "slow", "9" * 400 + "GB", "6 apples", "-6GB", "0GB", "10", "GB", "6EB", "1e9"]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Unknown memory"):
        Memory.of(text)


def test_a_limit_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit counts what is mapped as well, and free memory does not matter to it."""
    free(monkeypatch, 1)
    forecast = Forecast(fast=100, bounded=40, apart=20)
    ways = [forecast.choose(Memory("auto", limit)) for limit in (100, 99, 40)]
    assert ways == ["fast", "bounded", "bounded"]
    with pytest.raises(ResourceError, match="--memory allows 0 MB") as raised:
        forecast.choose(Memory("auto", 39))
    assert raised.value.exit_code == 7


@pytest.mark.parametrize(
    ("there", "way", "chosen"),
    [
        (140, "auto", "fast"),  # 80 that must be free are no more than 0.6 of it
        (130, "auto", "bounded"),
        (20, "auto", "bounded"),
        (19, "auto", None),
        (80, "fast", "fast"),
        (79, "fast", None),
        (20, "bounded", "bounded"),
        (19, "bounded", None),
        (None, "auto", "fast"),
        (None, "bounded", "bounded"),
    ],
)
def test_free_memory_chooses(
    there: int | None, way: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, there)
    forecast = Forecast(fast=100, bounded=40, apart=20)
    if chosen is not None:
        assert forecast.choose(Memory(way)) == chosen
        return
    with pytest.raises(ResourceError, match="need not be free"):
        forecast.choose(Memory(way))


def test_more_tokens_than_fit_are_refused_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 100)
    room = Room(lambda shapes: Forecast(9999, shapes["x"][1] * 2), Memory("bounded"), "bounded")
    assert room.fits(SHORT)
    with pytest.raises(ResourceError):
        room.fits(LONG)


def test_sizes_are_readable() -> None:
    assert [size_text(n) for n in (12_300_000, 1_840_000_000)] == ["12 MB", "1.8 GB"]
