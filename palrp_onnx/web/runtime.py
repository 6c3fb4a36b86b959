"""The software that a page runs on, from npm: ONNX Runtime and Hugging Face's tokenizers in Wasm.

The package does not ship it. It is copied from a folder of npm, where every file must be the one
that the page was tested with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from palrp_onnx.errors import UsageError

_ONNXRUNTIME = ("onnxruntime-web", "1.30.0")
_TOKENIZERS = ("@mlc-ai/web-tokenizers", "0.1.6")
#: Folder of these files in the page.
VENDOR = "vendor"
#: How they are installed.
INSTALL = "npm install " + " ".join(
    f"{name}@{version}" for name, version in (_ONNXRUNTIME, _TOKENIZERS)
)
#: Name in the page → the package, the file in it, and its SHA-256.
_RUNTIME = {
    "ort.wasm.min.mjs": (
        _ONNXRUNTIME,
        "dist/ort.wasm.min.mjs",
        "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    ),
    "ort-wasm-simd-threaded.mjs": (
        _ONNXRUNTIME,
        "dist/ort-wasm-simd-threaded.mjs",
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    ),
    "ort-wasm-simd-threaded.wasm": (
        _ONNXRUNTIME,
        "dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
_FOR_TEXT = {
    "tokenizers.js": (
        _TOKENIZERS,
        "lib/index.js",
        "1835f057a5923a0cac8b17276af4a011a4f4ccecfe9fe16e73ed5fc374f8c6c1",
    ),
}
#: What the page says of it.
NOTICE = (
    f"ONNX Runtime Web {_ONNXRUNTIME[1]} (Microsoft, MIT License)",
    f"web-tokenizers {_TOKENIZERS[1]} (MLC; Hugging Face's tokenizers, Apache License 2.0)",
)


def runtime_files(folder: Path, *, text: bool) -> dict[Path, Path]:
    """The files by their place in the page.

    Args:
        folder: The ``node_modules`` folder of npm.
        text: Whether the page has a tokenizer.

    Raises:
        UsageError: One is missing, or of another version.
    """
    found = {}
    for name, ((package, version), inside, digest) in (
        _RUNTIME | (_FOR_TEXT if text else {})
    ).items():
        path = folder / package / inside
        if not path.is_file():
            raise UsageError(
                f"The page runs on {package} {version}, which is not there",
                place=str(path),
                hint=f"Run `{INSTALL}`, and give its node_modules folder with --web-runtime.",
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UsageError(
                f"This is not the file of {package} {version}",
                place=str(path),
                hint=f"Run `{INSTALL}`.",
            )
        found[Path(VENDOR, name)] = path
    return found
