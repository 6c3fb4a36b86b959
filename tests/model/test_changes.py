"""Every change on the way from the file to the explained graph is in one log, and is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import opened, proto, real
from numpy.typing import NDArray
from onnx import helper

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import FidelityError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, Fidelity, InputFacts

Array = NDArray[Any]
ENGINES = ("onnxruntime", "numpy")
X = real(2, 3, 4)

#: Operations whose meaning has changed between opsets 7 and 13, as old files write them.
OLD_BODIES = {
    "plain": "h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v)",
    "softmax over all that follows": "h = MatMul(x, w)  s = Softmax<axis=1>(h)  y = MatMul(s, v)",
    "softmax": "h = MatMul(x, w)  s = Softmax<axis=2>(h)  y = MatMul(s, v)",
    "axes": "u = Unsqueeze<axes=[1]>(x)  s = Squeeze<axes=[1]>(u)  y = MatMul(s, v)",
    "sums": "s = ReduceSum<axes=[2], keepdims=1>(x)  h = Add(x, s)  y = MatMul(h, v)",
    "means": "s = ReduceMean<axes=[1], keepdims=1>(x)  h = Sub(x, s)  y = MatMul(h, v)",
    "power": "h = MatMul(x, w)  p = Pow(h, two)  y = MatMul(p, v)",
    "split": "p, q = Split<axis=2, split=[2, 2]>(x)  h = Concat<axis=2>(q, p)  y = MatMul(h, v)",
}
#: Attributes that became operands.
DROPPED = "h = MatMul(x, w)  d = Dropout<ratio=0.5>(h)  y = MatMul(d, v)"
CLIPPED = "h = MatMul(x, w)  c = Clip<min=-0.5, max=0.6>(h)  y = MatMul(c, v)"
SLICED = "h = Slice<axes=[1], starts=[1], ends=[3]>(x)  y = MatMul(h, v)"
PADDED = "h = Pad<pads=[0, 1, 0, 0, 1, 0]>(x)  y = MatMul(h, v)"
CASES = [
    *(
        (opset, body)
        for opset in range(7, 13)
        for name, body in OLD_BODIES.items()
        if name != "mixed"
    ),
    *((opset, CLIPPED) for opset in range(7, 11)),
    *((opset, PADDED) for opset in range(7, 11)),
]


def old(opset: int, body: str) -> onnx.ModelProto:
    weights = {"w": real(4, 4), "v": real(4, 3, seed=2), "two": np.float32(2.0)}
    used = {name: array for name, array in weights.items() if f" {name})" in body}
    model = proto(body, {"x": X}, used, opset=opset)
    model.ir_version = 4
    return model


def explain(model: Model | Path, feeds: dict[str, Array], **options: Any) -> list[Attribution]:
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    return [e.record for e in Explainer(model, **options).explain(sample, "token:1:2")]


@pytest.mark.parametrize(("opset", "body"), CASES)
def test_old_opsets_keep_their_meaning(opset: int, body: str) -> None:
    model = opened(old(opset, body))
    for ours, exact in zip(
        explain(model, {"x": X}), explain(model, {"x": X}, engine="numpy"), strict=True
    ):
        assert isinstance(ours.fidelity, Fidelity)
        assert ours.fidelity.rewritten == {f"opset {opset} to 13": 1}
        assert ours.fidelity.difference is not None and ours.fidelity.allowed is not None
        assert ours.fidelity.difference <= ours.fidelity.allowed
        for record in (ours, exact):
            assert abs(record.ledger["residual_relative"]) < 1e-5
        assert ours.relevance.content == pytest.approx(exact.relevance.content, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_slices_by_attributes(opset: int) -> None:
    for record in explain(opened(old(opset, SLICED)), {"x": X}):
        assert isinstance(record.fidelity, Fidelity)
        assert abs(record.ledger["residual_relative"]) < 1e-5


def test_an_opset_that_is_raised_wrongly_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the converter replaced the old softmax, over all later axes, by the new one."""
    path = tmp_path / "model.onnx"
    path.write_bytes(old(11, OLD_BODIES["softmax over all that follows"]).SerializeToString())

    def wrong(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        proto.opset_import[0].version = opset
        return proto

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    with pytest.raises(FidelityError, match="opset 11 to 13"):
        explain(path, {"x": X})
    with pytest.raises(FidelityError, match="opset 11 to 13"):
        compile_model(path, tmp_path / "explainer.onnx")


# --- functions of the file ------------------------------------------------------------------------
def with_function() -> onnx.ModelProto:
    body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Layer", ["a", "b"], ["d"], body, imports)
    model = proto(
        "h = mine.Layer(x, w)  g = mine.Layer(h, w)  y = MatMul(g, v)",
        {"x": X},
        {"w": real(4, 4), "v": real(4, 3, seed=2)},
        opset=17,
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


@pytest.mark.parametrize("engine", ENGINES)
def test_functions_that_are_inlined(engine: str) -> None:
    for record in explain(opened(with_function()), {"x": X}, engine=engine):
        assert isinstance(record.fidelity, Fidelity)
        assert record.fidelity.rewritten == {"mine.Layer": 2}
