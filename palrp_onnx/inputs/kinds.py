"""Kinds of input files, by their suffixes."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError

TEXT = (".txt",)
IMAGE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SOUND = (".wav", ".flac")
#: Videos, which are not decoded.
_VIDEO = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".m4v")
TABLE = (".csv", ".parquet")
TENSORS = (".npz",)
#: The array of one input, which has to be named.
ARRAY = (".npy",)


#: Suffixes of all files that an input may be given as.
KNOWN = (*TEXT, *IMAGE, *SOUND, *TABLE, *TENSORS, *ARRAY)


def unknown_kind(path: Path) -> InputError:
    """The error for a file that is no input of a known kind."""
    known = (
        f"text ({_list(TEXT)}), images ({_list(IMAGE)}), sound ({_list(SOUND)}), tables "
        f"({_list(TABLE)}) and tensors ({_list(TENSORS)})"
    )
    problem, hint = f"unknown file type {path.suffix.lower()!r}", f"supported are {known}"
    if path.is_dir():
        problem, hint = (
            "is a folder, not one input",
            f"palrp-onnx batch MODEL --input {path} -o maps explains all its files",
        )
    elif path.suffix.lower() in _VIDEO:
        problem = "a video is not decoded"
        hint = (
            "Make an animated image of it, for a model whose image processor is known: "
            f"ffmpeg -i {path.name} -lossless 1 {path.stem}.webp; or its frames an .npz file."
        )
    elif not path.exists():
        problem, hint = "there is no such file", f"{hint}; a text itself is given with --text"
    return InputError(problem, place=str(path), hint=hint)


def _list(suffixes: tuple[str, ...]) -> str:
    return ", ".join(suffixes)
