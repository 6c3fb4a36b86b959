"""Image files → pixel values, as the Hugging Face image processor of the model computes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.preprocessing import Preprocessing, read_preprocessing
from palrp_onnx.inputs.reading import read_bytes, read_optional_json
from palrp_onnx.inputs.sample import GraphInput, ImageGeometry, Sample
from palrp_onnx.inputs.signature import check_shape, describe, describe_input
from palrp_onnx.record import InputFacts, Warning_
from palrp_onnx.types import Box

#: Largest number of pixels of an image, before and after resizing; above it Pillow warns as well.
PIXEL_LIMIT = 89_478_485

_CHANNELS = (1, 3)
_FILE_LIMIT = 256 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_TENSORS_HINT = "give a file for each input (--input again), or one array per graph input as .npz"
# Exceptions that Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def default_preprocessor(model_path: Path) -> Path:
    """The model's ``preprocessor_config.json``, in its folder or one folder up."""
    return beside(model_path, "preprocessor_config.json")


class ImageReader:
    """Turns an image into the input of one graph.

    This is an array [1, channels, height, width], or [1, height, width, channels] if the graph
    declares channels last; floats, or bytes if the graph declares uint8.

    Images are turned upright by their EXIF orientation and converted to RGB (to grey if the model
    has one channel), then resized, cropped, rescaled and normalised.

    Args:
        preprocessor_config: ``preprocessor_config.json``. If the graph does not fix the number of
            channels, it is ``num_channels`` of the ``config.json`` that belongs to it.
        graph_inputs: The inputs of the graph.

    Raises:
        InputError: The preprocessing is not supported, or the graph has other inputs than one
            image.
    """

    def __init__(self, preprocessor_config: Path, graph_inputs: Sequence[GraphInput]) -> None:
        self._input = _pixel_input(graph_inputs)
        self._last = _channels_last(self._input)
        axis = -1 if self._last else 1
        channels = _channels(self._input, axis, preprocessor_config)
        self._mode = "L" if channels == 1 else "RGB"
        self._steps = read_preprocessing(preprocessor_config, channels)

    def read_file(self, path: Path) -> Sample:
        """Read one image; the id is the file's stem, ``facts.size`` that of the upright original.

        Raises:
            InputError: The file is not a readable image, is too large, or does not fit the graph.
        """
        image, warnings = _open(path)
        image, source = _convert(image, self._mode, path), _convert(image, "RGB", path)
        pixels, geometry = _see(image, self._steps, path)
        ordered = pixels if self._last else np.moveaxis(pixels, -1, 0)
        array = _in_type(ordered[None], self._input, path)
        check_shape(self._input, (None, *array.shape[1:]), place=str(path))
        return Sample(
            id=path.stem,
            kind="image",
            feeds={self._input.name: array},
            facts=InputFacts(kind="image", size=image.size),
            warnings=(*self._steps.warnings, *warnings),
            geometry=geometry,
            image=source,
            subject=self._input.name,
        )


def takes_images(each: GraphInput) -> bool:
    """Whether an input may hold the pixels of an image."""
    numbers = np.dtype(each.dtype).kind == "f" or each.dtype == np.uint8
    return bool(numbers) and (each.shape is None or len(each.shape) == 4)


def _pixel_input(graph_inputs: Sequence[GraphInput]) -> GraphInput:
    if len(graph_inputs) == 1 and takes_images(graph_inputs[0]):
        return graph_inputs[0]
    message = f"an image provides one float or uint8 input of rank 4; {describe(graph_inputs)}"
    raise InputError(message, hint=_TENSORS_HINT)


def _channels_last(graph_input: GraphInput) -> bool:
    """Whether the last axis has the length of channels (1 or 3), and the second has not."""
    shape = graph_input.shape or (None,) * 4
    return shape[-1] in _CHANNELS and shape[1] not in _CHANNELS


def _in_type(
    pixels: NDArray[np.generic], graph_input: GraphInput, path: Path
) -> NDArray[np.generic]:
    """Pixels in the type of the graph.

    Raises:
        InputError: The graph declares bytes, and the pixels are not whole numbers of that range.
    """
    made = pixels.astype(graph_input.dtype, order="C")
    if made.dtype.kind == "u" and not np.array_equal(made, pixels):
        raise InputError(
            f"pixels that are rescaled or normalised do not fit {describe_input(graph_input)}",
            place=str(path),
            hint='Set "do_rescale" and "do_normalize" to false in preprocessor_config.json: a '
            "graph that takes bytes does both itself.",
        )
    return made


def _channels(graph_input: GraphInput, axis: int, preprocessor_config: Path) -> int:
    declared = graph_input.shape[axis] if graph_input.shape else None
    if isinstance(declared, int):
        place, channels = graph_input.name, declared
    else:
        path = beside(preprocessor_config, "config.json")
        place, channels = str(path), read_optional_json(path).get("num_channels", 3)
    if channels not in _CHANNELS:
        message = f"images have 1 or 3 channels, not {channels!r}: {describe_input(graph_input)}"
        raise InputError(message, place=place, hint=_TENSORS_HINT)
    return int(channels)


def _open(path: Path) -> tuple[Image.Image, list[Warning_]]:
    """The decoded image, upright. Its size is checked before anything is decoded."""
    data = read_bytes(path, limit=_FILE_LIMIT)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
        _check_pixels(image.size, path)
        warnings = _lost(image, path)
        image.load()
        return ImageOps.exif_transpose(image), warnings
    except _BOMB as error:
        raise _too_large(path) from error
    except _DAMAGE as error:
        message = f"is not a readable image ({', '.join(_FORMATS)}): {error}"
        raise InputError(message, place=str(path)) from error


def _lost(image: Image.Image, path: Path) -> list[Warning_]:
    """Warnings for parts of the file that the network does not see.

    Raises:
        InputError: Channels have more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"has more than 8 bits a channel (mode {image.mode})",
            place=str(path),
            hint="convert it to 8 bits a channel",
        )
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1:
        return []
    return [Warning_(code="frames", message=f"only the first of {frames} frames was used")]


def _convert(image: Image.Image, mode: str, path: Path) -> Image.Image:
    try:
        return image.convert(mode)
    except _DAMAGE as error:
        message = f"cannot be converted from {image.mode} to {mode}: {error}"
        raise InputError(message, place=str(path)) from error


def _check_pixels(size: tuple[int, int], path: Path) -> None:
    if size[0] * size[1] > PIXEL_LIMIT:
        raise _too_large(path)


def _too_large(path: Path) -> InputError:
    message = f"has, or is resized to, more than {PIXEL_LIMIT:,} pixels"
    return InputError(message, place=str(path), hint="make it smaller, or less elongated")


def _see(
    image: Image.Image, steps: Preprocessing, path: Path
) -> tuple[NDArray[np.generic], ImageGeometry]:
    """Pixel values [height, width, channels], and the box of the image that they cover."""
    width, height = image.size
    if steps.resize is not None:
        target = steps.resize.target(width, height)
        _check_pixels(target, path)
        image = image.resize(target, resample=steps.resample)
    pixels = np.atleast_3d(np.asarray(image))
    scale_x, scale_y = width / image.width, height / image.height
    left, top = 0, 0
    crop = steps.crop
    if crop is not None:
        _check_pixels(crop, path)
        pixels, (left, top) = _center_crop(pixels, crop)
    box = Box(
        left=left * scale_x,
        top=top * scale_y,
        right=(left + pixels.shape[1]) * scale_x,
        bottom=(top + pixels.shape[0]) * scale_y,
    )
    return steps.scale(pixels), ImageGeometry(size=(width, height), box=box)


def _center_crop(
    pixels: NDArray[np.generic], size: tuple[int, int]
) -> tuple[NDArray[np.generic], tuple[int, int]]:
    """The central (width, height) of the pixels, padded with zeros, and its upper left corner."""
    height, width = pixels.shape[:2]
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.zeros((size[1], size[0], pixels.shape[2]), pixels.dtype)
    part = pixels[max(top, 0) : max(top, 0) + size[1], max(left, 0) : max(left, 0) + size[0]]
    rows, columns = max(-top, 0), max(-left, 0)
    canvas[rows : rows + part.shape[0], columns : columns + part.shape[1]] = part
    return canvas, (left, top)
