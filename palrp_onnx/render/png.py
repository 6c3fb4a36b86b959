"""A record as PNG."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from palrp_onnx.record import Attribution
from palrp_onnx.render.layout import lay_out
from palrp_onnx.render.picture import Seen
from palrp_onnx.render.raster import png
from palrp_onnx.types import Box


def render_png(
    record: Attribution,
    *,
    image: Image.Image | None = None,
    box: Box | None = None,
    further: Mapping[str, Seen] | None = None,
) -> bytes:
    """Draw a record as PNG; :func:`palrp_onnx.render.layout.lay_out` has the arguments.

    The same record, image and fonts give the same bytes.
    """
    return png(lay_out(record, image=image, box=box, further=further))
