"""A model in a cache of downloads, with external data, through the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx.cli.main import program

SOURCE = MODELS / "reviews-rope"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with external data, and its other files, in one folder."""
    folder = tmp_path_factory.mktemp("plain")
    model = onnx.load(SOURCE / "model.onnx")
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=1024,
    )
    for name in FILES:
        shutil.copy(SOURCE / name, folder / name)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def cached(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the layout of a hub: files by their digests, and links with their names."""
    root = tmp_path_factory.mktemp("cache") / "models--me--film"
    snapshot = root / "snapshots" / "0a1b"
    (root / "blobs").mkdir(parents=True)
    (snapshot / "onnx").mkdir(parents=True)
    places = {"model.onnx": "onnx/", "model.onnx_data": "onnx/", **dict.fromkeys(FILES, "")}
    for name, folder in places.items():
        data = (plain.parent / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs" / digest).write_bytes(data)
        up = "../" * (2 + folder.count("/"))
        (snapshot / folder / name).symlink_to(f"{up}blobs/{digest}")
    return snapshot / "onnx" / "model.onnx"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(program, [str(each) for each in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_cached_model_is_explained_as_a_plain_one(plain: Path, cached: Path) -> None:
    words = SOURCE / "sample.txt"
    first, second = (
        json.loads(run("explain", model, "--input", words, "-q")) for model in (plain, cached)
    )
    assert first["target"]["label"] == "POSITIVE"
    for each in (first, second):
        del each["run"]
    assert first == second
    assert run("inspect", plain) == run("inspect", cached)


def test_batch_and_compile(plain: Path, cached: Path, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"text": "a good film"}\n{"text": "a very dull and wooden film"}\n')
    found = []
    for model, out in ((plain, tmp_path / "a"), (cached, tmp_path / "b")):
        run("batch", model, "--input", lines, "-o", out, "-q")
        rows = map(json.loads, (out / "part-00000.jsonl").read_text().splitlines())
        found.append([row["relevance"] for row in rows])
    assert found[0] == found[1]

    explainer = cached.with_name("explainer.onnx")  # has weights of its own: ONNX Runtime follows
    run("compile", cached, "-o", explainer, "-q")  # no link out of its folder
    record = json.loads(run("explain", explainer, "--input", SOURCE / "sample.txt", "-q"))
    own = json.loads(run("explain", cached, "--input", SOURCE / "sample.txt", "-q"))
    np.testing.assert_allclose(
        record["relevance"]["total"], own["relevance"]["total"], rtol=1e-4, atol=1e-6
    )
    run("compile", cached, "--triton", tmp_path / "served", "-q")
    assert [path.name for path in (tmp_path / "served").iterdir()] == ["onnx"]
