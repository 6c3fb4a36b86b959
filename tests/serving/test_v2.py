"""The Open Inference Protocol V2, as its own client speaks it, in JSON and in bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from committed import MODELS
from loaded import loaded

pytest.importorskip("starlette")
from starlette.testclient import TestClient

TEXT = "A gripping film."
LONGER = "So dull, and so long that nobody stays."


def text(*texts: str) -> dict[str, Any]:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": [*texts]}


def post(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/v2/models/{path}", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {**found, **{each["name"]: each for each in found["outputs"]}}


def values(output: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.quick
def test_maps_of_texts_of_different_lengths(client: TestClient) -> None:
    found = post(client, "reviews-rope/explain", {"inputs": [text(TEXT, LONGER)], "id": "r7"})
    assert (found["id"], found["model_name"]) == ("r7", "reviews-rope")
    for row, each in enumerate((TEXT, LONGER)):
        own = loaded("reviews-rope").explain(each, "pred")
        count = values(found["unit_count"])[row]
        assert count == len(own)
        for part in ("content", "position", "total", "score"):
            map_ = values(found[f"relevance_{part}"])[row]
            assert map_[:count] == pytest.approx(getattr(own, part), rel=1e-4, abs=1e-5)
            assert not map_[count:].any()
        words = values(found["word_count"])[row]
        assert values(found["words"])[row][:words].tolist() == [e.text for e in own.words]
        assert values(found["target"])[row] == own.target.label
    assert "record" not in found
    assert found["residual"]["datatype"] == "FP64"


def test_outputs_that_are_asked_for(client: TestClient) -> None:
    wanted = [{"name": "record"}, {"name": "target_value"}]
    body = {"inputs": [text(TEXT)], "outputs": wanted, "parameters": {"target": 0}}
    found = post(client, "reviews-rope/explain", body)
    assert [each["name"] for each in found["outputs"]] == ["record", "target_value"]
    record = json.loads(found["record"]["data"][0])
    assert record["target"]["index"] == 0
    assert record["target"]["value"] == found["target_value"]["data"][0]
    none = {"inputs": [text(TEXT)], "outputs": [{"name": "other"}]}
    answer = client.post("/v2/models/reviews-rope/explain", json=none)
    assert answer.status_code == 400
    assert "no output 'other'" in answer.json()["error"]


def test_targets_of_rows(client: TestClient) -> None:
    targets = {
        "name": "target",
        "shape": [2],
        "datatype": "BYTES",
        "data": ["NEGATIVE", "POSITIVE"],
    }
    found = post(client, "reviews-rope/explain", {"inputs": [text(TEXT, TEXT), targets]})
    assert found["target"]["data"] == ["NEGATIVE", "POSITIVE"]
    several = {"inputs": [text(TEXT)], "parameters": {"target": ["NEGATIVE", 1]}}
    assert post(client, "reviews-rope/explain", several)["target"]["data"] == [
        "NEGATIVE",
        "POSITIVE",
    ]


def test_targets_as_numbers(client: TestClient) -> None:
    """One whole number a row, whatever the axes; none is cut off, and none is left over."""

    def answer(targets: Any, shape: list[int], datatype: str, rows: int) -> Any:
        given = {"name": "target", "shape": shape, "datatype": datatype, "data": targets}
        body = {"inputs": [text(*[TEXT] * rows), given], "outputs": [{"name": "target"}]}
        return client.post("/v2/models/reviews-rope/explain", json=body)

    for shape in ([2], [2, 1]):
        found = answer([1, 0], shape, "INT64", 2).json()
        assert found["outputs"][0]["data"] == ["POSITIVE", "NEGATIVE"]
    assert answer(1, [], "INT64", 1).json()["outputs"][0]["data"] == ["POSITIVE"]
    for wrong, said in (
        (answer([0, 0, 1, 1], [2, 2], "INT64", 2), "4 targets for 2 rows"),
        (answer(1, [], "INT64", 2), "1 targets for 2 rows"),
        (answer([1.7], [1], "FP32", 1), "texts or whole numbers"),
        (answer([True], [1], "BOOL", 1), "texts or whole numbers"),
    ):
        assert wrong.status_code == 400
        assert said in wrong.json()["error"]


def test_a_number_beside_texts_is_no_unexpected_error(client: TestClient) -> None:
    number = {"name": "attention_mask", "shape": [], "datatype": "INT64", "data": 1}
    body = {"inputs": [text(TEXT), number]}
    assert client.post("/v2/models/reviews-rope/explain", json=body).status_code == 400


def ids() -> list[dict[str, Any]]:
    rows = [
        loaded("reviews-rope").read(TEXT).feeds,
        loaded("reviews-rope").read("A dull film.").feeds,
    ]
    return [
        {
            "name": name,
            "shape": [2, rows[0][name].shape[1]],
            "datatype": "INT64",
            "data": np.concatenate([row[name] for row in rows]).tolist(),
        }
        for name in ("input_ids", "attention_mask")
    ]


def test_arrays_of_several_rows(client: TestClient) -> None:
    found = post(client, "reviews-rope/explain", {"inputs": ids()})
    expected = post(client, "reviews-rope/explain", {"inputs": [text(TEXT, "A dull film.")]})
    assert values(found["relevance_total"]) == pytest.approx(
        values(expected["relevance_total"]), rel=1e-4, abs=1e-5
    )
    said = post(client, "reviews-rope/infer", {"inputs": ids()})
    assert values(said["logits"]) == pytest.approx(
        values(
            post(client, "reviews-rope/infer", {"inputs": [text(TEXT, "A dull film.")]})["logits"]
        ),
        abs=1e-5,
    )


def test_an_image_as_bytes(client: TestClient) -> None:
    data = (MODELS / "digits-vit" / "sample.png").read_bytes()
    element = struct.pack("<I", len(data)) + data
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(element)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = client.post(
        "/v2/models/digits-vit/explain",
        content=head + element,
        headers={"inference-header-content-length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    sizes = [each["parameters"]["binary_data_size"] for each in outputs]
    assert length + sum(sizes) == len(answer.content)
    place = length + sum(sizes[: [e["name"] for e in outputs].index("relevance_total")])
    own = loaded("digits-vit").explain(MODELS / "digits-vit" / "sample.png")
    total = np.frombuffer(answer.content, "<f4", count=len(own), offset=place)
    assert total == pytest.approx(own.total, rel=1e-4, abs=1e-5)


def test_the_client_of_triton(client: TestClient) -> None:
    """Its bodies are understood, and it understands the answers."""
    triton = pytest.importorskip("tritonclient.http")
    given = triton.InferInput("text", [2, 1], "BYTES")
    given.set_data_from_numpy(np.array([[TEXT.encode()], [b"So dull."]], object))
    wanted = [
        triton.InferRequestedOutput("words"),
        triton.InferRequestedOutput("relevance_total", binary_data=False),
    ]
    make, read = (
        triton.InferenceServerClient.generate_request_body,
        triton.InferenceServerClient.parse_response_body,
    )
    body, size = make([given], outputs=wanted)
    answer = client.post(
        "/v2/models/reviews-rope/explain",
        content=bytes(body),
        headers={"inference-header-content-length": str(size)},
    )
    assert answer.status_code == 200, answer.text
    found = read(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    assert found.as_numpy("words")[0].tolist() == [
        b"[CLS]",
        b"A",
        b"gripping",
        b"film",
        b".",
        b"[SEP]",
    ]
    assert found.as_numpy("relevance_total").shape[0] == 2


def test_metadata_and_health(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "palrp-onnx"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    found = client.get("/v2/models/reviews-rope").json()
    assert found["inputs"][0] == {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}
    assert found["methods"] == ["pa-lrp", "attnlrp"]
    assert found["reads"] == ["text", "text_pair"]
    assert client.get("/v2/models/digits-vit").json()["reads"] == ["image"]
    (version,) = found["versions"]
    for path in ("", "/ready"):
        assert client.get(f"/v2/models/reviews-rope/versions/{version}{path}").status_code == 200
        assert client.get(f"/v2/models/reviews-rope/versions/1{path}").status_code == 404
    index = client.post("/v2/repository/index").json()
    assert [each["name"] for each in index] == ["reviews-rope", "digits-vit"]
    assert client.get("/v1/models").json() == {"models": ["reviews-rope", "digits-vit"]}
    assert client.get("/v1/models/none").status_code == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [2]}, "1 elements for the shape [2]"),
        ({"shape": [-1]}, "shape cannot be"),
        ({"shape": [1] * 40}, "shape cannot be"),
        ({"shape": [10**30]}, "cannot be"),
        ({"datatype": "TEXT"}, "not known"),
        ({"datatype": "INT64"}, "not all int64"),
        ({"data": [7]}, "strings"),
        ({"name": "other"}, "no such input"),
        ({"parameters": {"binary_data_size": 4}}, "not in the body"),
        ({"parameters": {"binary_data_size": -1}}, "not in the body"),
        ({"parameters": {"binary_data_size": True}}, "not in the body"),
    ],
)
def test_what_cannot_be_used(client: TestClient, change: dict[str, Any], said: str) -> None:
    body = {"inputs": [{**text(TEXT), **change}]}
    for verb in ("infer", "explain"):
        answer = client.post(f"/v2/models/reviews-rope/{verb}", json=body)
        assert answer.status_code == 400, answer.text
        assert said in answer.json()["error"]


def test_numbers_are_not_rounded(client: TestClient) -> None:
    first, mask = ids()
    for data in ([[1.5] * 6] * 2, [[True] * 6] * 2, [[2**70] * 6] * 2):
        body = {"inputs": [{**first, "data": data}, mask]}
        answer = client.post("/v2/models/reviews-rope/infer", json=body)
        assert answer.status_code == 400, (data, answer.text)
    other = {"inputs": [{**first, "datatype": "INT32"}, mask]}
    answer = client.post("/v2/models/reviews-rope/infer", json=other)
    assert "type INT64" in answer.json()["error"]
