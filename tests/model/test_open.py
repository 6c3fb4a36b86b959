"""Opening a file: what is refused, and that external data must be in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx.errors import InputError, ModelError
from palrp_onnx.model import checks as soundness
from palrp_onnx.model import open as opening
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward, RuntimeForward

pytestmark = pytest.mark.quick


def linear(path: Path, location: str | None = None) -> Path:
    """y = x W, with W in the file or in the external file ``location``."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3, 4])],
        [weight],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if location is not None:
        tensor = proto.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    path.write_bytes(proto.SerializeToString())
    return path


def test_facts(tmp_path: Path) -> None:
    model = Model.open(linear(tmp_path / "m.onnx"))
    assert (model.opset, model.nodes) == (18, 1)
    assert [(s.name, s.shape) for s in model.inputs] == [("x", ("b", 3, 4))]
    assert [s.name for s in model.outputs] == ["y"]
    assert len(model.sha256) == 64


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        Model.open(tmp_path / "none.onnx")


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(range(256)) * 40])
def test_garbage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        Model.open(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = linear(tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            Model.open(cut)


def test_cycle(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xb"]
    proto = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]), ir_version=10)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="not well formed"):
        Model.open(path)


def test_too_many_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "MAX_NODES", 0)
    with pytest.raises(ModelError, match="nodes"):
        Model.open(linear(tmp_path / "m.onnx"))


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_FILE_BYTES", 10)
    with pytest.raises(ModelError, match="2 GiB"):
        Model.open(linear(tmp_path / "m.onnx"))


def test_external_data_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    first = Model.open(path).sha256
    (tmp_path / "w.bin").write_bytes((2 * np.eye(4, dtype=np.float32)).tobytes())
    assert Model.open(path).sha256 != first


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin"])
def test_external_data_must_be_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(ModelError, match="outside of"):
        Model.open(linear(inner / "m.onnx", location))


def test_external_data_by_a_link_must_be_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="outside of"):
        Model.open(linear(inner / "m.onnx", "w.bin"))


def test_external_data_has_one_name(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(64))
    Model.open(path)
    (tmp_path / "other").hardlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="hard links"):
        Model.open(path)


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", "w.bin")
    with pytest.raises(ModelError, match="missing"):
        Model.open(path)
    (tmp_path / "w.bin").write_bytes(bytes(60))
    with pytest.raises(ModelError, match="shorter"):
        Model.open(path)


# --- caches of downloads: every file is a link ----------------------------------------------------


def cached(folder: Path, location: str = "model.onnx_data") -> tuple[Path, Path]:
    """The model in a snapshot, a link into the blobs; and the folder of the blobs."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "r" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    linear(blobs / "aa", location)
    (blobs / "bb").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (snapshot / "model.onnx").symlink_to("../../../blobs/aa")
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/bb")
    return snapshot / "model.onnx", blobs


def test_links_of_a_cache_are_followed(tmp_path: Path) -> None:
    path, blobs = cached(tmp_path)
    model = Model.open(path)
    assert (model.path, model.folder) == (path, blobs)
    plain = tmp_path / "plain"
    plain.mkdir()
    linear(plain / "m.onnx", "model.onnx_data")
    (plain / "model.onnx_data").write_bytes((blobs / "bb").read_bytes())
    assert model.sha256 == Model.open(plain / "m.onnx").sha256
    feeds = {"x": np.ones((1, 3, 4), np.float32)}
    expected = RuntimeForward(Model.open(plain / "m.onnx"), ["y"])(feeds)["y"]
    assert np.array_equal(RuntimeForward(model, ["y"])(feeds)["y"], expected)
    assert np.array_equal(FileForward(model, "y")(feeds), expected)


@pytest.mark.parametrize("location", ["../../../blobs/bb", "{}/blobs/bb", "/etc/hostname"])
def test_the_file_of_a_cache_names_no_other_folder(tmp_path: Path, location: str) -> None:
    """Only links of the file system are followed, no paths inside of the file."""
    path, _ = cached(tmp_path, location.format(tmp_path))
    with pytest.raises(ModelError, match="outside of"):
        Model.open(path)


def test_links_out_of_a_cache_are_refused(tmp_path: Path) -> None:
    path, blobs = cached(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(64))
    data = path.with_name("model.onnx_data")
    data.unlink()
    data.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"elsewhere.* cp -L"):
        Model.open(path)
    data.unlink()
    with pytest.raises(ModelError, match="missing"):
        Model.open(path)
    (blobs / "model.onnx_data").write_bytes(bytes(64))  # beside the real file
    Model.open(path)


# --- which file ---------------------------------------------------------------------------------


def test_a_folder_stands_for_its_only_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.onnx file"):
        Model.open(tmp_path)
    (tmp_path / "onnx").mkdir()
    path = linear(tmp_path / "onnx" / "model.onnx")
    assert Model.open(tmp_path).path == path
    linear(tmp_path / "onnx" / "model_int8.onnx")
    with pytest.raises(InputError, match=r"several.*onnx/model.onnx, onnx/model_int8.onnx"):
        Model.open(tmp_path)


def test_what_a_file_begins_with(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("<html>")
    with pytest.raises(ModelError, match="begins with b'<html>'"):
        Model.open(tmp_path / "m.onnx")


@pytest.mark.parametrize("domain", ["", "ai.onnx.contrib"])
def test_a_tokenizer_inside_of_the_graph(tmp_path: Path, domain: str) -> None:
    node = helper.make_node("BertTokenizer" if domain else "StringNormalizer", ["t"], ["y"])
    node.domain = domain
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.contrib", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "m.onnx")
    message = "tokenizer is inside of the graph: Bert" if domain else "takes strings"
    with pytest.raises(ModelError, match=message):
        Model.open(tmp_path / "m.onnx")
