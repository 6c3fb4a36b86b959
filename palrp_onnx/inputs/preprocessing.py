"""Steps of ``preprocessor_config.json``, with the defaults of Hugging Face's processors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_json_object
from palrp_onnx.record import Warning_

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

#: ConvNeXT processors crop to sizes below this, and stretch to others.
_CONVNEXT_STRETCH = 384


@dataclass(frozen=True)
class _Kind:
    """Defaults of one image processor; ``forms``: what ``size`` may be, sides or shortest edge."""

    forms: Literal["sides", "edge", "either"]
    size: int
    crop: int | None
    resample: Image.Resampling
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


_KINDS = {
    "ViT": _Kind("sides", 224, None, Image.Resampling.BILINEAR, _HALF),
    "DeiT": _Kind("sides", 256, 224, Image.Resampling.BICUBIC, _HALF),
    "Beit": _Kind("sides", 256, 224, Image.Resampling.BICUBIC, _HALF),
    "Siglip": _Kind("sides", 224, None, Image.Resampling.BICUBIC, _HALF),
    "CLIP": _Kind("either", 224, 224, Image.Resampling.BICUBIC, _CLIP),
    "Bit": _Kind("either", 224, 224, Image.Resampling.BICUBIC, _CLIP),
    "ConvNext": _Kind("edge", 384, None, Image.Resampling.BILINEAR, _HALF),
}
_CROP_PCT = 224 / 256
#: A larger number in the file is not a statistic but a mistake, or an attack.
_LARGEST = 1e30
# Steps that are implemented, and steps without effect on a single RGB image.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}
_NEUTRAL = {"do_convert_rgb", "do_reduce_labels"}


@dataclass(frozen=True)
class Resize:
    """Resize to ``width`` × ``height``, or, without a height, the shortest edge to ``width``."""

    width: int
    height: int | None

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing; the longer edge is rounded down."""
        if self.height is not None:
            return self.width, self.height
        longer = int(self.width * max(width, height) / min(width, height))
        return (self.width, longer) if width <= height else (longer, self.width)


@dataclass(frozen=True)
class Preprocessing:
    """The steps in their order; a step that is ``None`` is skipped. ``crop`` is (width, height)."""

    resize: Resize | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    factor: float | None
    mean: NDArray[np.float32] | None
    std: NDArray[np.float32] | None
    warnings: tuple[Warning_, ...]

    def scale(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """``(pixels · factor − mean) / std`` for [height, width, channels].

        The product is computed in float64 and the rest in float32, which gives the values of the
        Hugging Face processors, bit for bit.
        """
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        if self.mean is None or self.std is None:
            return pixels
        return (pixels.astype(np.float32) - self.mean) / self.std


def read_preprocessing(path: Path, channels: int) -> Preprocessing:
    """Read ``preprocessor_config.json``; absent keys have the defaults of the processor's class.

    Raises:
        InputError: The file cannot be read, or has steps or values that are not supported.
    """
    config = read_json_object(
        path, hint="put preprocessor_config.json into the folder of the model, or pass .npz"
    )
    reader = _ConfigReader(config, path)
    name, kind = reader.kind()
    resize, crop = _convnext(reader) if kind.forms == "edge" else _resize_and_crop(reader, kind)
    normalize = reader.flag("do_normalize")
    return Preprocessing(
        resize=resize,
        resample=reader.resample(kind),
        crop=crop,
        factor=reader.number("rescale_factor", 1 / 255) if reader.flag("do_rescale") else None,
        mean=reader.statistic(0, kind, channels) if normalize else None,
        std=reader.statistic(1, kind, channels) if normalize else None,
        warnings=_differences(name),
    )


def _resize_and_crop(
    reader: _ConfigReader, kind: _Kind
) -> tuple[Resize | None, tuple[int, int] | None]:
    crop = None
    if kind.crop is not None and reader.flag("do_center_crop"):
        sides = reader.sides("crop_size", kind.crop)
        crop = (sides.width, sides.height or sides.width)
    elif kind.crop is None:
        reader.refuse_step("do_center_crop")
    if not reader.flag("do_resize"):
        return None, crop
    if kind.forms == "either":
        return reader.sides_or_edge("size", kind.size), crop
    return reader.sides("size", kind.size), crop


def _convnext(reader: _ConfigReader) -> tuple[Resize | None, tuple[int, int] | None]:
    """Small sizes: resize the shortest edge to size / crop_pct, then crop. Large: stretch."""
    reader.refuse_step("do_center_crop")
    if not reader.flag("do_resize"):
        return None, None
    edge = reader.edge("size", _CONVNEXT_STRETCH)
    if edge >= _CONVNEXT_STRETCH:
        return Resize(edge, edge), None
    crop_pct = reader.number("crop_pct", _CROP_PCT)
    return Resize(max(int(edge / crop_pct), 1), None), (edge, edge)


def _differences(name: str) -> tuple[Warning_, ...]:
    if not name.endswith("Fast"):
        return ()
    message = f"{name} resizes with torchvision, this with Pillow: pixels may differ by rounding"
    return (Warning_(code="resampling", message=message),)


@dataclass(frozen=True)
class _ConfigReader:
    """Checked access to the keys of the configuration."""

    config: dict[str, Any]
    path: Path

    def error(self, message: str) -> InputError:
        return InputError(message, place=str(self.path), hint="or pass the pixels as .npz")

    def kind(self) -> tuple[str, _Kind]:
        name = self.config.get("image_processor_type") or self.config.get("feature_extractor_type")
        if not isinstance(name, str):
            raise self.error("image_processor_type is missing")
        stem = name.removesuffix("Fast").removesuffix("ImageProcessor")
        kind = _KINDS.get(stem.removesuffix("FeatureExtractor"))
        if kind is None:
            known = ", ".join(f"{each}ImageProcessor" for each in _KINDS)
            raise self.error(f"image_processor_type {name} is not known; known are {known}")
        for key in self.config.keys() - _STEPS - _NEUTRAL:
            if key.startswith("do_"):
                self.refuse_step(key)
        return name, kind

    def refuse_step(self, key: str) -> None:
        if self.config.get(key):
            raise self.error(f"{key} is set, but is not supported for this processor")

    def flag(self, key: str) -> bool:
        value = self.config.get(key, True)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {value!r}, neither true nor false")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._value(key, default)
        if not _is_number(value) or value <= 0:
            raise self.error(f"{key} is {value!r}, not a positive number")
        return float(value)

    def resample(self, kind: _Kind) -> Image.Resampling:
        value = self._value("resample", kind.resample)
        if isinstance(value, bool) or value not in list(Image.Resampling):
            raise self.error(f"resample is {value!r}, not one of Pillow's filters")
        return Image.Resampling(value)

    def statistic(self, index: int, kind: _Kind, channels: int) -> NDArray[np.float32]:
        key = ("image_mean", "image_std")[index]
        value = self._value(key, list(kind.statistics[index]))
        values = value if isinstance(value, list) else [value] * channels
        if len(values) != channels or not all(_is_number(each) for each in values):
            raise self.error(f"{key} is {value!r}, not {channels} numbers")
        array = np.array(values, dtype=np.float32)
        if index == 1 and not array.all():
            raise self.error(f"{key} has a zero")
        return array

    def sides(self, key: str, default: int) -> Resize:
        """A number, [height, width] or {"height", "width"}."""
        value = self._value(key, default)
        if isinstance(value, int):
            value = [value, value]
        if isinstance(value, dict) and value.keys() == {"height", "width"}:
            value = [value["height"], value["width"]]
        if isinstance(value, list) and len(value) == 2 and all(_is_length(each) for each in value):
            return Resize(width=value[1], height=value[0])
        raise self.error(f"{key} is {value!r}, not a height and a width")

    def edge(self, key: str, default: int) -> int:
        """A number or {"shortest_edge"}."""
        value = self._value(key, default)
        if isinstance(value, dict) and value.keys() == {"shortest_edge"}:
            value = value["shortest_edge"]
        if not _is_length(value):
            raise self.error(f"{key} is {value!r}, not a shortest edge")
        return int(value)

    def sides_or_edge(self, key: str, default: int) -> Resize:
        value = self._value(key, default)
        if isinstance(value, list) or (isinstance(value, dict) and "height" in value):
            return self.sides(key, default)
        return Resize(self.edge(key, default), None)

    def _value(self, key: str, default: object) -> Any:
        # As in the processors themselves, null means the default.
        value = self.config.get(key)
        return default if value is None else value


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST and math.isfinite(value)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20
