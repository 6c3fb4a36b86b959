"""The passes that make a graph plain, each run with a test of what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from building import proto, real
from committed import FILES
from decoders import cached, merged, packed

from palrp_onnx.model.open import parse_model
from palrp_onnx.model.plain import PLAIN, from_file, make_plain

MAKERS: dict[str, Callable[[Path], Path]] = {
    "caches": cached,
    "packed caches": packed,
    "branches": merged,
    **{name: lambda _, path=path: path for name, path in FILES.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_needs_of_every_pass_are_met(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path)
    model = parse_model(path)
    make_plain(model, path, from_file(path, 13), checked=True)
    assert not make_plain(model, path, PLAIN, checked=True)


def test_a_pass_that_runs_too_early_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(proto("c = Constant<value_float=2.0>()  y = Mul(x, c)", {"x": real(2, 3)}, {}), path)
    model = parse_model(path)
    with pytest.raises(AssertionError, match="are not met"):
        make_plain(model, path, PLAIN[-1:], checked=True)
    make_plain(model, path, PLAIN, checked=True)
