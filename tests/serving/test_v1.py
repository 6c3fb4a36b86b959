"""KServe's V1 protocol: the same records as the library makes, from texts, images and arrays."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from committed import MODELS
from loaded import loaded

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from palrp_onnx.record import Attribution

TEXT = "A gripping film."
PICTURE = base64.b64encode((MODELS / "digits-vit" / "sample.png").read_bytes()).decode()


def post(client: TestClient, path: str, body: Any, **headers: str) -> Any:
    answer = client.post(f"/v1/models/{path}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json() if not headers else answer


def same(found: dict[str, Any], expected: Attribution) -> None:
    assert found["target"]["index"] == expected.target.index
    for part in ("content", "position", "total", "score"):
        own = getattr(expected.relevance, part)
        assert found["relevance"][part] == pytest.approx(own, rel=1e-4, abs=1e-5)


@pytest.mark.quick
def test_explanations_are_those_of_the_library(client: TestClient) -> None:
    texts = [TEXT, "So dull, and so long that nobody stays."]
    found = post(client, "reviews-rope:explain", {"instances": texts})["explanations"]
    assert [each["id"] for each in found] == ["0", "1"]
    for each, text in zip(found, texts, strict=True):
        same(each, loaded("reviews-rope").explain(text, "pred").record)
        assert each["input"]["text"] == text


def test_targets_and_methods_of_rows(client: TestClient) -> None:
    rows = [{"id": "a", "text": TEXT, "target": ["POSITIVE", 0]}, {"text": TEXT}]
    body = {"instances": rows, "parameters": {"target": "NEGATIVE-POSITIVE", "method": "attnlrp"}}
    found = post(client, "reviews-rope:explain", body)["explanations"]
    model = loaded("reviews-rope")
    for each, target in zip(found, ("POSITIVE", "index:0", "NEGATIVE-POSITIVE"), strict=True):
        same(each, model.explain(TEXT, target, method="attnlrp").record)
        assert each["run"]["method"] == "attnlrp"
    assert [each["id"] for each in found] == ["a", "a", "1"]
    every = {"instances": [{"text": TEXT, "target": "all"}]}
    assert len(post(client, "reviews-rope:explain", every)["explanations"]) == 2


def test_words_are_given_if_they_are_asked_for(client: TestClient) -> None:
    body = {"instances": [TEXT], "parameters": {"words": True}}
    (words,) = post(client, "reviews-rope:explain", body)["words"]
    expected = loaded("reviews-rope").explain(TEXT).words
    assert [each["text"] for each in words] == [each.text for each in expected]
    assert [e["total"] for e in words] == pytest.approx([e.total for e in expected], abs=1e-5)


def test_images_and_arrays(client: TestClient) -> None:
    rows = [{"image": {"b64": PICTURE}}, {"image": PICTURE}]
    found = post(client, "digits-vit:explain", {"instances": rows})["explanations"]
    expected = loaded("digits-vit").explain(MODELS / "digits-vit" / "sample.png").record
    for each in found:
        same(each, expected)
    pixels = loaded("digits-vit").read(MODELS / "digits-vit" / "sample.png").feeds["pixel_values"]
    row = pixels[0].tolist()
    body = {"instances": [row, {"inputs": {"pixel_values": row}}]}
    for each in post(client, "digits-vit:explain", body)["explanations"]:
        same(each, expected)


def test_predictions_are_the_outputs_of_the_file(client: TestClient) -> None:
    found = post(client, "reviews-rope:predict", {"instances": [TEXT, {"text": "So dull."}]})
    for text, row in zip((TEXT, "So dull."), found["predictions"], strict=True):
        said = loaded("reviews-rope").explain(text).record.target
        assert isinstance(said.index, int)
        assert row[said.index] == pytest.approx(said.value, rel=1e-5)
    sample = loaded("reviews-rope").read(TEXT)
    ids, mask = (sample.feeds[name][0].tolist() for name in ("input_ids", "attention_mask"))
    given = [{"input_ids": ids}, {"inputs": {"input_ids": ids, "attention_mask": mask}}]
    rows = post(client, "reviews-rope:predict", {"instances": given})["predictions"]
    assert np.allclose(rows, found["predictions"][0], atol=1e-6)


def test_pages_and_pictures(client: TestClient) -> None:
    one, two = {"instances": [TEXT]}, {"instances": [TEXT, "So dull."]}
    page = post(client, "reviews-rope:explain", two, accept="text/html")
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.startswith("<!doctype html>") or "<html" in page.text
    picture = post(client, "reviews-rope:explain", one, accept="image/png;q=0.9, text/*;q=0.1")
    assert picture.content[:4] == b"\x89PNG"
    refused = client.post(
        "/v1/models/reviews-rope:explain", json=two, headers={"accept": "image/png"}
    )
    assert refused.status_code == 406
    none = client.post("/v1/models/reviews-rope:explain", json=one, headers={"accept": "audio/wav"})
    assert none.status_code == 406


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"instances": {}}', "cannot be read"),
        (b'{"instances": []}', "1 to 64 rows"),
        (b'{"instances": [7]}', "a text or an object"),
        (b'{"instances": [{}]}', "no input"),
        (b'{"instances": [{"file": "/etc/passwd"}]}', "unknown field"),
        (b'{"instances": [""]}', "no text"),
        (b'{"instances": ["x"], "parameters": {"target": "nothing"}}', "no target"),
        (b'{"instances": ["x"], "parameters": {"target": "dot:/etc/v.npy"}}', "file"),
        (b'{"instances": ["x"], "parameters": {"target": []}}', "A target is"),
        (b'{"instances": ["x"], "parameters": {"method": "cp-lrp"}}', "not offered"),
        (b'{"instances": ["x"], "parameters": {"method": "magic"}}', "Unknown method"),
        (b'{"instances": [{"image": "!"}]}', "base64"),
        (b'{"instances": [{"image": "AAAA"}]}', "not a readable image"),
        (b'{"instances": [{"inputs": {"other": [1]}}]}', "no input"),
        (b'{"instances": [{"inputs": {"input_ids": [1.5]}}]}', "not int64"),
        (b'{"instances": [{"inputs": {"input_ids": [1, [2]]}}]}', "different lengths"),
        (b'{"instances": [{"text": "a", "input_ids": [1]}]}', "no other input"),
        (b'{"instances": [{"input_ids": [1180591620717411303424]}]}', ""),
    ],
)
def test_what_cannot_be_used(client: TestClient, body: bytes, said: str) -> None:
    answer = client.post("/v1/models/reviews-rope:explain", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_a_text_is_never_the_name_of_a_file(client: TestClient) -> None:
    """Also not for a model that takes no text, for which the library reads a text as a path."""
    file = str(MODELS / "digits-vit" / "sample.png")
    for row in (file, {"text": file}, {"inputs": {"pixel_values": file}}):
        answer = client.post("/v1/models/digits-vit:explain", json={"instances": [row]})
        assert answer.status_code == 400, answer.text
        assert str(MODELS) not in answer.text
