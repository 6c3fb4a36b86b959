"""Digests of the files that are read with a model, besides its graph."""

from __future__ import annotations

import hashlib
from pathlib import Path

from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.tokenizer_files import NAMES, TOKENIZER, default_tokenizer, tokenizer_file

_COMPANIONS = ("config.json", "preprocessor_config.json", "processor_config.json")


def file_digests(model: Path, tokenizer: Path | None) -> dict[str, str]:
    """Name → SHA-256 of configuration and tokenizer files beside ``model``, those that exist.

    Args:
        model: Path of the model.
        tokenizer: The tokenizer, a file or a folder, if it is elsewhere.
    """
    files = {name: beside(model, name) for name in _COMPANIONS}
    found = default_tokenizer(model) if tokenizer is None else tokenizer_file(tokenizer)
    files |= {name: found.with_name(name) for name in NAMES}
    files[TOKENIZER if found.name not in NAMES else found.name] = found
    return {name: sha256_of(file) for name, file in files.items() if file.is_file()}


def sha256_of(file: Path) -> str:
    """The digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
