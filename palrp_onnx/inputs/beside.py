"""Files that belong to a model: in its folder, or one folder up.

Exporters and model hubs put graphs into a folder of their own, ``onnx/model.onnx``, below the
folder with the tokenizer and the configuration. The folder is that of the path as it was given,
also where the file is a link.
"""

from __future__ import annotations

from pathlib import Path


def folders_of(model_path: Path) -> tuple[Path, ...]:
    """The folders that are searched, the nearest first.

    The one above counts if the model's own is named ``onnx…``, or if it is the folder of a model
    itself: it has a ``config.json``. Files of another model may lie in any other folder.
    """
    own = model_path if model_path.is_dir() else model_path.parent
    above = own.absolute().parent
    of_a_model = own.absolute().name.lower().startswith("onnx") or (
        (above / "config.json").is_file()
    )
    return (own, above) if of_a_model else (own,)


def beside(model_path: Path, name: str) -> Path:
    """The nearest file of this name; its place in the model's folder if there is none."""
    places = [folder / name for folder in folders_of(model_path)]
    return next((path for path in places if path.is_file()), places[0])
