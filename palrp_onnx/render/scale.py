"""The colour bar below a map: symmetric about zero, with labelled ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from palrp_onnx.render.page import GREY, MARGIN, shorten, width
from palrp_onnx.render.palette import colours, levels
from palrp_onnx.render.scene import Scene

_LENGTH = 256
_SIZE = 14
_NAME = 220


def number(value: float) -> str:
    """A signed number with three significant digits."""
    return f"{value:+.3g}".replace("-", "−")


@dataclass
class Scale:
    """A colour bar from −limit to +limit, with the meaning of its ends and a remark.

    The bar of a score, which is not signed, is from zero and less to the limit.
    """

    limit: float
    remark: str
    low: str = "against"
    high: str = "for the target"
    height: int = 26
    signed: bool = True

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        middle = top + self.height / 2
        least = self._end(-self.limit) if self.signed else "0 or less"
        start = f"{shorten(self.low, _SIZE, _NAME)}  {least}"
        page.write((MARGIN, middle), start, _SIZE)
        left = MARGIN + width(start, _SIZE) + 8
        values = np.linspace(-1 if self.signed else 0, 1, _LENGTH)
        ramp = (colours if self.signed else levels)(values, 1.0)
        page.picture(Image.fromarray(ramp[None]), (left, round(middle) - 7), (_LENGTH, 14))
        left += _LENGTH + 8
        end = f"{self._end(self.limit)}  {shorten(self.high, _SIZE, _NAME)}"
        page.write((left, middle), end, _SIZE)
        page.write((left + width(end, _SIZE) + 20, middle), self.remark, _SIZE, GREY)

    def _end(self, value: float) -> str:
        return number(value) if value else "0"
