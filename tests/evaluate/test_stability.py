"""Maps of texts with one token replaced, by methods whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import Baseline
from palrp_onnx.evaluate.stability import DRAWS, Replacement, stability
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts, TargetFacts

pytestmark = pytest.mark.quick

UNKNOWN = 0


class Stub(Baseline):
    """A map that follows from the tokens; keeps what it was asked."""

    def __init__(self, turns: bool) -> None:
        self.turns = turns
        self.asked: list[tuple[str, NDArray[Any]]] = []

    def engine(self, feeds: Mapping[str, NDArray[Any]]) -> Any:
        return SimpleNamespace(subject=SimpleNamespace(input="ids"))

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[tuple[TargetFacts, NDArray[Any]]]:
        (ids,) = sample.feeds["ids"]
        self.asked.append((target, ids))
        facts = TargetFacts(output="logits", kind="class", index=1, value=2.0)
        values = ids.astype(float)
        return [(facts, -values if self.turns and UNKNOWN in ids else values)]


def text(*ids: int, name: str = "x") -> Sample:
    facts = InputFacts(kind="text", truncated=False)
    return Sample(name, "text", {"ids": np.array([ids]), "mask": np.ones((1, len(ids)))}, facts)


def test_over_the_tokens_that_stay() -> None:
    still, turning = Stub(turns=False), Stub(turns=True)
    texts = [text(*range(3, 12), name="a"), text(8, 2, 9, 4, name="b")]
    found = stability({"still": still, "turning": turning}, texts, Replacement(UNKNOWN))
    assert (found["still"].samples, found["still"].draws) == (2, DRAWS)
    # The replaced token's own rank falls; without it the order is the same, or turned round.
    assert found["still"].signed.value == found["still"].signed.low == pytest.approx(1)
    assert found["turning"].signed.value == pytest.approx(-1)
    assert found["turning"].magnitude.value == pytest.approx(1)
    first = [ids.tolist() for _, ids in still.asked]
    assert first == [ids.tolist() for _, ids in turning.asked]
    assert len(first) == 1 + DRAWS + 1 + 4  # a text of four tokens has four to replace
    assert [target for target, _ in still.asked[:3]] == ["pred", "index:1", "index:1"]
    assert len({ids.index(UNKNOWN) for ids in first[1 : 1 + DRAWS]}) == DRAWS


def test_what_is_protected_or_unknown_stays() -> None:
    stub = Stub(turns=False)
    stability({"m": stub}, [text(5, UNKNOWN, 6, 7, 8)], Replacement(UNKNOWN, prefix=1, suffix=1))
    changed = [ids for _, ids in stub.asked[1:]]
    assert sorted(ids.tolist() for ids in changed) == [[5, 0, 0, 7, 8], [5, 0, 6, 0, 8]]


@pytest.mark.parametrize("ids", [(4, 5), (4, UNKNOWN, 5)])
def test_too_few_tokens(ids: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="too few"):
        stability({"m": Stub(False)}, [text(*ids)], Replacement(UNKNOWN, prefix=1, suffix=1))


def test_nothing_to_evaluate_and_no_text() -> None:
    with pytest.raises(InputError, match="nothing"):
        stability({"m": Stub(False)}, [], Replacement(UNKNOWN))
    image = text(1, 2, 3)
    image.feeds["ids"] = np.ones((1, 3), np.float32)
    with pytest.raises(UsageError, match="Only tokens"):
        stability({"m": Stub(False)}, [image], Replacement(UNKNOWN))
