"""The files that a path stands for: a model file, or the encoder and the decoder in a folder."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError

#: Files of a sequence-to-sequence model as Optimum names them, before what stands for a form of
#: both, such as ``_quantized``; of decoders the first is taken.
ENCODER, DECODERS = "encoder_model", ("decoder_model", "decoder_model_merged")
#: A decoder that reads keys and values of the encoder's states, which another file computes.
_WITH_PAST = "decoder_with_past_model"


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
        if _pair(folder) is not None:
            return folder
        if found:
            names = ", ".join(str(each.relative_to(path)) for each in found)
            raise InputError(
                "The folder holds several models", place=str(path), hint=f"Name one: {names}."
            )
    below = sorted({str(each.parent.relative_to(path)) for each in path.glob("*/*.onnx")})
    raise InputError(
        "The folder holds no .onnx file",
        place=str(path),
        hint=f"Folders in it do: {', '.join(below[:20])}." if below else "",
    )


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files of a model: itself, or those of an encoder and a decoder in a folder.

    Raises:
        InputError: The folder holds no such pair.
    """
    if not path.is_dir():
        return (path,)
    pair = _pair(path)
    if pair is None:
        raise InputError("The folder holds no encoder with a decoder", place=str(path))
    return pair


def real_files(path: Path) -> tuple[Path, ...]:
    """`parts_of`, with links resolved."""
    return tuple(each.resolve() for each in parts_of(path))


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """Encoder and decoder; those without an ending come first. ``None``: there is no encoder.

    Raises:
        InputError: The only decoder needs what another one computes, or there are several pairs.
    """
    endings = sorted(each.stem.removeprefix(ENCODER) for each in folder.glob(f"{ENCODER}*.onnx"))
    if "" in endings or not endings:
        endings = endings[:1]
    if len(endings) > 1:
        raise InputError(
            "The folder holds several encoders",
            place=str(folder),
            hint="Copy the files of one form into a folder: " + ", ".join(endings) + ".",
        )
    for ending in endings:
        decoders = [folder / f"{name}{ending}.onnx" for name in DECODERS]
        if found := next((path for path in decoders if path.is_file()), None):
            return folder / f"{ENCODER}{ending}.onnx", found
        if (alone := folder / f"{_WITH_PAST}{ending}.onnx").is_file():
            raise InputError(
                "The decoder reads keys and values of the encoder's states, which no file computes",
                place=str(alone),
                hint=f"Export {' or '.join(path.name for path in decoders)} as well.",
            )
    return None
