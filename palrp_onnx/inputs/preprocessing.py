"""Steps of ``preprocessor_config.json``, with the defaults of Hugging Face's processors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.moves import (
    Move,
    Sizing,
    between,
    bounded_edge,
    cropped,
    edge,
    longest_edge,
    mirrored,
    multiples,
    next_multiples,
    padded,
    part_of_shortest,
    raised_edge,
    resized,
    scaled_sides,
    shrunk,
    sides,
    thumbnail,
    whole_patches,
)
from palrp_onnx.inputs.processor import IMAGES, read_processor
from palrp_onnx.record import Warning_

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

#: ConvNeXT processors crop to sizes below this, and stretch to others.
_CONVNEXT_STRETCH = 384
#: Longest and shortest edge of the images that ViLT and DETR were trained with.
_LONGEST, _SHORTEST = 1333, 800
_NEAREST, _LANCZOS, _BILINEAR, _BICUBIC = (Image.Resampling(number) for number in range(4))


#: What the arrays of a processor hold.
Form = Literal["planes", "colours", "patches", "video"]


@dataclass(frozen=True)
class _Kind:
    """Defaults of one image processor.

    Attributes:
        moves: How its images are resized and cropped: see `_MOVES`.
        size: Default of ``size``: a number of pixels, or a height and a width.
        crop: Default of ``crop_size``; ``None`` if it does not crop.
        resample: Default of ``resample``.
        statistics: Defaults of mean and standard deviation; ``None`` if it does not normalise.
        own: Steps ``do_…`` that it has beside the usual ones.
        off: Steps that are off by default.
        form: What its arrays hold: planes of pixels, their colours, patches, or a video.
    """

    moves: str
    size: int | tuple[int, int]
    crop: int | None
    resample: Image.Resampling
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
    own: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    form: Form = "planes"


_PADS = ("do_pad", "do_convert_annotations")
_KINDS = {
    "ViT": _Kind("sides", 224, None, _BILINEAR, _HALF),
    "DeiT": _Kind("sides", 256, 224, _BICUBIC, _HALF),
    "Beit": _Kind("sides", 256, 224, _BICUBIC, _HALF),
    "Siglip": _Kind("sides", 224, None, _BICUBIC, _HALF),
    "CLIP": _Kind("either", 224, 224, _BICUBIC, _CLIP),
    "ChineseCLIP": _Kind("either", 224, 224, _BICUBIC, _CLIP),
    "Flava": _Kind("sides", 224, 224, _BICUBIC, _CLIP),
    "Blip": _Kind("sides", 384, None, _BICUBIC, _CLIP),
    "OwlViT": _Kind("sides", 768, 768, _BICUBIC, _CLIP, off=("do_center_crop",)),
    "Bit": _Kind("either", 224, 224, _BICUBIC, _CLIP),
    "ConvNext": _Kind("convnext", _CONVNEXT_STRETCH, None, _BILINEAR, _HALF),
    "EfficientNet": _Kind("sides", 346, 289, _NEAREST, _HALF, off=("do_center_crop",)),
    "EfficientFormer": _Kind("either", 224, 224, _BICUBIC, _IMAGENET),
    "MobileNetV1": _Kind("either", 256, 224, _BILINEAR, _HALF),
    "MobileNetV2": _Kind("either", 256, 224, _BILINEAR, _HALF),
    "MobileViT": _Kind("either", 224, 256, _BILINEAR, None, own=("do_flip_channel_order",)),
    "Levit": _Kind("levit", 224, 224, _BICUBIC, _IMAGENET),
    "PoolFormer": _Kind("poolformer", 224, 224, _BICUBIC, _IMAGENET),
    "Segformer": _Kind("sides", 512, None, _BILINEAR, _IMAGENET),
    "Pvt": _Kind("sides", 224, None, _BILINEAR, _IMAGENET),
    "DINOv3ViT": _Kind("sides", 224, None, _BILINEAR, _IMAGENET),
    "DPT": _Kind("dpt", 384, None, _BICUBIC, _HALF),
    "GLPN": _Kind("multiples", 32, None, _BILINEAR, None),
    "LayoutLMv3": _Kind("sides", 224, None, _BILINEAR, _HALF),
    "Perceiver": _Kind("perceiver", 224, 256, _BICUBIC, _IMAGENET),
    "Vilt": _Kind("vilt", 384, None, _BICUBIC, _HALF, own=_PADS),
    "Donut": _Kind("donut", (2560, 1920), None, _BILINEAR, _HALF, own=("do_thumbnail", "do_pad")),
    "Sam": _Kind("sam", 1024, None, _BILINEAR, _IMAGENET, own=("do_pad",)),
    "Yolos": _Kind("yolos", _SHORTEST, None, _BILINEAR, _IMAGENET, own=_PADS),
    **{
        name: _Kind("detr", _SHORTEST, None, _BILINEAR, _IMAGENET, own=_PADS)
        for name in ("Detr", "ConditionalDetr", "DeformableDetr")
    },
    **{
        name: _Kind("maskformer", _SHORTEST, None, _BILINEAR, _IMAGENET, own=("do_pad",))
        for name in ("MaskFormer", "Mask2Former")
    },
    "RTDetr": _Kind(
        "sides", 640, None, _BILINEAR, _IMAGENET, own=_PADS, off=("do_pad", "do_normalize")
    ),
    "Swin2SR": _Kind("swin2sr", 8, None, _BICUBIC, None, own=("do_pad",)),
    "ImageGPT": _Kind(
        "sides", 256, None, _BILINEAR, _HALF, own=("do_color_quantize",), form="colours"
    ),
    "Siglip2": _Kind("patches", 256, None, _BILINEAR, _HALF, form="patches"),
    "VideoMAE": _Kind("either", 224, 224, _BILINEAR, _HALF, form="video"),
}
#: How a video is given.
VIDEO_HINT = (
    "Make an animated image of it, as with: ffmpeg -i clip.mp4 -lossless 1 clip.webp; or make the "
    "frames a .npz file with Transformers: pixels = AutoImageProcessor.from_pretrained("
    '"FOLDER")(frames, return_tensors="np")["pixel_values"], then numpy.savez("clip.npz", '
    "INPUT=pixels) with the name of the graph's input, and --input clip.npz."
)
#: Processors of videos with steps that are not known.
_VIDEOS = ("Vivit", "Tvlt", "Tvp")
_CROP_PCT = 224 / 256
#: Default side of a patch of SigLIP 2.
_PATCH = 16
#: A larger number in the file is not a statistic but a mistake, or an attack.
_LARGEST = 1e30
# Steps that are implemented, and steps without effect on a single RGB image.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}
_NEUTRAL = {"do_convert_rgb", "do_reduce_labels"}


@dataclass(frozen=True)
class Preprocessing:
    """The steps in their order; a step that is ``None`` is skipped.

    Attributes:
        moves: What is done to the image.
        reversed: Whether channels are blue, green, red.
        factor: Pixels are multiplied by this.
        mean: Mean of every channel.
        std: Standard deviation of every channel.
        again: Whether pixels are divided by ``std`` once more, as EfficientNet does.
        canvas: (width, height) of the zeros that pixels are put into at the upper left.
        warnings: Differences from the processor.
        clusters: [colours, 3] in −1 … 1, if pixels are given as the nearest of these.
        patch: Side of the patches, if pixels are given as patches in a row.
    """

    moves: tuple[Move, ...]
    reversed: bool
    factor: float | None
    mean: NDArray[np.float32] | None
    std: NDArray[np.float32] | None
    again: bool
    canvas: tuple[int, int] | None
    warnings: tuple[Warning_, ...]
    clusters: NDArray[np.float64] | None = None
    patch: int | None = None

    def scale(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """``(pixels · factor − mean) / std`` for [height, width, channels].

        The product is computed in float64 and the rest in float32, which gives the values of the
        Hugging Face processors, bit for bit.
        """
        if self.reversed:
            pixels = pixels[..., ::-1]
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        if self.mean is None or self.std is None:
            return pixels
        scaled = (pixels.astype(np.float32) - self.mean) / self.std
        return scaled / self.std if self.again else scaled

    def laid_out(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Scaled pixels on the canvas, if there is one."""
        if self.canvas is None:
            return pixels
        (width, height), (high, wide) = self.canvas, pixels.shape[:2]
        if wide > width or high > height:
            raise InputError(
                f"{wide} × {high} pixels are more than the {width} × {height} of pad_size"
            )
        return np.pad(pixels, ((0, height - high), (0, width - wide), (0, 0)))


def read_preprocessing(path: Path, channels: int) -> Preprocessing:
    """Read ``preprocessor_config.json``; absent keys have the defaults of the processor's class.

    Args:
        path: The file.
        channels: Number of channels of the model's images.

    Raises:
        InputError: The file cannot be read, or has steps or values that are not supported.
    """
    reader = _ConfigReader(_config(path), path)
    name, kind = reader.kind()
    if kind.form == "colours":
        return _of_colours(reader, kind, name)
    normalize = kind.statistics is not None and reader.step(kind, "do_normalize")
    again = kind is _KINDS["EfficientNet"] and reader.flag("include_top")
    if reader.config.get("rescale_offset"):
        raise reader.error("rescale_offset is set, but is not supported")
    return Preprocessing(
        moves=tuple(_MOVES[kind.moves](reader, kind)),
        reversed="do_flip_channel_order" in kind.own and reader.flag("do_flip_channel_order"),
        factor=reader.number("rescale_factor", 1 / 255) if reader.flag("do_rescale") else None,
        mean=reader.statistic(0, kind, channels) if normalize else None,
        std=reader.statistic(1, kind, channels) if normalize else None,
        again=again,
        canvas=_canvas(reader, kind),
        warnings=_differences(name),
        patch=reader.length("patch_size", _PATCH) if kind.form == "patches" else None,
    )


def _of_colours(reader: _ConfigReader, kind: _Kind, name: str) -> Preprocessing:
    """ImageGPT: pixels in −1 … 1, and the colours to which they are rounded."""
    one = np.ones(3, np.float32)
    return Preprocessing(
        moves=tuple(_MOVES[kind.moves](reader, kind)),
        reversed=False,
        factor=1 / 127.5,
        mean=one,
        std=one,
        again=False,
        canvas=None,
        warnings=_differences(name),
        clusters=reader.clusters(),
    )


def read_form(path: Path) -> Form:
    """What the arrays of the processor of ``preprocessor_config.json`` hold.

    Raises:
        InputError: The file cannot be read, or the processor is not known.
    """
    return _ConfigReader(_config(path), path).kind()[1].form


def _config(path: Path) -> dict[str, Any]:
    return read_processor(path, IMAGES)


def _canvas(reader: _ConfigReader, kind: _Kind) -> tuple[int, int] | None:
    if kind is _KINDS["Swin2SR"]:
        return None
    if kind.moves != "sam" or not reader.flag("do_pad"):
        if "do_pad" in kind.own and reader.config.get("pad_size") is not None:
            raise reader.error("pad_size is set, but is not supported for this processor")
        return None
    return reader.sides("pad_size", kind.size)


#: From the configuration to moves.
_Moves = Callable[["_ConfigReader", _Kind], Iterator[Move]]


def _usual(sizing: Callable[[_ConfigReader, _Kind], Sizing]) -> _Moves:
    """Resize, then crop."""

    def moves(reader: _ConfigReader, kind: _Kind) -> Iterator[Move]:
        if reader.step(kind, "do_resize"):
            yield resized(sizing(reader, kind), reader.resample(kind))
        if kind.crop is None:
            reader.refuse_step("do_center_crop")
        elif reader.step(kind, "do_center_crop"):
            yield cropped(sides(*reader.sides("crop_size", kind.crop)))

    return moves


def _convnext(reader: _ConfigReader, kind: _Kind) -> Iterator[Move]:
    """Small sizes: resize the shortest edge to size / crop_pct, then crop. Large: stretch."""
    reader.refuse_step("do_center_crop")
    if not reader.flag("do_resize"):
        return
    length, resample = reader.edge("size", _CONVNEXT_STRETCH), reader.resample(kind)
    if length >= _CONVNEXT_STRETCH:
        yield resized(sides(length, length), resample)
        return
    yield resized(edge(shrunk(length, reader.number("crop_pct", _CROP_PCT))), resample)
    yield cropped(sides(length, length))


def _perceiver(reader: _ConfigReader, kind: _Kind) -> Iterator[Move]:
    """Crop first: the share of the shortest edge that ``size`` is of ``crop_size``."""
    (wide, high), most = reader.sides("size", kind.size), reader.sides("crop_size", kind.crop or 0)
    if reader.flag("do_center_crop"):
        yield cropped(part_of_shortest(wide / most[0], high / most[1]))
    if reader.flag("do_resize"):
        yield resized(sides(wide, high), reader.resample(kind))


def _donut(reader: _ConfigReader, kind: _Kind) -> Iterator[Move]:
    reader.refuse_step("do_align_long_axis")
    if isinstance(size := reader.config.get("size"), list):  # written as (width, height)
        reader = _ConfigReader({**reader.config, "size": size[::-1]}, reader.path)
    wide, high = reader.sides("size", kind.size)
    if reader.flag("do_resize"):
        yield resized(edge(min(wide, high)), reader.resample(kind))
    if reader.flag("do_thumbnail"):
        yield resized(thumbnail(wide, high), _BICUBIC, gap=2.0)
    if reader.flag("do_pad"):
        yield padded(wide, high)


def _patches(reader: _ConfigReader, kind: _Kind) -> Iterator[Move]:
    reader.refuse_step("do_center_crop")
    if not reader.flag("do_resize"):
        raise reader.error("do_resize is false, but images are cut into whole patches")
    side, most = reader.length("patch_size", _PATCH), reader.length("max_num_patches", kind.size)
    yield resized(whole_patches(side, most), reader.resample(kind))


def _swin2sr(reader: _ConfigReader, _: _Kind) -> Iterator[Move]:
    reader.refuse_step("do_resize")
    reader.refuse_step("do_center_crop")
    reader.refuse_step("do_normalize")
    divisor = reader.length("size_divisor", 8)
    if reader.length("pad_size", divisor) != divisor:
        raise reader.error(
            f"pad_size is {reader.config['pad_size']}, which versions of Transformers read "
            f"differently: size_divisor is {divisor}"
        )
    if reader.flag("do_pad"):
        yield mirrored(next_multiples(divisor))


def _either(reader: _ConfigReader, kind: _Kind) -> Sizing:
    return reader.sides_or_edge("size", kind.size)


def _poolformer(reader: _ConfigReader, kind: _Kind) -> Sizing:
    """The size divided by ``crop_pct``, as the shortest edge of a square."""
    share = reader.number("crop_pct", 0.9)
    value = reader.value("size", kind.size)
    if isinstance(value, dict) and "height" in value:
        wide, high = reader.sides("size", kind.size)
        if wide != high:
            return sides(shrunk(wide, share), shrunk(high, share))
        return edge(shrunk(high, share))
    return edge(shrunk(reader.edge("size", kind.size), share))


def _dpt(reader: _ConfigReader, kind: _Kind) -> Sizing:
    wide, high = reader.sides("size", kind.size)
    multiple = reader.length("ensure_multiple_of", 1)
    return scaled_sides(wide, high, multiple, keep=reader.flag("keep_aspect_ratio", False))


def _vilt(reader: _ConfigReader, kind: _Kind) -> Sizing:
    shorter = reader.edge("size", kind.size)
    longer = int(_LONGEST / _SHORTEST * shorter)
    return between(shorter, longer, reader.length("size_divisor", 32))


def _bounded(reader: _ConfigReader, kind: _Kind, divisor: int = 1) -> Sizing:
    value = reader.value("size", {"shortest_edge": kind.size, "longest_edge": _LONGEST})
    keys = value.keys() if isinstance(value, dict) else ()
    if keys == {"height", "width"}:
        return sides(*reader.sides("size", kind.size))
    if keys == {"shortest_edge", "longest_edge"} and all(map(_is_length, value.values())):
        return bounded_edge(value["shortest_edge"], value["longest_edge"], divisor)
    return bounded_edge(reader.edge("size", kind.size), None, divisor)


def _maskformer(reader: _ConfigReader, kind: _Kind) -> Sizing:
    """Both edges as DETR has them, raised to multiples of ``size_divisor``."""
    divisor = reader.length("size_divisor", 32)
    value = reader.value("size", kind.size)
    if isinstance(value, dict) and value.keys() == {"shortest_edge", "longest_edge"}:
        shorter, longer = value["shortest_edge"], value["longest_edge"]
    elif isinstance(value, dict | list):
        wide, high = (-(-side // divisor) * divisor for side in reader.sides("size", kind.size))
        return sides(wide, high)
    else:
        shorter, longer = value, reader.length("max_size", _LONGEST)
    if not _is_length(shorter) or not _is_length(longer) or shorter >= longer:
        raise reader.error(f"size is {value!r}, not a shortest edge and a longer one")
    return raised_edge(shorter, longer, divisor)


_MOVES: Mapping[str, _Moves] = {
    "sides": _usual(lambda reader, kind: sides(*reader.sides("size", kind.size))),
    "either": _usual(_either),
    "levit": _usual(lambda reader, kind: edge(int(256 / 224 * reader.edge("size", kind.size)))),
    "poolformer": _usual(_poolformer),
    "dpt": _usual(_dpt),
    "multiples": _usual(lambda reader, kind: multiples(reader.length("size_divisor", kind.size))),
    "vilt": _usual(_vilt),
    "detr": _usual(_bounded),
    "maskformer": _usual(_maskformer),
    "yolos": _usual(lambda reader, kind: _bounded(reader, kind, 16)),
    "sam": _usual(lambda reader, kind: longest_edge(reader.longest("size", kind.size))),
    "convnext": _convnext,
    "perceiver": _perceiver,
    "donut": _donut,
    "swin2sr": _swin2sr,
    "patches": _patches,
}


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
        stem = stem.removesuffix("FeatureExtractor")
        kind = _KINDS.get(stem)
        if stem in _VIDEOS:
            raise InputError(
                f"{name} makes a video of frames, and an image is one frame",
                place=str(self.path),
                hint=VIDEO_HINT,
            )
        if kind is None:
            known = ", ".join(f"{each}ImageProcessor" for each in _KINDS)
            raise self.error(f"image_processor_type {name} is not known; known are {known}")
        for key in self.config.keys() - _STEPS - _NEUTRAL - {*kind.own}:
            if key.startswith("do_"):
                self.refuse_step(key)
        return name, kind

    def refuse_step(self, key: str) -> None:
        if self.config.get(key):
            raise self.error(f"{key} is set, but is not supported for this processor")

    def step(self, kind: _Kind, key: str) -> bool:
        return self.flag(key, key not in kind.off)

    def flag(self, key: str, default: bool = True) -> bool:
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {value!r}, neither true nor false")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.value(key, default)
        if not _is_number(value) or value <= 0:
            raise self.error(f"{key} is {value!r}, not a positive number")
        return float(value)

    def clusters(self) -> NDArray[np.float64]:
        """Colours in −1 … 1, to which ImageGPT rounds its pixels."""
        for key in ("do_color_quantize", "do_normalize", "do_rescale"):
            # As null, they are those of another version.
            if self.config.get(key) is not None and not self.flag(key):
                raise self.error(f"{key} is false, but ids are those of colours in −1 … 1")
        for key, usual in (("rescale_factor", 1 / 255), ("image_mean", 0.5), ("image_std", 0.5)):
            value = self.value(key, usual)
            if value not in (usual, [usual] * 3):
                raise self.error(f"{key} is {value!r}, but ids are those of colours in −1 … 1")
        rows = self.config.get("clusters")
        named = isinstance(rows, list) and rows and all(map(_is_colour, rows))
        if not named:
            raise self.error("clusters are missing, or not lists of three numbers")
        return np.array(rows, dtype=np.float64)

    def resample(self, kind: _Kind) -> Image.Resampling:
        value = self.value("resample", kind.resample)
        if isinstance(value, bool) or value not in list(Image.Resampling):
            raise self.error(f"resample is {value!r}, not one of Pillow's filters")
        return Image.Resampling(value)

    def statistic(self, index: int, kind: _Kind, channels: int) -> NDArray[np.float32]:
        key = ("image_mean", "image_std")[index]
        assert kind.statistics is not None
        value = self.value(key, list(kind.statistics[index]))
        values = value if isinstance(value, list) else [value] * channels
        if len(values) != channels or not all(_is_number(each) for each in values):
            raise self.error(f"{key} is {value!r}, not {channels} numbers")
        array = np.array(values, dtype=np.float32)
        if index == 1 and not array.all():
            raise self.error(f"{key} has a zero")
        return array

    def sides(self, key: str, default: int | tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a number, [height, width] or {"height", "width"}."""
        value = self.value(key, default)
        if isinstance(value, int):
            value = [value, value]
        if isinstance(value, dict) and value.keys() == {"height", "width"}:
            value = [value["height"], value["width"]]
        if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_length, value)):
            return value[1], value[0]
        raise self.error(f"{key} is {value!r}, not a height and a width")

    def edge(self, key: str, default: object) -> int:
        """A number or {"shortest_edge"}."""
        return self._one_of(key, default, "shortest")

    def longest(self, key: str, default: object) -> int:
        """A number or {"longest_edge"}."""
        return self._one_of(key, default, "longest")

    def _one_of(self, key: str, default: object, which: str) -> int:
        value = self.value(key, default)
        if isinstance(value, dict) and value.keys() == {f"{which}_edge"}:
            value = value[f"{which}_edge"]
        if not _is_length(value):
            raise self.error(f"{key} is {value!r}, not a {which} edge")
        return int(value)

    def length(self, key: str, default: object) -> int:
        value = self.value(key, default)
        if not _is_length(value):
            raise self.error(f"{key} is {value!r}, not a number of pixels")
        return int(value)

    def sides_or_edge(self, key: str, default: int | tuple[int, int]) -> Sizing:
        value = self.value(key, default)
        if isinstance(value, list) or (isinstance(value, dict) and "height" in value):
            return sides(*self.sides(key, default))
        return edge(self.edge(key, default))

    def value(self, key: str, default: object) -> Any:
        # As in the processors themselves, null means the default.
        value = self.config.get(key)
        return default if value is None else value


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST and math.isfinite(value)


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20
