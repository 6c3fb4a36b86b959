"""Whatever a client sends is answered with a result or an error of its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
from serving_options import serving
from starlette.testclient import TestClient

from palrp_onnx.serving import application
from palrp_onnx.serving.served import Served

MODELS = ("reviews-rope", "digits-vit")
PATHS = [
    *(f"/v1/models/{name}:{verb}" for name in MODELS for verb in ("predict", "explain")),
    *(f"/v2/models/{name}/{verb}" for name in MODELS for verb in ("infer", "explain")),
]
#: What a request can be answered with that no check and no limit of time fails.
STATUSES = {200, 400, 406, 413, 415, 422}
HOSTILE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    found = serving(*MODELS, max_tokens=64)
    opened = {place.name: Served(place, found) for place in found.models}
    with TestClient(application(found, opened), raise_server_exceptions=True) as client:
        yield client


def check(client: TestClient, path: str, content: bytes, headers: dict[str, str]) -> None:
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code in STATUSES, answer.text
    assert b"Traceback" not in answer.content
    if answer.status_code != 200:
        assert set(answer.json()) == {"error", "code"}


lengths = st.sampled_from(["", "-1", "0", "5", "1e3", "9" * 30, "9" * 5000, "²", "x"])


@HOSTILE
@given(st.sampled_from(PATHS), st.binary(max_size=200), st.none() | lengths)
def test_any_bytes(client: TestClient, path: str, content: bytes, length: str | None) -> None:
    headers = {} if length is None else {"inference-header-content-length": length.encode()}
    check(client, path, content, headers)  # type: ignore[arg-type]


words = st.sampled_from(["text", "text_pair", "image", "input_ids", "inputs", "target", "id"])
names = st.sampled_from(["pixel_values", "attention_mask", "messages", "b64", "role", "content"])
numbers = st.integers(-3, 200) | st.integers() | st.floats() | st.booleans() | st.none()
texts = st.text(max_size=20) | st.sampled_from(["all", "dot:/etc/passwd", "region:0", "token:-1"])
values = st.recursive(
    numbers | texts,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(words | names, each, max_size=3),
    max_leaves=12,
)


@HOSTILE
@given(st.sampled_from(PATHS[:4]), st.lists(values, max_size=3), values, values)
def test_any_instances(
    client: TestClient, path: str, instances: list[Any], target: Any, method: Any
) -> None:
    body = {"instances": instances, "parameters": {"target": target, "method": method}}
    for each in (body, {"instances": instances}):
        check(client, path, json.dumps(each).encode(), {})


types = st.sampled_from(["BYTES", "INT64", "FP32", "BOOL", "FP16", "UINT8", "BF16", ""])
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "input_ids"]) | words | names | st.text(max_size=5),
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=4),
        "datatype": types,
    },
    optional={
        "data": values,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "content_type"]),
            st.integers(-2, 40) | st.integers() | texts,
        ),
    },
)
parameters = st.dictionaries(
    st.sampled_from(["timeout", "target", "method", "binary_data_output"]), values, max_size=3
)


@HOSTILE
@given(
    st.sampled_from(PATHS[4:]),
    st.lists(tensors, max_size=3),
    parameters,
    st.lists(st.fixed_dictionaries({"name": texts}), max_size=2),
    st.binary(max_size=60),
    st.integers(-3, 3),
)
def test_any_tensors(
    client: TestClient,
    path: str,
    inputs: list[Any],
    parameters: dict[str, Any],
    outputs: list[Any],
    rest: bytes,
    off: int,
) -> None:
    parameters.pop("timeout", None)  # a deadline of a microsecond is another status
    body = {"inputs": inputs, "parameters": parameters, "outputs": outputs}
    head = json.dumps(body).encode()
    check(client, path, head, {})
    length = str(max(0, len(head) + off))
    check(client, path, head + rest, {"inference-header-content-length": length})


def test_json_that_is_nested_without_end(client: TestClient) -> None:
    deep = b"[" * 100_000
    for path in PATHS:
        for body in (deep, b'{"instances": ' + deep, b'{"inputs": ' + deep):
            check(client, path, body, {})
    nested = '{"instances": [' + "[" * 900 + "]" * 900 + "]}"
    data = '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": %s}]}'
    check(client, PATHS[1], nested.encode(), {})
    check(client, PATHS[5], (data % ("[" * 900 + "]" * 900)).encode(), {})
