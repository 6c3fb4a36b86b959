"""``palrp-onnx schema``: what a record looks like, for machines."""

from __future__ import annotations

import json

import click

from .writing import write_stdout


@click.command(short_help="Print the JSON Schema of the record.")
def schema() -> None:
    """Print the JSON Schema (2020-12) of the record that explain writes."""
    from palrp_onnx.record import json_schema

    write_stdout(json.dumps(json_schema(), indent=2).encode() + b"\n")
