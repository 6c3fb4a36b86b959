"""Videos: pictures of an animated image (.gif, .webp, .png), for a graph that takes several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.moves import check_pixels
from palrp_onnx.inputs.preprocessing import VIDEO_HINT
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.inputs.signature import describe
from palrp_onnx.record import Warning_

#: Number of axes of a video, and numbers of channels.
_AXES, _CHANNELS = 5, (1, 3)


class Video:
    """[1, pictures, channels, height, width], or channels before pictures if the graph says so.

    Of a video with more pictures than the graph takes, those at ``⌊k N / n⌋`` are taken, as the
    video processors of Transformers do.

    Args:
        graph_inputs: The inputs of the graph.
        config: ``config.json`` of the model: its ``num_frames`` counts where the graph leaves the
            number of pictures open.

    Raises:
        InputError: The graph takes no video.
    """

    def __init__(self, graph_inputs: Sequence[GraphInput], config: Path) -> None:
        taken = [each for each in graph_inputs if each.shape and len(each.shape) == _AXES]
        if len(graph_inputs) != 1 or not taken:
            raise InputError(f"a video provides one input of rank 5; {describe(graph_inputs)}")
        (self.input,) = taken
        shape = self.input.shape or ()
        self._axis = 2 if shape[1] in _CHANNELS and shape[2] not in _CHANNELS else 1
        channels, count = shape[3 - self._axis], shape[self._axis]
        self.channels = channels if isinstance(channels, int) else 3
        own = read_optional_json(config).get("num_frames")
        open_count = own if isinstance(own, int) and own > 0 else None
        self._count = count if isinstance(count, int) else open_count

    @staticmethod
    def still(path: Path) -> InputError:
        """The error for an image of one picture."""
        return InputError(
            "an image is one frame, and not a video", place=str(path), hint=VIDEO_HINT
        )

    def pictures(self, image: Image.Image) -> tuple[list[Image.Image], list[Warning_]]:
        """The pictures that the graph takes, and a warning where others are left out.

        Raises:
            InputError: There are too few, or they are too large together.
        """
        total = int(getattr(image, "n_frames", 1))
        if total == 1:
            raise InputError("an image is one frame, and not a video", hint=VIDEO_HINT)
        count = self._count or total
        if total < count:
            raise InputError(
                f"has {total} pictures; the model takes {count}",
                hint="Take more, as with: ffmpeg -i clip.mp4 -vf fps=30 -lossless 1 clip.webp",
            )
        check_pixels(image.width, image.height * count)
        found = []
        for k in range(count):
            image.seek(k * total // count)
            found.append(image.convert("RGB"))
        message = f"{count} of {total} pictures were taken, at equal distances"
        left_out = [Warning_(code="frames", message=message)] if count < total else []
        return found, left_out

    def array(self, seen: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array of pictures [height, width, channels]."""
        array = np.moveaxis(np.stack(seen), -1, 1)
        return (array if self._axis == 1 else np.moveaxis(array, 0, 1))[None]
