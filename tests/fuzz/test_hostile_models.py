"""Damaged and malicious model files: refused with a code, or explained; nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from boxed import Box, hold
from budget import budget
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from specimens import OPSET, SPECIMENS, attention, branches, fused, serialised

SEEDS = Path(__file__).with_name("seeds")
NPZ = {"ids": np.array([[1, 2, 3]])}

Change = Callable[[], onnx.ModelProto]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A healthy model with bits flipped, bytes written over, parts cut out or said twice."""
    data = bytearray(serialised(draw(st.sampled_from(sorted(SPECIMENS)))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "write", "cut", "repeat", "truncate"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "write":
                data[at] = draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "truncate":
                del data[max(at, 1) :]
        if not data:
            return b"\0"
    return bytes(data)


@pytest.mark.parametrize("name", sorted(SPECIMENS))
def test_healthy_models_are_explained(box: Box, tmp_path: Path, name: str) -> None:
    """Else nothing here would be tested beyond the first check."""
    path = tmp_path / "model.onnx"
    path.write_bytes(serialised(name))
    outcome = box.run("explainer", path)
    assert outcome.exit == 0, outcome.text


@budget(500)
@given(data=damaged())
def test_damaged_models_are_refused_or_explained(box: Box, folder: Path, data: bytes) -> None:
    path = folder / "damaged.onnx"
    path.write_bytes(data)
    hold(box, "explainer", path)


@budget(150)
@given(data=damaged(), engine=st.sampled_from([(), ("--engine", "numpy"), ("--dtype", "float64")]))
def test_the_program_survives_damaged_models(
    box: Box, folder: Path, data: bytes, engine: tuple[str, ...]
) -> None:
    path = folder / "told.onnx"
    path.write_bytes(data)
    np.savez(folder / "ids.npz", **NPZ)  # type: ignore[arg-type]
    hold(box, "cli", "explain", path, "--input", folder / "ids.npz", *engine)


@pytest.mark.parametrize("name", sorted(path.name for path in SEEDS.iterdir()))
def test_what_was_found_before(box: Box, name: str) -> None:
    hold(box, "explainer", SEEDS / name)
    hold(box, "cli", "inspect", SEEDS / name)


def test_every_truncation(box: Box, tmp_path: Path) -> None:
    whole, path = serialised("fused"), tmp_path / "cut.onnx"
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        hold(box, "model", path)


def outside(tensor: onnx.TensorProto, location: str, **facts: int) -> onnx.TensorProto:
    """``tensor`` with its data in the file ``location``."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def zeros(name: str = "c") -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(4, np.float32), name)


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.op_type == op_type)


def in_an_initializer(location: str, **facts: int) -> onnx.ModelProto:
    model = attention()
    outside(model.graph.initializer[0], location, **facts)
    return model


def in_a_constant(location: str, **facts: int) -> onnx.ModelProto:
    model = fused()
    constant = node(model, "Constant")
    del constant.attribute[:]
    constant.attribute.append(helper.make_attribute("value", outside(zeros(), location, **facts)))
    return model


def in_a_branch(location: str, **facts: int) -> onnx.ModelProto:
    model = branches()
    graph = node(model, "If").attribute[0].g
    graph.initializer.append(outside(zeros(), location, **facts))
    graph.node[0].op_type = "Add"
    graph.node[0].input.append("c")
    return model


def in_a_function(location: str, **facts: int) -> onnx.ModelProto:
    model = fused()
    constant = helper.make_node("Constant", [], ["c"], value=outside(zeros(), location, **facts))
    model.functions[0].node.insert(0, constant)
    model.functions[0].node[1].input[1] = "c"
    return model


#: The last is how ONNX Runtime names tensors in its own memory, at the address ``offset``.
ESCAPES = ("../outside.bin", "/etc/passwd", "link.bin", "loop.bin", "a/../../outside.bin", "\0")
ADDRESS = "*/_ORT_MEM_ADDR_/*"


@pytest.mark.parametrize("location", [*ESCAPES, ADDRESS])
@pytest.mark.parametrize("place", [in_an_initializer, in_a_constant, in_a_branch, in_a_function])
def test_external_data_never_leaves_the_folder(
    box: Box, tmp_path: Path, place: Callable[..., onnx.ModelProto], location: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(4096))
    (inner / "link.bin").symlink_to(tmp_path / "outside.bin")
    (inner / "loop.bin").symlink_to(inner / "loop.bin")
    (inner / "model.onnx").write_bytes(place(location, offset=16).SerializeToString())
    assert box.run("model", inner / "model.onnx").exit == 4


@pytest.mark.parametrize(
    "facts",
    [{"offset": 1 << 40}, {"offset": -8}, {"length": 4}, {"length": 1 << 62}, {"offset": 8}],
)
def test_external_data_is_all_there(box: Box, tmp_path: Path, facts: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(9 * 4 * 4))
    path = tmp_path / "model.onnx"
    path.write_bytes(in_an_initializer("w.bin", **facts).SerializeToString())
    assert box.run("model", path).exit == 4
    path.write_bytes(in_an_initializer("w.bin").SerializeToString())
    assert box.run("model", path).exit == 0


def laughing() -> onnx.ModelProto:
    """Nine functions, each calling the next ten times: a billion nodes."""
    model = fused()
    del model.functions[:]
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
    for depth in range(9):
        names = ["a", *(f"t{k}" for k in range(9)), "b"]
        op_type, domain = ("Relu", "") if depth == 8 else (f"f{depth + 1}", "own")
        nodes = [
            helper.make_node(op_type, [names[k]], [names[k + 1]], domain=domain) for k in range(10)
        ]
        name = f"f{depth}" if depth else "double"
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, imports))
    return model


def calling_itself() -> onnx.ModelProto:
    model = fused()
    model.functions[0].opset_import.append(helper.make_opsetid("own", 1))
    model.functions[0].node[0].CopyFrom(helper.make_node("double", ["a"], ["b"], domain="own"))
    return model


def nested() -> onnx.ModelProto:
    """Branches within branches, as deep as the parser of the file allows."""
    model = branches()
    outer = node(model, "If")
    inner = onnx.NodeProto.FromString(outer.SerializeToString())
    for depth in range(28):
        graph = next(each for each in outer.attribute if each.name == "then_branch").g
        del graph.node[:]
        graph.node.append(inner)
        graph.node[0].output[0] = graph.output[0].name = f"deep{depth}"
        outer = graph.node[0]
    return model


def with_dims(*dims: int) -> onnx.ModelProto:
    model = attention()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    return model


def with_input(size: int) -> onnx.ModelProto:
    model = attention()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    return model


def with_weights(value: float) -> onnx.ModelProto:
    model = attention()
    table = np.full((9, 4), value, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    return model


def expanding(size: int) -> onnx.ModelProto:
    """A graph of three numbers that asks for ``size`` of them when it runs."""
    model = attention()
    shape = np.array([1, size, 1], np.int64)
    model.graph.initializer.append(numpy_helper.from_array(shape, "huge"))
    node(model, "Add").input[0] = "expanded"
    model.graph.node.insert(1, helper.make_node("Expand", ["words", "huge"], ["expanded"]))
    return model


def changed(change: Callable[[onnx.ModelProto], Any]) -> Change:
    def build() -> onnx.ModelProto:
        model = attention()
        change(model)
        return model

    return build


HOSTILE: dict[str, Change] = {
    "a billion nodes in functions": laughing,
    "a function that calls itself": calling_itself,
    "nested branches": nested,
    "a tensor of 2^42 numbers": lambda: with_dims(1 << 40, 4),
    "a tensor of 2^64 numbers": lambda: with_dims(1 << 62, 4),
    "a negative size": lambda: with_dims(-9, 4),
    "two negative sizes": lambda: with_dims(-9, -4),
    "too few numbers": lambda: with_dims(3, 3),
    "an input of 2^40 tokens": lambda: with_input(1 << 40),
    "an input of 2^27 tokens": lambda: with_input(1 << 27),
    "weights that are NaN": lambda: with_weights(np.nan),
    "weights that are infinite": lambda: with_weights(np.inf),
    "weights that overflow": lambda: with_weights(3e38),
    "2^33 numbers at run time": lambda: expanding(1 << 33),
    "2^45 numbers at run time": lambda: expanding(1 << 45),
    "a cycle": changed(lambda m: m.graph.node[0].input.__setitem__(1, "y")),
    "a value from nowhere": changed(lambda m: m.graph.node[0].input.__setitem__(1, "nothing")),
    "an output from nowhere": changed(lambda m: setattr(m.graph.output[0], "name", "nothing")),
    "a value made twice": changed(lambda m: m.graph.node.append(m.graph.node[-1])),
    "an input twice": changed(lambda m: m.graph.input.append(m.graph.input[0])),
    "an input without a type": changed(lambda m: m.graph.input[0].type.Clear()),
    "no opset": changed(lambda m: m.ClearField("opset_import")),
    "an opset from the future": changed(lambda m: setattr(m.opset_import[0], "version", 10**9)),
    "a negative opset": changed(lambda m: setattr(m.opset_import[0], "version", -3)),
    "a manifest that is damaged": changed(
        lambda m: m.metadata_props.add(key="palrp_onnx.sites", value="[" * 100_000)
    ),
    "an operation of another library": changed(
        lambda m: m.graph.node[5].CopyFrom(
            helper.make_node("Run", ["x"], ["q"], domain="ai.onnx.contrib")
        )
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(box: Box, tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(HOSTILE[name]().SerializeToString())
    outcome = box.run("explainer", path)
    allowed = (0, 4) if name == "nested branches" else (3, 4, 7)
    assert outcome.exit in allowed, (outcome.exit, outcome.text[-3000:])


def test_names_do_not_steer_the_terminal(box: Box, tmp_path: Path) -> None:
    model = attention()
    hostile = "\x1b]0;owned\x07[/bold]\x1b[2J"
    model.graph.input[0].name = hostile
    for number, each in enumerate(model.graph.node):
        each.name = f"{hostile}{number}"
        each.input[:] = [hostile if name == "ids" else name for name in each.input]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for arguments in (["inspect", path], ["inspect", path, "--why", "q"]):
        outcome = box.run("cli", *arguments)
        assert outcome.exit == 0, outcome.text
        assert "\x1b]" not in outcome.text and "\x1b[2J" not in outcome.text
        assert "\x07" not in outcome.text
    refused = box.run("cli", "inspect", path, "--output", hostile)
    assert refused.exit == 4 and "\x1b" not in refused.text
