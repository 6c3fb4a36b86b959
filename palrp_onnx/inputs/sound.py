"""Sound files → waves or spectrograms, as the feature extractor of the model computes them.

WAV files of whole numbers are read by the standard library; FLAC and other WAV files need the
optional package soundfile, and other sampling rates than the extractor's the optional soxr.
"""

from __future__ import annotations

import importlib
import io
import operator
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from palrp_onnx.errors import InputError, ResourceError
from palrp_onnx.inputs.features import read_extractor
from palrp_onnx.inputs.processor import default_preprocessor
from palrp_onnx.inputs.purposes import MASK, purposes
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.signature import check_shape, describe
from palrp_onnx.record import InputFacts, Warning_
from palrp_onnx.types import Array

#: Largest size of a file in bytes, and largest number of samples of all channels together, as
#: silence takes nearly no bytes in a compressed file.
_FILE_LIMIT, _SAMPLES = 1 << 30, 1 << 28
#: Largest sampling rate that is converted.
_FASTEST = 1 << 20
#: Bytes of a sample of a WAV file of whole numbers.
_WIDEST = 4


def takes_sound(each: GraphInput) -> bool:
    """Whether an input may hold a wave [B, samples], or a spectrogram of three axes."""
    return each.dtype.kind == "f" and (each.shape is None or len(each.shape) in (2, 3))


class SoundReader:
    """Turns a sound into the input of one graph, and masks beside it into ones.

    Args:
        preprocessor_config: ``preprocessor_config.json`` of the model, with its feature extractor.
        graph_inputs: The inputs of the graph.

    Raises:
        InputError: The feature extractor is not supported, or the graph has other inputs.
    """

    def __init__(self, preprocessor_config: Path, graph_inputs: Sequence[GraphInput]) -> None:
        found = purposes(graph_inputs)
        self._masks = [each for each in graph_inputs if found[each.name] == MASK]
        rest = [each for each in graph_inputs if found[each.name] != MASK]
        if len(rest) != 1 or not takes_sound(rest[0]):
            raise InputError(
                f"a sound provides one float input of rank 2 or 3; {describe(graph_inputs)}",
                hint="Give a file for each input (--input again), or pass arrays as .npz.",
            )
        self._input = rest[0]
        self._extractor = read_extractor(preprocessor_config)

    def read_file(self, path: Path) -> Sample:
        """Read one sound; the id is the file's stem.

        Raises:
            InputError: The file is no readable sound, or does not fit the graph.
            ResourceError: It needs a package that is not installed.
        """
        samples, rate = _samples(path)
        warnings = []
        if samples.shape[1] > 1:
            message = f"the mean of {samples.shape[1]} channels was taken"
            warnings.append(Warning_(code="channels", message=message))
        sound = samples.mean(axis=1, dtype=np.float32)
        if rate != (wanted := self._extractor.rate):
            sound = _resampled(sound, rate, wanted, path)
            message = f"it was resampled from {rate} to {wanted} samples a second"
            warnings.append(Warning_(code="resampled", message=message))
            rate = wanted
        try:
            found = self._extractor.extract(sound)
        except InputError as error:
            raise InputError(error.message, place=str(path)) from error
        whole = len(sound) / rate
        if cut := found.kept < whole:
            message = f"{found.kept:g} of {whole:g} seconds were kept"
            warnings.append(Warning_(code="truncated", message=message))
        array = found.array[None].astype(self._input.dtype)
        check_shape(self._input, (None, *array.shape[1:]), place=str(path))
        return Sample(
            id=path.stem,
            kind="sound",
            feeds={self._input.name: array, **self._ones(array)},
            facts=InputFacts(kind="sound", truncated=cut, seconds=found.kept, step=found.seconds),
            warnings=tuple(warnings),
            subject=self._input.name,
        )

    def _ones(self, array: Array) -> dict[str, Array]:
        """Masks that keep everything, along the leading axes or the time axis of a wave."""
        return {
            each.name: np.ones(array.shape[: len(each.shape or (1, 1))], each.dtype)
            for each in self._masks
        }


def _samples(path: Path) -> tuple[Array, int]:
    """Samples [count, channels] between −1 and 1, and how many there are in a second."""
    data = read_bytes(path, limit=_FILE_LIMIT)
    found = _whole_numbers(data) if path.suffix.lower() == ".wav" else None
    samples, rate = found or _decoded(data, path)
    if not samples.size or not np.isfinite(samples).all():
        problem = "holds NaN or infinity" if samples.size else "holds no samples"
        raise InputError(problem, place=str(path))
    return samples, rate


def _whole_numbers(data: bytes) -> tuple[Array, int] | None:
    """The samples of a WAV file of 8, 16, 24 or 32 bits, divided by the largest magnitude."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError, ValueError, MemoryError):
        return None
    if width > _WIDEST or len(frames) // width > _SAMPLES:
        return None  # refused, or read, as every other file
    count = len(frames) // width // channels * channels
    raw = np.frombuffer(frames, np.uint8)[: count * width].reshape(count, width)
    if width == 1:  # 8 bits have no sign
        return ((raw.astype(np.float32) - 128) / 128).reshape(-1, channels), rate
    wide = np.zeros((count, 4), np.uint8)
    wide[:, 4 - width :] = raw
    numbers = wide.view("<i4").reshape(-1, channels)
    return (numbers / 2.0**31).astype(np.float32), rate


def _decoded(data: bytes, path: Path) -> tuple[Array, int]:
    try:
        soundfile: Any = importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError: its C library is missing
        raise ResourceError(
            f"This {path.suffix.lower()} file needs a package that is not installed: soundfile",
            place=str(path),
            hint='pip install "palrp-onnx[audio]", or save it as .wav of 16 bits.',
        ) from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            most = _SAMPLES // file.channels
            samples = file.read(min(file.frames, most + 1), dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"is not a readable sound: {error}", place=str(path)) from error
    if len(samples) > most:
        raise InputError(f"has more than {_SAMPLES:,} samples", place=str(path))
    return samples, rate


def _resampled(sound: Array, rate: int, wanted: int, path: Path) -> Array:
    """The sound with another sampling rate.

    Raises:
        ResourceError: soxr is not installed.
        InputError: There is no such rate.
    """
    try:
        soxr: Any = importlib.import_module("soxr")
    except ImportError as error:
        raise ResourceError(
            f"The sound has {rate} samples a second and the model takes {wanted}; resampling needs "
            "a package that is not installed: soxr",
            place=str(path),
            hint=f'pip install "palrp-onnx[audio]", or: ffmpeg -i {path.name} -ar {wanted} '
            f"-ac 1 {path.stem}-{wanted}.wav",
        ) from error
    if not 1 <= rate <= _FASTEST or len(sound) * wanted / rate > _SAMPLES:
        raise InputError(f"has {rate} samples a second", place=str(path))
    return np.asarray(soxr.resample(sound, rate, wanted), np.float32)


def timed(sample: Sample, model_path: Path) -> Sample:
    """Arrays with the seconds between entries, where a feature extractor beside the model says.

    They are those of the one array that has the form of its features; of none where several have.
    """
    path = default_preprocessor(model_path)
    if not path.is_file():
        return sample
    try:
        extractor = read_extractor(path)
        found = extractor.extract(np.zeros(extractor.rate, np.float32))
    except InputError:  # not of sound, or one that is not known
        return sample
    name = _holder(found.array, sample.feeds)
    if name is None:
        return sample
    return replace(sample, facts=structs.replace(sample.facts, step=found.seconds), sound=name)


def _holder(features: Array, feeds: Feeds) -> str | None:
    """The input that holds features: it has their axes, of several those of the same length."""
    alike = {
        name: sum(map(operator.eq, array.shape[1:], features.shape))
        for name, array in feeds.items()
        if array.dtype.kind == "f" and array.ndim == features.ndim + 1
    }
    best = [name for name, count in alike.items() if count == max(alike.values())]
    return best[0] if len(best) == 1 else None
