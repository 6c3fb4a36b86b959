"""The lines of a part as a Parquet file with one row per record."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from palrp_onnx.inputs.table import import_parquet


def table_encoder() -> Callable[[Sequence[bytes]], bytes]:
    """A function that encodes lines as a Parquet file.

    Every part has the same columns, those of the record. ``meta``, ``ledger``, ``fidelity``,
    ``run.params``, ``run.files`` and ``target.index``, which have no fixed form, are JSON text.
    ``error`` is empty if the record was explained; otherwise all columns but ``error`` and ``id``
    are empty.

    Raises:
        ResourceError: pyarrow is not installed.
    """
    parquet = import_parquet()
    arrow = importlib.import_module("pyarrow")
    schema = _schema(arrow)

    def encode(lines: Sequence[bytes]) -> bytes:
        rows = [_row(json.loads(line)) for line in lines]
        stream = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), stream)
        return stream.getvalue()

    return encode


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A record in which fields without a fixed form are JSON text."""
    row = dict(record)
    for name in ("meta", "ledger", "fidelity"):
        if name in row:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    if "run" in row:
        free = {name: json.dumps(row["run"].get(name, {})) for name in ("params", "files")}
        row["run"] = {**row["run"], **free}
    if "index" in row.get("target", ()):
        row["target"] = {**row["target"], "index": json.dumps(row["target"]["index"])}
    return row


def _schema(arrow: Any) -> Any:
    """The columns, in the order of the record."""
    text, whole, real, flag = arrow.string(), arrow.int64(), arrow.float64(), arrow.bool_()

    def struct(**fields: Any) -> Any:
        return arrow.struct(list(fields.items()))

    reals = arrow.list_(real)
    wholes = arrow.list_(whole)
    shown = {
        "units": struct(
            kind=text,
            text=arrow.list_(text),
            id=wholes,
            start=wholes,
            end=wholes,
            special=arrow.list_(flag),
            sequence=wholes,
            unknown=arrow.list_(flag),
            grid=wholes,
            pictures=whole,
            step=real,
        ),
        "relevance": struct(
            content=reals,
            position=reals,
            total=reals,
            score=reals,
            off_map=struct(content=real, position=real),
        ),
        "sites": arrow.list_(
            struct(name=text, kind=text, layer=whole, part=text, relevance=reals, off_map=real)
        ),
    }
    entry = {"index": whole, "value": real, "label": text, "probability": real}
    columns = {
        "schema": text,
        "id": text,
        "model": struct(
            sha256=text,
            opset=whole,
            producer=text,
            nodes=whole,
            name=text,
            files=arrow.list_(text),
        ),
        "run": struct(
            version=text,
            method=text,
            params=text,
            engine=text,
            device=text,
            dtype=text,
            providers=arrow.list_(text),
            runtime=text,
            files=text,
        ),
        "input": struct(
            kind=text,
            truncated=flag,
            text=text,
            text_pair=text,
            size=wholes,
            seconds=real,
            step=real,
            windows=arrow.list_(wholes),
            windows_of=text,
            unread=struct(tokens=whole, characters=whole),
        ),
        "target": struct(
            output=text,
            kind=text,
            index=text,
            value=real,
            position=whole,
            label=text,
            against=whole,
            against_label=text,
            probability=real,
            vector=text,
            vector_sha256=text,
            token=text,
            logprob=flag,
            rest=flag,
            places=wholes,
            region=text,
            cells=whole,
            along=text,
            head=text,
            head_reason=text,
        ),
        **shown,
        "ledger": text,
        "warnings": arrow.list_(struct(code=text, message=text)),
        "fidelity": text,
        "input_name": text,
        "others": arrow.list_(struct(input=text, **shown)),
        "prediction": struct(**entry, position=whole, top=arrow.list_(struct(**entry))),
        "meta": text,
        "error": struct(code=text, message=text, place=text, hint=text),
    }
    return arrow.schema(list(columns.items()))
