"""``palrp-onnx schema``: the JSON Schema of what explain writes."""

from __future__ import annotations

import click

from .command import command
from .writing import write_stdout


@command(short_help="Print the JSON Schema of the record.")
@click.option("--matrix", is_flag=True, help="Print that of NAME-matrix.json, a continued text.")
def schema(matrix: bool) -> None:
    """Print the JSON Schema (2020-12) of the record that explain writes."""
    from palrp_onnx.files import to_json

    if matrix:
        from palrp_onnx.matrix import json_schema
    else:
        from palrp_onnx.record import json_schema
    write_stdout(to_json(json_schema()))
