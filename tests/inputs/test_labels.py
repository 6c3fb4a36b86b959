from __future__ import annotations

import json
from pathlib import Path

import pytest

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import read_labels

pytestmark = pytest.mark.quick


def model(folder: Path, content: str | None) -> Path:
    if content is not None:
        (folder / "config.json").write_text(content, encoding="utf-8")
    return folder / "model.onnx"


def test_labels(tmp_path: Path) -> None:
    config = {"id2label": {"0": "négatif", "1": "POSITIVE", "10": 5}}
    path = model(tmp_path, json.dumps(config))
    assert read_labels(path) == {0: "négatif", 1: "POSITIVE", 10: "5"}


@pytest.mark.parametrize("content", [None, "{}", '{"id2label": null}', '{"id2label": {}}'])
def test_no_labels(tmp_path: Path, content: str | None) -> None:
    assert read_labels(model(tmp_path, content)) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '"x"',
        "[" * 100_000,
        "\udc00".encode("utf-8", "surrogatepass").decode("latin-1"),
        '{"id2label": ["a"]}',
        '{"id2label": {"a": "b"}}',
        '{"id2label": {"-1": "b"}}',
        '{"id2label": {"²": "b"}}',
        '{"id2label": {"0": ["b"]}}',
        '{"id2label": {"0": null}}',
        '{"id2label": {"0": true}}',
    ],
)
def test_corrupt_config(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        read_labels(model(tmp_path, content))
