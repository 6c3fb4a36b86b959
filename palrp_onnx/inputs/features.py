"""Sound → features, as the feature extractors of Hugging Face compute them.

``preprocessor_config.json`` names the extractor; absent keys have the defaults of its class.

- *Waves* (wav2vec 2.0, HuBERT, WavLM, …): ``(x − mean) / sqrt(var + 1e-7)``.
- *Whisper*: 30 seconds; power spectra P of frames that are centred at multiples of the hop, with a
  periodic Hann window; ``L = log10 max(M P, 1e-10)`` with triangular filters M between points of
  Slaney's mel scale, each of unit area; ``(max(L, max L − 8) + 4) / 4``.
- *AST*: frames of 25 ms every 10 ms, without their mean, ``x_t − 0.97 x_{t−1}``, a symmetric Hann
  window, 512 frequencies; ``log max(M P, 2⁻²³)`` with filters that are triangles on Kaldi's mel
  scale from 20 Hz; ``(L − mean) / (2 std)``, after zeros up to a fixed number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.processor import SOUNDS, read_processor
from palrp_onnx.types import Array

_RATE = 16000
#: Longest sound that is read whole, in seconds.
_LONGEST = 3600
#: Largest number that a configuration may say of a count, and largest size of features.
_MOST, _LARGEST = 1 << 20, 1 << 26


@dataclass(frozen=True)
class Features:
    """Features of one sound.

    Attributes:
        array: The features of one sample, without the batch axis.
        seconds: Length of an entry of the time axis, from the start of one to that of the next.
        kept: Seconds of the sound that they are made of.
    """

    array: Array
    seconds: float
    kept: float


@dataclass(frozen=True)
class Extractor:
    """The extractor that a file describes: from samples of this ``rate`` to features."""

    rate: int
    extract: Callable[[Array], Features]


def read_extractor(path: Path) -> Extractor:
    """Read ``preprocessor_config.json``.

    Raises:
        InputError: The file cannot be read, or describes an extractor that is not supported.
    """
    config = read_processor(path, SOUNDS)
    name = config.get("feature_extractor_type")
    if not isinstance(name, str) or name not in _KINDS:
        raise InputError(
            f"feature_extractor_type is {name!r}, not one of {', '.join(_KINDS)}",
            place=str(path),
            hint="Compute its features, and pass arrays as .npz.",
        )
    facts = _Facts(config, path)
    return Extractor(facts.count("sampling_rate", _RATE), _KINDS[name](facts))


@dataclass(frozen=True)
class _Facts:
    """Values of the configuration, checked."""

    config: Mapping[str, Any]
    path: Path

    def number(self, key: str, default: float) -> float:
        value = self.config.get(key, default)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not abs(value) < 1e9:
            raise InputError(f"{key} is {value!r}, not a number", place=str(self.path))
        return float(value)

    def count(self, key: str, default: int) -> int:
        value = self.number(key, default)
        if not 1 <= value <= _MOST or value != int(value):
            raise InputError(
                f"{key} is {value!r}, not a whole number from 1 to {_MOST:,}", place=str(self.path)
            )
        return int(value)

    def check(self, rate: int, hop: int, *sizes: int) -> None:
        """Refuse frames that are no part of a second, and features or filters that are too large.

        Raises:
            InputError: There is no feature extractor of these sizes.
        """
        if not 1 <= hop <= rate or max(sizes) > _LARGEST:
            raise InputError("the sizes of its features are not possible", place=str(self.path))

    def flag(self, key: str, default: bool) -> bool:
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{key} is {value!r}, not true or false", place=str(self.path))
        return value


def _waves(facts: _Facts) -> Callable[[Array], Features]:
    rate = facts.count("sampling_rate", _RATE)
    normalised = facts.flag("do_normalize", True)
    if facts.count("feature_size", 1) != 1:
        raise InputError("feature_size is not 1, as that of a wave is", place=str(facts.path))

    def extract(sound: Array) -> Features:
        if len(sound) > _LONGEST * rate:
            raise InputError(f"has more than {_LONGEST:,} seconds")
        if normalised:
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        return Features(sound, 1 / rate, len(sound) / rate)

    return extract


def _whisper(facts: _Facts) -> Callable[[Array], Features]:
    rate, bins = facts.count("sampling_rate", _RATE), facts.count("feature_size", 80)
    frame, hop = facts.count("n_fft", 400), facts.count("hop_length", 160)
    length = facts.count("chunk_length", 30) * rate
    silence = facts.number("padding_value", 0.0)
    facts.check(rate, hop, bins * frame, length, length // hop * max(bins, frame))
    if facts.number("dither", 0.0) or facts.flag("do_normalize", False):
        raise InputError("dither and do_normalize are not supported", place=str(facts.path))
    window = _hann(frame, periodic=True)
    filters = _filters(_SLANEY, bins, 1 + frame // 2, rate, (0.0, 8000.0), by_area=True)

    def extract(sound: Array) -> Features:
        kept = min(len(sound), length)
        padded = np.full(length, silence)
        padded[:kept] = sound[:kept]
        around = np.pad(padded, frame // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(around, frame)[::hop]
        powers = np.abs(np.fft.rfft(frames[:-1] * window)) ** 2
        logs = np.log10(np.maximum(filters @ powers.T, 1e-10))
        return Features((np.maximum(logs, logs.max() - 8) + 4) / 4, hop / rate, kept / rate)

    return extract


def _ast(facts: _Facts) -> Callable[[Array], Features]:
    rate, bins = facts.count("sampling_rate", _RATE), facts.count("num_mel_bins", 128)
    most = facts.count("max_length", 1024)
    normalised = facts.flag("do_normalize", True)
    mean, std = facts.number("mean", -4.2677393), facts.number("std", 4.5689974)
    frame, hop = int(rate * 0.025), int(rate * 0.01)
    size = 1 << (frame - 1).bit_length()
    facts.check(rate, hop, bins * size, most * max(bins, size))
    if normalised and not std:
        raise InputError("std is 0", place=str(facts.path))
    window = _hann(frame, periodic=False)
    filters = _filters(_KALDI, bins, size // 2 + 1, rate, (20.0, rate / 2), on_scale=True)

    def extract(sound: Array) -> Features:
        if len(sound) < frame:
            raise InputError(f"is shorter than one frame of {frame} samples")
        frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), frame)[::hop]
        frames = frames[:most] - frames[:most].mean(axis=1, keepdims=True)
        before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        powers = np.abs(np.fft.rfft((frames - 0.97 * before) * window, size)) ** 2
        logs = np.log(np.maximum(powers @ filters.T, np.finfo(np.float32).eps))
        padded = np.zeros((most, bins))
        padded[: len(logs)] = logs
        found = (padded - mean) / (2 * std) if normalised else padded
        kept = min(len(sound), (most - 1) * hop + frame)
        return Features(found, hop / rate, kept / rate)

    return extract


#: A Hertz to mel function, and its inverse.
_Scale = tuple[Callable[[Array], Array], Callable[[Array], Array]]
_STEP = 27.0 / np.log(6.4)
#: Linear up to 1000 Hz (15 mel), logarithmic above.
_SLANEY: _Scale = (
    lambda hertz: np.where(
        hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1) / 1000) * _STEP
    ),
    lambda mel: np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) / _STEP)),
)
_KALDI: _Scale = (
    lambda hertz: 1127 * np.log1p(hertz / 700),
    lambda mel: 700 * np.expm1(mel / 1127),
)


def _filters(
    scale: _Scale,
    bins: int,
    frequencies: int,
    rate: int,
    between: tuple[float, float],
    *,
    by_area: bool = False,
    on_scale: bool = False,
) -> Array:
    """Triangular filters [bins, frequencies] whose corners are equally spaced on a mel scale.

    Args:
        scale: The scale.
        bins: Number of filters.
        frequencies: Number of frequencies from 0 to half the rate.
        rate: Samples in a second.
        between: The first and the last corner, in Hertz.
        by_area: Whether the area of every filter is 1 Hz, instead of its height 1.
        on_scale: Whether the sides are straight on the scale, instead of in Hertz.
    """
    to_mel, to_hertz = scale
    ends = to_mel(np.array(between))
    mels = np.linspace(ends[0], ends[1], bins + 2)
    points, corners = np.linspace(0, rate / 2, frequencies), to_hertz(mels)
    if on_scale:
        points, corners = to_mel(points), mels
    low, centre, high = (corners[k : k + bins, None] for k in range(3))
    sides = (points - low) / (centre - low), (high - points) / (high - centre)
    found = np.maximum(0.0, np.minimum(*sides))
    return np.asarray(found * 2 / (high - low) if by_area else found)


def _hann(length: int, *, periodic: bool) -> Array:
    """``sin²(π k / N)`` with N = length, or length − 1 for a symmetric window."""
    whole = length if periodic else length - 1
    return np.asarray(np.sin(np.pi * np.arange(length) / whole) ** 2)


_KINDS: Mapping[str, Callable[[_Facts], Callable[[Array], Features]]] = {
    "Wav2Vec2FeatureExtractor": _waves,
    "WhisperFeatureExtractor": _whisper,
    "ASTFeatureExtractor": _ast,
}
