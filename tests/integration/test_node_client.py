"""A real client without Python: an explainer in Node.js gives the numbers that it gives here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from committed import MODELS
from once import made_once

from palrp_onnx.compiler.file import compile_model

MODEL = MODELS / "reviews-rope/model.onnx"
#: The program, and the runtime that it needs, every package pinned by its hash.
CLIENT = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def packages() -> Path:
    """node_modules with the runtime, kept in the machine's temporary folder between runs."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CLIENT / name, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if "EINTEGRITY" in done.stderr:
            pytest.fail(f"A package is another file now: {done.stderr}")
        if done.returncode:
            pytest.skip(f"onnxruntime-node cannot be installed: {done.stderr.strip()[-200:]}")

    pinned = hashlib.sha256((CLIENT / "package-lock.json").read_bytes()).hexdigest()
    folder = Path(tempfile.gettempdir()) / "palrp-node" / pinned
    return made_once(folder, install) / "node_modules"


def test_node_gives_the_same_numbers(packages: Path, tmp_path: Path) -> None:
    place = tmp_path / "explainer.onnx"
    place.write_bytes(compile_model(MODEL, place))
    ids = np.random.default_rng(0).integers(5, 8000, size=(3, 17))
    # Node's binding passes no inputs that have a default, so the target is the predicted class.
    feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    done = subprocess.run(
        ["node", str(CLIENT / "client.js"), str(place)],
        input=json.dumps({name: array.tolist() for name, array in feeds.items()}),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NODE_PATH": str(packages)},
        timeout=120,
    )
    theirs = json.loads(done.stdout)
    session = onnxruntime.InferenceSession(str(place))
    names = [output.name for output in session.get_outputs()]
    for name, ours in zip(names, session.run(names, feeds), strict=True):
        dims, numbers = theirs[name]
        assert tuple(dims) == ours.shape
        np.testing.assert_allclose(np.reshape(numbers, dims), ours, atol=1e-4 * np.abs(ours).max())
