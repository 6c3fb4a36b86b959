"""Settings of an image processor or a feature extractor, which are in one of two files.

Transformers writes them to ``preprocessor_config.json``; since version 5 as objects of
``processor_config.json`` where a model has several processors. Versions read another one first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.reading import read_json_object

OWN, NESTED = "preprocessor_config.json", "processor_config.json"
IMAGES, SOUNDS = "image_processor", "feature_extractor"
_MISSING = f"put {OWN} into the folder of the model, or pass arrays as .npz"


def default_preprocessor(model_path: Path) -> Path:
    """The model's file with these settings, in its folder or one folder up."""
    own, nested = beside(model_path, OWN), beside(model_path, NESTED)
    return nested if nested.is_file() and not own.is_file() else own


def read_processor(path: Path, part: str) -> dict[str, Any]:
    """The settings of one processor.

    Args:
        path: The file, as `default_preprocessor` finds it.
        part: Which of several it is: ``image_processor`` or ``feature_extractor``.

    Raises:
        InputError: The file cannot be read, has no settings of this processor, or the other file
            has other ones.
    """
    found = read_json_object(path, hint=_MISSING)
    if path.name == NESTED:
        own = _part(found, part)
        if own is None:
            raise InputError(f"has no {part}", place=str(path), hint=_MISSING)
        return own
    other = beside(path, NESTED)
    nested = _part(read_json_object(other), part) if other.is_file() else None
    for key, value in (nested or {}).items():
        if key in found and _known(found[key]) != _known(value) and None not in (value, found[key]):
            raise InputError(
                f"{key} is {found[key]!r}, but {value!r} in {other.name}, which other versions of "
                "Transformers read",
                place=str(path),
                hint="Remove the file that the model was not trained with.",
            )
    return found


def _part(found: dict[str, Any], part: str) -> dict[str, Any] | None:
    """The settings of a processor; those of the other where the file has no second."""
    parts = {name: found[name] for name in (IMAGES, SOUNDS) if isinstance(found.get(name), dict)}
    return parts.get(part) or next(iter(parts.values()), None)


def _known(value: object) -> object:
    """The name of a processor without that of its implementation."""
    return value.removesuffix("Fast") if isinstance(value, str) else value
