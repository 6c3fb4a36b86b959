"""A record as SVG."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from palrp_onnx.record import Attribution
from palrp_onnx.render.layout import lay_out
from palrp_onnx.render.picture import Seen
from palrp_onnx.render.vector import svg
from palrp_onnx.types import Box


def render_svg(
    record: Attribution,
    *,
    image: Image.Image | None = None,
    box: Box | None = None,
    further: Mapping[str, Seen] | None = None,
) -> bytes:
    """Draw a record as SVG; :func:`palrp_onnx.render.layout.lay_out` has the arguments.

    Text stays text, which the program that shows the file draws in its own fonts. The same record
    and image give the same bytes.
    """
    return svg(lay_out(record, image=image, box=box, further=further))
