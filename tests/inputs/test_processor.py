"""Settings of processors in ``preprocessor_config.json`` or nested in ``processor_config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import GraphInput, ImageReader, read_npz
from palrp_onnx.inputs.processor import (
    IMAGES,
    NESTED,
    OWN,
    SOUNDS,
    default_preprocessor,
    read_processor,
)
from palrp_onnx.inputs.sound import SoundReader, timed
from palrp_onnx.jobs.reading import SampleReader
from palrp_onnx.jobs.records import Fields

pytestmark = pytest.mark.quick

FLOAT = np.dtype("float32")
PIXELS = [GraphInput("pixel_values", FLOAT, ("batch", 3, "h", "w"))]
IMAGE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 6}}
SOUND = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False}
BOTH = {"processor_class": "SomeProcessor", "image_processor": IMAGE, "feature_extractor": SOUND}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_each_processor_has_its_part(tmp_path: Path) -> None:
    path = write(tmp_path, NESTED, BOTH)
    assert default_preprocessor(tmp_path / "model.onnx") == path
    assert read_processor(path, IMAGES) == IMAGE and read_processor(path, SOUNDS) == SOUND
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    sample = ImageReader(path, PIXELS).read_file(tmp_path / "a.png")
    assert sample.feeds["pixel_values"].shape == (1, 3, 8, 6)
    assert SoundReader(path, [GraphInput("x", FLOAT, ("batch", "samples"))])
    records = SampleReader(tmp_path / "model.onnx", PIXELS, None)
    read = records.read(Fields(image="a.png"), "a", tmp_path)
    np.testing.assert_array_equal(read.feeds["pixel_values"], sample.feeds["pixel_values"])


def test_one_folder_up(tmp_path: Path) -> None:
    path = write(tmp_path, NESTED, BOTH)
    model = tmp_path / "onnx" / "model.onnx"
    model.parent.mkdir()
    assert default_preprocessor(model) == path
    own = write(model.parent, OWN, IMAGE)
    assert default_preprocessor(model) == own and read_processor(own, IMAGES) == IMAGE


def test_both_files_have_to_agree(tmp_path: Path) -> None:
    own, nested = write(tmp_path, OWN, IMAGE), write(tmp_path, NESTED, {"processor_class": "P"})
    assert default_preprocessor(nested) == own and read_processor(own, IMAGES) == IMAGE
    fast = {**IMAGE, "image_processor_type": "ViTImageProcessorFast", "size": None, "device": None}
    write(tmp_path, NESTED, {"image_processor": fast})
    assert read_processor(own, IMAGES) == IMAGE
    write(tmp_path, NESTED, {"image_processor": {**IMAGE, "size": {"height": 8, "width": 7}}})
    with pytest.raises(InputError, match=r"size is .*'width': 6.* but .*'width': 7") as caught:
        ImageReader(own, PIXELS)
    assert "Remove the file" in caught.value.hint and NESTED in caught.value.message


def test_a_file_without_the_processor(tmp_path: Path) -> None:
    path = write(tmp_path, NESTED, {"processor_class": "P"})
    with pytest.raises(InputError, match="has no image_processor"):
        ImageReader(path, PIXELS)
    np.savez(tmp_path / "a.npz", pixel_values=np.zeros((1, 3, 8, 6), np.float32))
    sample = read_npz(tmp_path / "a.npz", PIXELS)
    assert timed(sample, tmp_path / "m.onnx") is sample
