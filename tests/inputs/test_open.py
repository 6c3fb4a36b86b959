from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers  # type: ignore[import-untyped]

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import (
    GraphInput,
    Sample,
    default_preprocessor,
    open_sample,
    read_labels,
)

pytestmark = pytest.mark.quick

IDS = [GraphInput("input_ids", np.dtype(np.int64), ("batch", "seq"))]
PIXELS = [GraphInput("pixel_values", np.dtype(np.float32), ("batch", 3, 8, 8))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"image_processor_type": "ViTImageProcessor", "size": 8}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    return tmp_path


def read(folder: Path, source: Any, graph: list[GraphInput] = IDS, **options: Any) -> Sample:
    options = {"tokenizer": None, **options}
    return open_sample(source, model_path=folder / "model.onnx", graph_inputs=graph, **options)


@pytest.mark.parametrize("name", ["a.txt", "a.TXT"])
def test_text(folder: Path, name: str) -> None:
    (folder / name).write_text("hello world\n")
    sample = read(folder, folder / name)
    assert (sample.id, sample.kind) == ("a", "text")
    assert sample.feeds["input_ids"].tolist() == [[1, 2]]


def test_pairs(folder: Path) -> None:
    (folder / "a.txt").write_text("hello")
    (folder / "b.txt").write_text("world")
    sample = read(folder, folder / "a.txt", pair=folder / "b.txt")
    assert sample.units is not None
    assert sample.units.sequence == [0, 1]
    sample = read(folder, "-", pair=folder / "b.txt", stdin=io.BytesIO(b"hello"))
    assert sample.facts.text_pair == "world"
    with pytest.raises(InputError, match="only text"):
        read(folder, folder / "a.png", PIXELS, pair=folder / "b.txt")


def test_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = read(folder, "-", stdin=io.BytesIO("hello é\n".encode()))
    assert (sample.id, sample.facts.text) == ("stdin", "hello é")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"world")))
    assert read(folder, "-").facts.text == "world"
    with pytest.raises(InputError, match=r"byte 1 .*stdin"):
        read(folder, "-", stdin=io.BytesIO(b"a\xff"))
    with pytest.raises(InputError, match="empty"):
        read(folder, "-", stdin=io.BytesIO())


def test_messages_on_stdin_are_no_text(folder: Path) -> None:
    with pytest.raises(InputError, match="messages are read from a file"):
        read(folder, "-", chat=True)


def test_tokenizer_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.txt").write_text("world")
    with pytest.raises(InputError, match="--tokenizer"):
        read(elsewhere, elsewhere / "a.txt")
    sample = read(elsewhere, elsewhere / "a.txt", tokenizer=folder / "tokenizer.json")
    assert sample.feeds["input_ids"].tolist() == [[2]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "PNG"])
def test_images(folder: Path, suffix: str) -> None:
    path = folder / f"cat.{suffix}"
    Image.new("RGB", (5, 7)).save(path)
    sample = read(folder, path, PIXELS)
    assert (sample.id, sample.kind, sample.facts.size) == ("cat", "image", (5, 7))


def test_tensors(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = folder / "ids.npz"
    np.savez(path, input_ids=np.array([[2, 1]]))
    sample = read(folder, path)
    assert (sample.id, sample.kind) == ("ids", "tensors")
    assert sample.units is not None
    assert sample.units.text == ["world", "hello"]
    assert read(tmp_path_factory.mktemp("bare"), path).units is None


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.npy", ".txt"])
def test_anything_else(folder: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read(folder, folder / name)
    for taken in (".txt", ".png", ".jpeg", ".npz"):
        assert taken in str(caught.value)


def test_a_folder_and_a_missing_file_are_named_as_such(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder.*batch"):
        read(folder, folder)
    with pytest.raises(InputError, match="no such file"):
        read(folder, folder / "a good film")


def test_files_one_folder_up(folder: Path) -> None:
    """Hubs put graphs into a folder of their own; the nearest file of a name counts."""
    (folder / "a.txt").write_text("hello")
    (folder / "config.json").write_text('{"id2label": {"0": "A", "1": "B"}}')
    (folder / "onnx").mkdir()
    assert read(folder / "onnx", folder / "a.txt").feeds["input_ids"].tolist() == [[1]]
    assert read_labels(folder / "onnx" / "model.onnx") == {0: "A", 1: "B"}
    assert default_preprocessor(folder / "onnx" / "m.onnx") == folder / "preprocessor_config.json"
    (folder / "onnx" / "config.json").write_text('{"id2label": {"0": "C"}}')
    assert read_labels(folder / "onnx" / "model.onnx") == {0: "C"}


def test_files_of_other_models_are_not_taken(folder: Path) -> None:
    """The folder above counts only if it is that of a model."""
    (folder / "a.txt").write_text("hello")
    (folder / "mine").mkdir()
    with pytest.raises(InputError, match="no tokenizer"):
        read(folder / "mine", folder / "a.txt")
    (folder / "config.json").write_text("{}")
    assert read(folder / "mine", folder / "a.txt").feeds["input_ids"].tolist() == [[1]]


@pytest.mark.parametrize("name", ["photos", "photos.png"])
def test_a_folder_is_not_one_input(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(InputError, match="is a folder, not one input") as caught:
        open_sample(folder, model_path=tmp_path / "m.onnx", graph_inputs=[], tokenizer=None)
    assert f"palrp-onnx batch MODEL --input {folder}" in caught.value.hint
