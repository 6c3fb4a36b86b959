"""Pictures as ``palrp-onnx evaluate`` reads them: images, masks and true classes in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_pictures(
    folder: Path, pictures: Iterable[tuple[int, Image.Image, NDArray[np.bool_], str | int]]
) -> None:
    """Write number, picture, mask and class of each: ``images``, ``masks``, ``classes.json``."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    classes = {}
    for number, picture, mask, label in pictures:
        name = f"{number:04}"
        picture.save(folder / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
        classes[name] = label
    (folder / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")
