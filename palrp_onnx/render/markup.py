"""Numbers, texts and pictures as pages write them."""

from __future__ import annotations

import base64
import io

from PIL import Image

_SHORT = 80


def short(text: str, length: int = _SHORT) -> str:
    """The beginning of a long text, with its length."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def digits(value: float) -> str:
    """A signed number with six significant digits."""
    return f"{value:+.6g}".replace("-", "−") if value else "0"


def data_uri(image: Image.Image) -> str:
    """A picture as the address of itself."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
