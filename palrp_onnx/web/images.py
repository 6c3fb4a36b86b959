"""What a page has to know to read images as :class:`palrp_onnx.inputs.ImageReader` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from palrp_onnx.errors import UnsupportedError
from palrp_onnx.inputs import ImageReader
from palrp_onnx.inputs.moves import Move, cropped, edge, resized, sides
from palrp_onnx.inputs.preprocessing import read_preprocessing
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.web.arrays import array_type

#: Width and height of the picture with which a page checks its preprocessing.
_PROBE = (53, 37)
#: Number of its values that are compared.
_COMPARED = 64


def image_facts(config: Path, inputs: Sequence[GraphInput]) -> dict[str, Any]:
    """Facts for a page that reads one image.

    Args:
        config: ``preprocessor_config.json``.
        inputs: The inputs of the graph.

    Raises:
        UnsupportedError: The preprocessing has steps that pages do not have, or the graph has
            other inputs than one image.
    """
    reader = ImageReader(config, inputs)
    if len(inputs) != 1 or len(inputs[0].shape or ()) != 4:
        raise UnsupportedError("A page gives a graph one image, and this graph has other inputs")
    (pixels,) = inputs
    kind = array_type(pixels)
    if kind not in ("float32", "uint8"):
        raise UnsupportedError(f"A page gives pixels as float32 or uint8, not {kind}")
    sample = reader.read(probe(), id="probe")
    values = sample.feeds[pixels.name]
    last = values.shape[1] not in (1, 3)
    channels = int(values.shape[-1 if last else 1])
    steps = read_preprocessing(config, channels)
    if steps.canvas is not None or steps.clusters is not None or steps.patch is not None:
        raise UnsupportedError("A page neither pads images nor gives them as patches or colours")
    flat = values.ravel()
    picked = np.linspace(0, flat.size - 1, min(_COMPARED, flat.size)).astype(int)
    return {
        "input": pixels.name,
        "type": kind,
        "shape": [length if isinstance(length, int) else None for length in pixels.shape or ()],
        "last": last,
        "channels": channels,
        "moves": [_move(each) for each in steps.moves],
        "tall": rows_first(),
        "reversed": steps.reversed,
        "factor": steps.factor,
        "mean": None if steps.mean is None else steps.mean.tolist(),
        "std": None if steps.std is None else steps.std.tolist(),
        "again": steps.again,
        "probe": {
            "size": _PROBE,
            "shape": list(values.shape),
            "values": [[int(place), float(flat[place])] for place in picked],
        },
        "notices": [warning.message for warning in steps.warnings],
    }


def probe() -> Image.Image:
    """A picture that pages can make themselves: (7 x + 13 y + 29 x y + 85 c) mod 256."""
    width, height = _PROBE
    y, x, c = np.mgrid[:height, :width, :3]
    return Image.fromarray(((7 * x + 13 * y + 29 * x * y + 85 * c) % 256).astype(np.uint8))


def rows_first() -> bool:
    """Whether this Pillow resizes rows first where an image loses many more rows than columns.

    Versions differ in it, and so in rounding. Those that do, do it where h' < h and
    h − h' > 2 (w − w').
    """
    picture, filter_ = probe().crop((0, 0, 17, 37)), Image.Resampling.BICUBIC
    both = picture.resize((34, 21), filter_)
    columns = picture.resize((34, 37), filter_).resize((34, 21), filter_)
    return not np.array_equal(np.asarray(both), np.asarray(columns))


def _move(move: Move) -> dict[str, Any]:
    """A move as data.

    Raises:
        UnsupportedError: Pages do not have it.
    """
    match move:
        case resized(sizing=sides(width=width, height=height), resample=resample, gap=None):
            return {"resize": [width, height], "filter": resample.name}
        case resized(sizing=edge(shortest=shortest), resample=resample, gap=None):
            return {"edge": shortest, "filter": resample.name}
        case cropped(sizing=sides(width=width, height=height)):
            return {"crop": [width, height]}
    raise UnsupportedError(
        "The image processor resizes or pads in a way that pages do not have",
        hint="Pages resize to a size or a shortest edge, and crop the centre.",
    )
