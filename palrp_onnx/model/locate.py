"""The files that a path stands for: a model file, or the encoder and the decoder in a folder."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError

#: Files of a sequence-to-sequence model as Optimum names them; of decoders the first is taken.
ENCODER, DECODERS = "encoder_model.onnx", ("decoder_model.onnx", "decoder_model_merged.onnx")
#: A decoder that reads keys and values of the encoder's states, which another file computes.
_WITH_PAST = "decoder_with_past_model.onnx"


def model_file(path: Path) -> Path:
    """``path``; of a folder, the only ``.onnx`` file in it, else the only one in its ``onnx``.

    A folder that holds an encoder and a decoder is itself the model.

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
        if _decoder(folder) is not None:
            return folder
        if found:
            names = ", ".join(str(each.relative_to(path)) for each in found)
            raise InputError(
                "The folder holds several models", place=str(path), hint=f"Name one: {names}."
            )
    raise InputError("The folder holds no .onnx file", place=str(path))


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files of a model: itself, or those of an encoder and a decoder in a folder.

    Raises:
        InputError: The folder holds no such pair.
    """
    if not path.is_dir():
        return (path,)
    decoder = _decoder(path)
    if decoder is None:
        raise InputError("The folder holds no encoder with a decoder", place=str(path))
    return (path / ENCODER, decoder)


def real_files(path: Path) -> tuple[Path, ...]:
    """`parts_of`, with links resolved."""
    return tuple(each.resolve() for each in parts_of(path))


def _decoder(folder: Path) -> Path | None:
    """The decoder beside an encoder; ``None`` where there is no encoder.

    Raises:
        InputError: The only decoder needs what another one computes.
    """
    if not (folder / ENCODER).is_file():
        return None
    found = next((folder / name for name in DECODERS if (folder / name).is_file()), None)
    if found is None and (folder / _WITH_PAST).is_file():
        raise InputError(
            "The decoder reads keys and values of the encoder's states, which no file computes",
            place=str(folder / _WITH_PAST),
            hint=f"Export {' or '.join(DECODERS)} as well.",
        )
    return found
