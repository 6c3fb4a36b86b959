"""Class names from the model's ``config.json``, else from a classifier in the model itself."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.reading import read_optional_json


def read_labels(model_path: Path) -> dict[int, str]:
    """``id2label`` of the model's ``config.json``, else the labels in the model.

    The latter are those of ``ZipMap`` and ``LinearClassifier``; empty if there are none.

    Raises:
        InputError: ``config.json`` or its ``id2label`` is malformed.
    """
    path = beside(model_path, "config.json")
    labels = read_optional_json(path).get("id2label")
    if labels is None:
        return dict(enumerate(_stored(model_path)))
    if not isinstance(labels, dict):
        raise InputError("id2label is not an object", place=str(path))
    return {_index(key, path): _name(value, path) for key, value in labels.items()}


def _stored(model_path: Path) -> list[str]:
    from palrp_onnx.model.maps import stored_labels  # of few models

    try:
        return stored_labels(model_path)
    except Exception:  # no readable model: opening it says what is wrong
        return []


def _index(key: str, path: Path) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise InputError(f"id2label has the key {key!r}, which is no class index", place=str(path))
    return int(key)


def _name(value: object, path: Path) -> str:
    # Labels of some models are plain numbers; anything nested is a mistake.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"id2label has the label {value!r}, which is no text", place=str(path))
    return str(value)
