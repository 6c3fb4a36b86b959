"""Image files → pixel values, as the Hugging Face image processor of the model computes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.colours import Colours
from palrp_onnx.inputs.moves import Seen, check_pixels, too_large
from palrp_onnx.inputs.patches import Patches
from palrp_onnx.inputs.preprocessing import (
    VIDEO_HINT,
    Preprocessing,
    read_form,
    read_preprocessing,
)
from palrp_onnx.inputs.purposes import MASK, purposes
from palrp_onnx.inputs.reading import read_bytes, read_optional_json
from palrp_onnx.inputs.sample import Feeds, GraphInput, ImageGeometry, Sample
from palrp_onnx.inputs.signature import check_shape, describe, describe_input
from palrp_onnx.inputs.video import Video
from palrp_onnx.record import InputFacts, Units, Warning_
from palrp_onnx.types import Box

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


class ImageReader:
    """Turns an image into the input of one graph.

    This is an array [1, channels, height, width], or [1, height, width, channels] if the graph
    declares channels last; floats, or bytes if the graph declares uint8. If the processor rounds
    pixels to colours, it is their ids [1, height · width]; if it cuts out patches, these are in a
    row, beside their numbers of rows and columns.

    Images are turned upright by their EXIF orientation and converted to RGB (to grey if the model
    has one channel), then resized, cropped, rescaled and normalised.

    Args:
        preprocessor_config: ``preprocessor_config.json``. If the graph does not fix the number of
            channels, it is ``num_channels`` of the ``config.json`` that belongs to it.
        graph_inputs: The inputs of the graph.

    Raises:
        InputError: The preprocessing is not supported, or the graph has other inputs than one
            image and masks of its pixels.
    """

    def __init__(self, preprocessor_config: Path, graph_inputs: Sequence[GraphInput]) -> None:
        self._arranged: _Arranged | Video = _arranged(preprocessor_config, graph_inputs)
        self._mode = "L" if self._arranged.channels == 1 else "RGB"
        self._steps = read_preprocessing(preprocessor_config, self._arranged.channels)

    def read_file(self, path: Path) -> Sample:
        """Read one image; the id is the file's stem, ``facts.size`` that of the upright original.

        Raises:
            InputError: The file is not a readable image, is too large, or does not fit the graph.
        """
        if isinstance(self._arranged, Video):
            return self._read_video(self._arranged, path)
        image, warnings = _open(path)
        return self._read(image, warnings, path)

    def _read_video(self, video: Video, path: Path) -> Sample:
        """Read the pictures of an animated image."""
        with _decoding(path):
            chosen, warnings = video.pictures(_checked(path))
        seen = [_see(_convert(each, self._mode, path), self._steps, path)[0] for each in chosen]
        array = _in_type(video.array(seen), video.input, path)
        check_shape(video.input, (None, *array.shape[1:]), place=str(path))
        return Sample(
            id=path.stem,
            kind="image",
            feeds={video.input.name: array},
            facts=InputFacts(kind="image", size=chosen[0].size),
            warnings=(*self._steps.warnings, *warnings),
            subject=video.input.name,
        )

    def read(self, image: Image.Image, *, id: str) -> Sample:
        """Read an image that is opened already.

        Raises:
            InputError: The image is too large, has more than 8 bits a channel, or does not fit the
                graph.
        """
        place = Path(id)
        with _placed(place):
            check_pixels(*image.size)
            warnings = _lost(image, place)
        return replace(self._read(ImageOps.exif_transpose(image), warnings, place), id=id)

    def _read(self, image: Image.Image, warnings: Sequence[Warning_], path: Path) -> Sample:
        image, source = _convert(image, self._mode, path), _convert(image, "RGB", path)
        if isinstance(self._arranged, Video):
            raise Video.still(path)
        pixels, geometry = _see(image, self._steps, path)
        feeds, units = self._arranged.feeds(pixels, self._steps, path)
        return Sample(
            id=path.stem,
            kind="image",
            feeds=feeds,
            facts=InputFacts(kind="image", size=image.size),
            units=units,
            warnings=(*self._steps.warnings, *warnings),
            geometry=geometry,
            image=source,
            subject=self._arranged.input.name,
        )


class _Arranged(Protocol):
    """How pixels [height, width, channels] are given to a graph.

    Attributes:
        input: The explained input.
        channels: Number of channels.
    """

    input: GraphInput
    channels: int

    def feeds(
        self, pixels: NDArray[np.generic], steps: Preprocessing, path: Path
    ) -> tuple[Feeds, Units | None]:
        """The arrays, and their units where the graph does not show that they are an image."""


def _arranged(preprocessor_config: Path, graph_inputs: Sequence[GraphInput]) -> _Arranged | Video:
    if not preprocessor_config.is_file():  # first whether the graph takes an image at all
        return _Planes(graph_inputs, preprocessor_config)
    match read_form(preprocessor_config):
        case "colours":
            return Colours(graph_inputs)
        case "patches":
            return Patches(graph_inputs)
        case "video":
            return Video(graph_inputs, beside(preprocessor_config, "config.json"))
        case _:
            return _Planes(graph_inputs, preprocessor_config)


class _Planes:
    """[1, channels, height, width], or channels last, and masks that keep all pixels."""

    def __init__(self, graph_inputs: Sequence[GraphInput], preprocessor_config: Path) -> None:
        self._masks = pixel_masks(graph_inputs)
        self.input = _pixel_input([e for e in graph_inputs if e not in self._masks])
        self._last = _channels_last(self.input)
        self.channels = _channels(self.input, -1 if self._last else 1, preprocessor_config)

    def feeds(
        self, pixels: NDArray[np.generic], steps: Preprocessing, path: Path
    ) -> tuple[Feeds, Units | None]:
        ordered = pixels if self._last else np.moveaxis(pixels, -1, 0)
        array = _in_type(ordered[None], self.input, path)
        check_shape(self.input, (None, *array.shape[1:]), place=str(path))
        return {self.input.name: array, **all_kept(self._masks, pixels.shape[:2])}, None


def takes_images(each: GraphInput) -> bool:
    """Whether an input may hold the pixels of an image."""
    numbers = np.dtype(each.dtype).kind == "f" or each.dtype == np.uint8
    return bool(numbers) and (each.shape is None or len(each.shape) == 4)


def pixel_masks(graph_inputs: Sequence[GraphInput]) -> list[GraphInput]:
    """The inputs [B, height, width] that say which pixels count."""
    ranked = [each for each in graph_inputs if each.shape is not None and len(each.shape) == _MASK]
    found = purposes(graph_inputs) if ranked else {}
    return [each for each in ranked if found[each.name] == MASK]


def all_kept(masks: Sequence[GraphInput], size: tuple[int, ...]) -> Feeds:
    """Masks that keep all pixels; one of a fixed size has that."""
    feeds = {}
    for each in masks:
        fixed = (each.shape or ())[1:]
        sides = [own if isinstance(own, int) else k for own, k in zip(fixed, size, strict=True)]
        feeds[each.name] = np.ones((1, *sides), each.dtype)
    return feeds


#: Number of axes of a mask of pixels, and of a video.
_MASK, _VIDEO = 3, 5


def _pixel_input(graph_inputs: Sequence[GraphInput]) -> GraphInput:
    if len(graph_inputs) == 1 and takes_images(graph_inputs[0]):
        return graph_inputs[0]
    if any(len(each.shape or ()) == _VIDEO for each in graph_inputs):
        message = f"an image is one frame, and not a video; {describe(graph_inputs)}"
        raise InputError(message, hint=VIDEO_HINT)
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
    with _decoding(path):
        image = _checked(path)
        warnings = _lost(image, path)
        image.load()
        return ImageOps.exif_transpose(image), warnings


def decode_image(data: bytes, *, id: str) -> Image.Image:
    """The image of the bytes of a file, decoded, for :meth:`ImageReader.read`.

    Raises:
        InputError: They are no image in a format that is read, or one that is too large.
    """
    with _decoding(Path(id)):
        image = _sized(data)
        image.load()
    return image


def _checked(path: Path) -> Image.Image:
    """The image of a file, not decoded."""
    return _sized(read_bytes(path, limit=_FILE_LIMIT))


def _sized(data: bytes) -> Image.Image:
    """The image of bytes, not decoded; its size is checked."""
    image = Image.open(BytesIO(data), formats=_FORMATS)
    check_pixels(*image.size)
    return image


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Errors of the decoders are those of this file."""
    try:
        with _placed(path):
            yield
    except _DAMAGE as error:
        unknown = isinstance(error, UnidentifiedImageError)  # it names the stream in memory
        said = "it begins as none of them does" if unknown else error
        message = f"is not a readable image ({', '.join(_FORMATS)}): {said}"
        raise InputError(message, place=str(path)) from error


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """Errors of moves are those of this file."""
    try:
        yield
    except _BOMB:
        raise _placed_error(too_large(), path) from None
    except InputError as error:
        raise _placed_error(error, path) from error


def _placed_error(error: InputError, path: Path) -> InputError:
    return InputError(error.message, place=str(path), hint=error.hint)


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


def _see(
    image: Image.Image, steps: Preprocessing, path: Path
) -> tuple[NDArray[np.generic], ImageGeometry]:
    """Pixel values [height, width, channels], and the box of the image that they cover."""
    seen = Seen(image)
    with _placed(path):
        for move in steps.moves:
            seen = move(seen)
        pixels = steps.laid_out(steps.scale(np.atleast_3d(np.asarray(seen.image))))
    box = Box(
        left=seen.left,
        top=seen.top,
        right=seen.left + pixels.shape[1] * seen.across,
        bottom=seen.top + pixels.shape[0] * seen.down,
    )
    return pixels, ImageGeometry(size=image.size, box=box)
