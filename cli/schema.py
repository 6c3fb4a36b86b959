"""``palrp-onnx schema``: the JSON Schema of the record."""

from __future__ import annotations

import click

from .writing import write_stdout


@click.command(short_help="Print the JSON Schema of the record.")
def schema() -> None:
    """Print the JSON Schema (2020-12) of the record that explain writes."""
    from palrp_onnx.files import to_json
    from palrp_onnx.record import json_schema

    write_stdout(to_json(json_schema()))
