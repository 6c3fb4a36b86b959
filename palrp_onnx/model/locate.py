"""The model file that a path stands for: itself, or the only one in a folder."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError


def model_file(path: Path) -> Path:
    """``path``; of a folder, the only ``.onnx`` file in it, else the only one in its ``onnx``.

    Raises:
        InputError: There is no such file, or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError("There is no such model file", place=str(path))
    for folder in (path, path / "onnx"):
        found = sorted(folder.glob("*.onnx"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(each.relative_to(path)) for each in found)
            raise InputError(
                "The folder holds several models", place=str(path), hint=f"Name one: {names}."
            )
    raise InputError("The folder holds no .onnx file", place=str(path))
