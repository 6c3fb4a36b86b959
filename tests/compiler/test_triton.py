"""Triton repositories: accepted by the definitions that Triton's client ships, and runnable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import ints, proto, real
from onnx import TensorProto, helper

from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.triton import configuration, repository
from palrp_onnx.errors import ModelError, UsageError

pytestmark = pytest.mark.quick

BODY = "e = Gather(table, ids) h = Add(e, places) p = ReduceMean<keepdims = 0>(h, axis) "
WEIGHTS = {"table": real(9, 4), "places": real(1, 3, 4, seed=8), "axis": ints(1)}
IDS = np.array([[1, 2, 3]])


def explainer(folder: Path, *, free: tuple[int, ...] = (0,), outside: bool = False) -> bytes:
    """A compiled explainer of a small model in ``folder``."""
    body = BODY + "y = MatMul(p, classes)"
    weights = {**WEIGHTS, "classes": real(4, 2, seed=9)}
    model = proto(body, {"ids": IDS}, weights, free=free)
    path = folder / "model.onnx"
    options: dict[str, Any] = {"save_as_external_data": True, "location": "w.bin"}
    onnx.save(model, path, **{**options, "size_threshold": 100} if outside else {})
    return compile_model(path, folder / "explainer.onnx")


def parsed(text: str) -> Any:
    """As Triton itself reads it."""
    pytest.importorskip("grpc")  # the client without it raises another error
    text_format = pytest.importorskip("google.protobuf.text_format")
    definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return text_format.Parse(text, definitions.ModelConfig())


def value(name: str, dims: list[int | str] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def little(inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "g", inputs, outputs))


def test_the_text(tmp_path: Path) -> None:
    text = configuration(onnx.load_model_from_string(explainer(tmp_path)), "little")
    lines = text.splitlines()
    assert lines[:3] == ['name: "little"', 'backend: "onnxruntime"', "max_batch_size: 8"]
    assert "dynamic_batching { max_queue_delay_microseconds: 1000 }" in lines
    target = lines.index('  name: "target"')
    assert lines[target + 1 : target + 5] == [
        "  data_type: TYPE_INT64",
        "  dims: [1]",
        "  reshape { shape: [] }",
        "  optional: true",
    ]


def test_the_definitions_accept_it(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(explainer(tmp_path))
    config = parsed(configuration(model, "little"))
    assert config.max_batch_size == 8
    assert {each.name: list(each.dims) for each in config.input} == {
        "ids": [3],
        "target": [1],
        "target_against": [1],
        "target_vector": [-1],
    }
    optional = [each.name for each in config.input if each.optional]
    assert optional == ["target", "target_against", "target_vector"]
    assert [each.name for each in config.output] == [each.name for each in model.graph.output]
    assert {each.name: list(each.dims) for each in config.output}["relevance_sites"] == [-1, -1]


def test_a_fixed_batch_stays_an_axis(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(explainer(tmp_path, free=()))
    text = configuration(model, "little")
    assert "max_batch_size: 0" in text and "dynamic_batching" not in text
    assert "  dims: [1, 3]" in text and "reshape" not in text


def test_names_are_escaped() -> None:
    name = 'a"b\\c\né'
    text = configuration(little([value(name, ["b", 2])], [value("y", ["b", 2])]), "little")
    assert r'name: "a\042b\134c\012\303\251"' in text
    assert parsed(text).input[0].name == name


@pytest.mark.parametrize(
    "output", [value("y", None), value("y", ["b"], TensorProto.COMPLEX64)], ids=["rank", "type"]
)
def test_what_triton_cannot_describe(output: Any) -> None:
    with pytest.raises(ModelError):
        configuration(little([value("x", ["b"])], [output]), "little")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_names_that_are_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name"):
        repository(explainer(tmp_path), name, tmp_path)


def test_the_repository_runs_without_the_model(tmp_path: Path) -> None:
    """External data comes along."""
    folder, place = tmp_path / "before", tmp_path / "repository"
    folder.mkdir()
    data = explainer(folder, outside=True)
    for path, content in repository(data, "little", folder).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    names = sorted(str(each.relative_to(place)) for each in place.rglob("*") if each.is_file())
    assert names == ["little/1/model.onnx", "little/1/w.bin", "little/config.pbtxt"]
    (folder / "w.bin").unlink()
    session = onnxruntime.InferenceSession(place / "little/1/model.onnx")
    outputs = [each.name for each in session.get_outputs()]
    found = dict(zip(outputs, session.run(None, {"ids": IDS}), strict=True))
    assert found["relevance_total"].shape == (1, 3)
    chosen = session.run(["relevance_total"], {"ids": IDS, "target": np.array([0])})
    other = session.run(["relevance_total"], {"ids": IDS, "target": np.array([1])})
    assert not np.allclose(chosen, other)
