"""Sound files: samples, channels, rates, masks and what is refused."""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from palrp_onnx.errors import InputError, ResourceError
from palrp_onnx.inputs import GraphInput, Sample
from palrp_onnx.inputs.sound import SoundReader, timed
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

FLOAT, INT = np.dtype("float32"), np.dtype("int64")
WAVES = GraphInput("input_values", FLOAT, ("batch", "samples"))
MASK = GraphInput("attention_mask", INT, ("batch", "samples"))
FRAMES = GraphInput("input_features", FLOAT, ("batch", 80, 3000))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(
        json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False})
    )
    return path


def write(path: Path, numbers: list[int], width: int, channels: int = 1, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"".join(n.to_bytes(width, "little", signed=width > 1) for n in numbers))
    return path


@pytest.mark.parametrize(
    ("width", "numbers"),
    [
        (1, [128, 192, 0]),
        (2, [0, 1 << 14, -(1 << 15)]),
        (3, [0, 1 << 22, -(1 << 23)]),
        (4, [0, 1 << 30, -(1 << 31)]),
    ],
)
def test_whole_numbers_of_every_width(config: Path, width: int, numbers: list[int]) -> None:
    path = write(config.with_name("a.wav"), numbers, width)
    sample = SoundReader(config, [WAVES, MASK]).read_file(path)
    assert sample.feeds["input_values"].tolist() == [[0.0, 0.5, -1.0]]
    assert sample.feeds["attention_mask"].tolist() == [[1, 1, 1]]
    assert sample.kind == "sound" and sample.facts.step == 1 / 16000 and not sample.warnings
    assert sample.facts.seconds == 3 / 16000


def test_channels_are_averaged_and_said(config: Path) -> None:
    path = write(config.with_name("a.wav"), [0, 1 << 14, 1 << 13, 1 << 13], 2, channels=2)
    sample = SoundReader(config, [WAVES]).read_file(path)
    assert sample.feeds["input_values"].tolist() == [[0.25, 0.25]]
    assert [w.code for w in sample.warnings] == ["channels"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_another_rate_is_resampled(config: Path, rate: int) -> None:
    """A tone is the same tone, where the ends of the sound are far."""
    pytest.importorskip("soxr")
    times = np.arange(rate) / rate
    tone = (np.sin(2 * np.pi * 440 * times) * 20000).round().astype(int).tolist()
    path = write(config.with_name("a.wav"), tone, 2, rate=rate)
    sample = SoundReader(config, [WAVES]).read_file(path)
    found = sample.feeds["input_values"][0]
    assert len(found) == 16000 and sample.facts.seconds == 1 and not sample.facts.truncated
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) * 20000 / 2**15
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-3)
    assert [(w.code, f"from {rate} to 16000" in w.message) for w in sample.warnings] == [
        ("resampled", True)
    ]


def test_what_is_above_half_the_rate_is_left_out(config: Path) -> None:
    pytest.importorskip("soxr")
    tone = (np.sin(2 * np.pi * 15000 * np.arange(44100) / 44100) * 20000).round().astype(int)
    path = write(config.with_name("a.wav"), tone.tolist(), 2, rate=44100)
    found = SoundReader(config, [WAVES]).read_file(path).feeds["input_values"][0]
    assert np.abs(found[500:-500]).max() < 1e-3


def test_another_rate_without_its_package(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    path = write(config.with_name("a.wav"), [0, 0], 2, rate=8000)
    with pytest.raises(ResourceError, match="8000 samples a second and the model takes") as caught:
        SoundReader(config, [WAVES]).read_file(path)
    hint = caught.value.hint
    assert "palrp-onnx[audio]" in hint and "ffmpeg -i a.wav -ar 16000" in hint


@pytest.mark.parametrize("rate", [1, 4_000_000_000])
def test_rates_that_no_sound_has(config: Path, rate: int) -> None:
    pytest.importorskip("soxr")
    path = write(config.with_name("a.wav"), [0] * 20000, 1, rate=rate)
    with pytest.raises(InputError, match="samples a second"):
        SoundReader(config, [WAVES]).read_file(path)


def test_what_does_not_fit_is_said(config: Path) -> None:
    config.write_text(json.dumps({"feature_extractor_type": "WhisperFeatureExtractor"}))
    path = write(config.with_name("a.wav"), [0] * 16000 * 31, 2)
    sample = SoundReader(config, [FRAMES]).read_file(path)
    assert sample.facts.truncated and sample.facts.seconds == 30
    assert [w.message for w in sample.warnings] == ["30 of 31 seconds were kept"]
    short = GraphInput("input_features", FLOAT, ("batch", 80, 100))
    with pytest.raises(InputError, match="does not fit"):
        SoundReader(config, [short]).read_file(path)


@pytest.mark.parametrize(
    "inputs",
    [[GraphInput("ids", INT, ("b", "t"))], [WAVES, FRAMES], [GraphInput("x", FLOAT, (1, 3, 8, 8))]],
)
def test_graphs_without_sound(config: Path, inputs: list[GraphInput]) -> None:
    with pytest.raises(InputError, match="a sound provides one float input"):
        SoundReader(config, inputs)


def test_damaged_files(config: Path) -> None:
    reader = SoundReader(config, [WAVES])
    empty = write(config.with_name("empty.wav"), [], 2)
    with pytest.raises(InputError, match="holds no samples"):
        reader.read_file(empty)
    with pytest.raises(InputError, match="cannot be read"):
        reader.read_file(config.with_name("nothing.wav"))


def test_a_wave_of_eight_bytes_a_sample(config: Path) -> None:
    pytest.importorskip("soundfile")
    path = write(config.with_name("a.wav"), [0, 0], 4)
    data = bytearray(path.read_bytes())
    data[32:36] = (8).to_bytes(2, "little") + (64).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not a readable sound"):
        SoundReader(config, [WAVES]).read_file(path)


def test_flac_without_its_package(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.with_name("a.flac")
    path.write_bytes(b"fLaC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ResourceError, match="soundfile") as caught:
        SoundReader(config, [WAVES]).read_file(path)
    assert "palrp-onnx[audio]" in caught.value.hint


def test_flac(config: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path, samples = config.with_name("a.flac"), np.array([0.0, 0.5, -1.0])
    soundfile.write(path, samples, 16000)
    sample = SoundReader(config, [WAVES]).read_file(path)
    assert sample.feeds["input_values"].tolist() == [samples.tolist()]
    path.write_bytes(b"fLaC" + bytes(20))
    with pytest.raises(InputError, match="is not a readable sound"):
        SoundReader(config, [WAVES]).read_file(path)


def test_a_small_file_of_a_long_silence(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.setattr("palrp_onnx.inputs.sound._SAMPLES", 1000)
    for channels, count in ((1, 1001), (2, 501)):
        path = config.with_name("a.flac")
        soundfile.write(path, np.zeros((count, channels)), 16000)
        with pytest.raises(InputError, match="more than 1,000 samples"):
            SoundReader(config, [WAVES]).read_file(path)


def test_seconds_are_those_of_the_array_with_the_form_of_the_features(config: Path) -> None:
    def step(shapes: dict[str, tuple[int, ...]]) -> list[float | None]:
        feeds = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        facts = InputFacts(kind="tensors")
        sample = timed(Sample("a", "tensors", feeds, facts, subject="ids"), config.with_name("m"))
        return [sample.step_of(name) for name in shapes]

    assert step({"wave": (1, 900), "table": (1, 9, 2)}) == [1 / 16000, None]
    assert step({"a": (1, 900), "b": (1, 9)}) == [None, None]
    config.write_text(json.dumps({"feature_extractor_type": "WhisperFeatureExtractor"}))
    assert step({"series": (1, 50, 7), "frames": (1, 80, 200)}) == [None, 0.01]
    assert step({"wave": (1, 900), "frames": (1, 16, 200)}) == [None, 0.01]
