"""Features of sounds: against formulas written out, and against Transformers where it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.features import Features, read_extractor

pytestmark = pytest.mark.quick

WAVE, WHISPER, AST = (f"{name}FeatureExtractor" for name in ("Wav2Vec2", "Whisper", "AST"))
RATE = 16000


def sound(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone in noise, with a part of silence."""
    noise = np.random.default_rng(0).normal(size=count) * 0.1
    made = (np.sin(np.arange(count) / 7) * 0.3 + noise).astype(np.float32)
    made[count // 2 : count // 2 + 3000] = 0
    return made


def extract(folder: Path, name: str, samples: Any, **facts: Any) -> Features:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"feature_extractor_type": name, **facts}))
    return read_extractor(path).extract(samples)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("count", [7000, RATE, 12 * RATE])
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (WHISPER, {}),
        (WHISPER, {"feature_size": 128}),
        (WHISPER, {"chunk_length": 3, "hop_length": 200, "n_fft": 512}),
        (AST, {}),
        (AST, {"num_mel_bins": 32, "max_length": 64}),
        (AST, {"do_normalize": False, "mean": 1.0}),
        (WAVE, {}),
        (WAVE, {"do_normalize": False}),
    ],
)
def test_features_are_those_of_transformers(
    tmp_path: Path, name: str, facts: dict[str, Any], count: int
) -> None:
    transformers = pytest.importorskip("transformers")
    samples = sound(count)
    theirs = getattr(transformers, name)(**facts)(samples, sampling_rate=RATE, return_tensors="np")
    expected = next(np.asarray(theirs[key])[0] for key in theirs if key.startswith("input"))
    found = extract(tmp_path, name, samples, **facts)
    assert found.array.shape == expected.shape
    np.testing.assert_allclose(found.array, expected, atol=2e-5)


def test_whisper_by_its_definition(tmp_path: Path) -> None:
    """One frame, its spectrum by sums and its filters by their corners in Hertz."""
    samples = sound(RATE)
    found = extract(tmp_path, WHISPER, samples, chunk_length=1)
    frame = 40
    x = samples[frame * 160 - 200 : frame * 160 + 200].astype(np.float64)
    n = np.arange(400)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    power = np.abs(turns @ (x * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400)))) ** 2
    mels = np.linspace(0, 15 + np.log(8) * 27 / np.log(6.4), 82)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    hertz = np.arange(201) * 40
    sums = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        weights = np.interp(hertz, [low, middle, high], [0, 1, 0])
        sums.append((weights * power).sum() * 2 / (high - low))
    logs = np.log10(np.maximum(sums, 1e-10))
    assert (logs > -4).all()  # above the floor of 8 below the loudest
    np.testing.assert_allclose(found.array[:, frame], (logs + 4) / 4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "count", "step", "kept"),
    [
        (WAVE, 8000, 1 / RATE, 0.5),
        (WHISPER, 8000, 0.01, 0.5),
        (WHISPER, 31 * RATE, 0.01, 30.0),
        (AST, 8000, 0.01, 0.5),
        (AST, 11 * RATE, 0.01, 10.255),
    ],
)
def test_how_long_an_entry_is(
    tmp_path: Path, name: str, count: int, step: float, kept: float
) -> None:
    found = extract(tmp_path, name, sound(count))
    assert found.seconds == step and found.kept == kept


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"feature_extractor_type": "ClapFeatureExtractor"}, "not one of Wav2Vec2"),
        ({}, "feature_extractor_type is None"),
        ({"feature_extractor_type": WHISPER, "hop_length": 0}, "hop_length is 0"),
        ({"feature_extractor_type": WHISPER, "n_fft": "400"}, "n_fft is '400'"),
        ({"feature_extractor_type": WHISPER, "dither": 0.1}, "dither"),
        ({"feature_extractor_type": AST, "do_normalize": 1}, "do_normalize is 1"),
        ({"feature_extractor_type": AST, "std": 0}, "std is 0"),
        ({"feature_extractor_type": AST, "sampling_rate": 40}, "are not possible"),
        ({"feature_extractor_type": AST, "max_length": 10**6}, "are not possible"),
        ({"feature_extractor_type": WHISPER, "n_fft": 10**6}, "are not possible"),
        ({"feature_extractor_type": WHISPER, "chunk_length": 10**8}, "from 1 to 1,048,576"),
        ({"feature_extractor_type": WAVE, "feature_size": 2}, "feature_size is not 1"),
    ],
)
def test_what_is_refused(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=message):
        read_extractor(path)


def test_a_sound_shorter_than_a_frame(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shorter than one frame"):
        extract(tmp_path, AST, sound(100))
