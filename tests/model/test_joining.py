"""An encoder and a decoder in two files, read as one graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pairs
import pytest
from onnx import TensorProto, helper

from palrp_onnx import Model
from palrp_onnx.errors import InputError, ModelError
from palrp_onnx.model.locate import model_file
from palrp_onnx.model.open import parse_model
from palrp_onnx.runtime.forward import FileForward, RuntimeForward

pytestmark = pytest.mark.quick


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return pairs.write_pair(tmp_path / "pair")


def both_sessions(folder: Path) -> np.ndarray:
    """What the two files compute, one after the other."""
    encoder, decoder = (
        onnxruntime.InferenceSession(str(folder / f"{name}_model.onnx"))
        for name in ("encoder", "decoder")
    )
    feeds = pairs.feeds()
    states = encoder.run(None, {"ids": feeds["ids"], "kept": feeds["kept"]})[0]
    given = {"ids": feeds["decoder_ids"], "kept": feeds["kept"], "input_3": states}
    return np.asarray(decoder.run(None, given)[0])


def test_the_graph_computes_what_both_files_compute(pair: Path) -> None:
    model = Model.open(pair)
    expected = both_sessions(pair)
    for forward in (RuntimeForward(model, ["y"]), FileForward(model, "y", optimise=False)):
        found = forward(pairs.feeds())
        found = found["y"] if isinstance(found, dict) else found
        assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_values_of_both_files(pair: Path) -> None:
    """Each is computed by its own file alone, under the name that the file gives it."""
    model, feeds = Model.open(pair), pairs.feeds()
    for name in ("encoder/r", "r", "encoder/x"):
        expected = RuntimeForward(model, [name])(feeds)[name]
        assert np.allclose(FileForward(model, name)(feeds), expected, atol=1e-6)
    with pytest.raises(ModelError, match="no value of this name"):
        FileForward(model, "nothing")


def test_one_mask_and_two_kinds_of_tokens(pair: Path) -> None:
    inputs = {each.name: each.shape for each in Model.open(pair).inputs}
    assert inputs == {
        "ids": ("batch", "tokens"),
        "kept": ("batch", "tokens"),
        "decoder_ids": ("batch", "decoder_tokens"),
    }


def test_the_graphs_decide_which_file_is_which(pair: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    shutil.copy(pair / "encoder_model.onnx", swapped / "decoder_model.onnx")
    shutil.copy(pair / "decoder_model.onnx", swapped / "encoder_model.onnx")
    found = RuntimeForward(Model.open(swapped), ["y"])(pairs.feeds())["y"]
    assert np.allclose(found, both_sessions(pair), rtol=1e-6, atol=1e-6)


def test_external_weights_of_both_files(pair: Path) -> None:
    expected = both_sessions(pair)
    for name in ("encoder", "decoder"):
        path = pair / f"{name}_model.onnx"
        onnx.save(
            onnx.load(path),
            path,
            save_as_external_data=True,
            location=f"{name}.data",
            size_threshold=100,
        )
    model = Model.open(pair)
    assert np.allclose(RuntimeForward(model, ["y"])(pairs.feeds())["y"], expected, atol=1e-6)
    before = model.sha256
    (pair / "encoder.data").write_bytes(bytes((pair / "encoder.data").stat().st_size))
    assert Model.open(pair).sha256 != before


def test_types_that_differ_are_cast(pair: Path) -> None:
    path = pair / "decoder_model.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    onnx.save(model, path)
    assert np.allclose(
        RuntimeForward(Model.open(pair), ["y"])(pairs.feeds())["y"],
        RuntimeForward(Model.open(pairs.write_one(pair / "one.onnx")), ["y"])(pairs.feeds())["y"],
        atol=1e-6,
    )


def test_lengths_that_say_nothing_share_no_mask(pair: Path) -> None:
    path = pair / "decoder_model.onnx"
    model = onnx.load(path)
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim[:2]:
            axis.Clear()
    onnx.save(model, path)
    assert [each.name for each in Model.open(pair).inputs] == [
        "ids",
        "kept",
        "decoder_kept",
        "decoder_ids",
    ]


def test_lengths_inside_of_both_files_have_names_of_their_own(pair: Path) -> None:
    """Quantising tools write names of lengths to all values, from 0 on in each file."""
    for name in ("encoder", "decoder"):
        path = pair / f"{name}_model.onnx"
        model = onnx.load(path)
        shape = ["unk_0", "unk_1", pairs.WIDTH]
        model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
        onnx.save(model, path)
    made = {v.name: v.shape for node in parse_model(pair).graph for v in node.outputs}
    assert str(made["encoder/x"]) == "[unk_0,unk_1,8]"
    assert str(made["x"]) == "[decoder_unk_0,decoder_unk_1,8]"


def test_a_decoder_that_gives_the_states_out(pair: Path) -> None:
    path = pair / "decoder_model.onnx"
    model = onnx.load(path)
    model.graph.output.append(model.graph.input[2])
    model.graph.output.append(model.graph.input[0])
    onnx.save(model, path)
    found = Model.open(pair)
    assert [each.name for each in found.outputs] == ["y", "encoder/r", "kept"]
    assert np.allclose(RuntimeForward(found, ["y"])(pairs.feeds())["y"], both_sessions(pair))


def test_a_file_alone_is_still_a_model(pair: Path) -> None:
    assert model_file(pair) == pair
    assert model_file(pair / "decoder_model.onnx") == pair / "decoder_model.onnx"
    assert [each.name for each in Model.open(pair / "decoder_model.onnx").inputs] == [
        "kept",
        "ids",
        "input_3",
    ]


def test_the_merged_decoder_where_there_is_no_other(pair: Path) -> None:
    (pair / "decoder_model.onnx").rename(pair / "decoder_model_merged.onnx")
    (pair / "decoder_with_past_model.onnx").write_bytes(b"not read")
    assert Model.open(pair).files[1].name == "decoder_model_merged.onnx"


def test_forms_of_both_files(pair: Path) -> None:
    """Quantised files have an ending; the files without one come first."""
    for name in ("encoder", "decoder"):
        shutil.copy(pair / f"{name}_model.onnx", pair / f"{name}_model_quantized.onnx")
    assert [each.name for each in Model.open(pair).files] == [
        "encoder_model.onnx",
        "decoder_model.onnx",
    ]
    for name in ("encoder", "decoder"):
        (pair / f"{name}_model.onnx").unlink()
    assert Model.open(pair).files[0].name == "encoder_model_quantized.onnx"
    shutil.copy(pair / "encoder_model_quantized.onnx", pair / "encoder_model_fp16.onnx")
    with pytest.raises(InputError, match="several encoders"):
        Model.open(pair)


def test_a_decoder_that_needs_another(pair: Path) -> None:
    (pair / "decoder_model.onnx").rename(pair / "decoder_with_past_model.onnx")
    with pytest.raises(InputError, match="which no file computes"):
        Model.open(pair)


@pytest.mark.parametrize(
    ("width", "message"), [(pairs.WIDTH + 1, "Neither of the two files"), (None, "opsets")]
)
def test_files_that_do_not_fit(pair: Path, width: int | None, message: str) -> None:
    path = pair / "decoder_model.onnx"
    model = onnx.load(path)
    if width is None:
        model.opset_import[0].version = 18
    else:
        model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = width
    onnx.save(model, path)
    with pytest.raises(ModelError, match=message):
        Model.open(pair)


def test_an_input_without_a_name(pair: Path) -> None:
    path = pair / "encoder_model.onnx"
    model = onnx.load(path)
    model.graph.input[1].name = ""
    onnx.save(model, path)
    with pytest.raises(ModelError, match="not well formed"):
        Model.open(pair)


def test_states_of_several_layers(pair: Path) -> None:
    path = pair / "encoder_model.onnx"
    model = onnx.load(path)
    first = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", pairs.WIDTH])
    model.graph.output.insert(0, first)
    onnx.save(model, path)
    found = RuntimeForward(Model.open(pair), ["y"])(pairs.feeds())["y"]
    assert np.allclose(found, both_sessions_last(pair), rtol=1e-6, atol=1e-6)


def both_sessions_last(folder: Path) -> np.ndarray:
    """As `both_sessions`, with the states of the last layer."""
    path = folder / "encoder_model.onnx"
    model = onnx.load(path)
    del model.graph.output[0]
    onnx.save(model, path)
    return both_sessions(folder)
